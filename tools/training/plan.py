"""The plan of a training: which rows each optimizer step takes, and its share of the learning rate."""

import random
from collections.abc import Sequence
from typing import TypeVar

from agent.config.lora import Lora
from tools.model.chat_template import TokenRow

T = TypeVar("T")
Rows = list[tuple[str, TokenRow]]  # each with the id of its prompt


def rate_factor(step: int, warmup: int, steps: int) -> float:
    """Share of the learning rate at a step, from 0: a linear rise over `warmup` steps, then a linear fall.

    It is never 0, not even at the first step (where transformers' own linear schedule begins, and wastes it).
    """
    return (step + 1) / (warmup + 1) if step < warmup else (steps - step) / max(1, steps - warmup)


def plan_steps(rows: Rows, settings: Lora, epochs: int, seed: int) -> list[tuple[int, list[list[TokenRow]]]]:
    """Epoch, from 1, and batches of each optimizer step."""
    return [
        (epoch, batches)
        for epoch in range(1, epochs + 1)
        for batches in chunks(plan_epoch(rows, settings.batch_size, seed + epoch - 1), settings.accumulate)
    ]


def plan_epoch(rows: Sequence[tuple[str, TokenRow]], size: int, seed: int) -> list[list[TokenRow]]:
    """Every row once, shuffled, in batches of at most `size` rows of one prompt: their shared prefix runs once.

    Args:
        rows: (prompt id, row) pairs.
    """
    shuffle = random.Random(seed)
    by_prompt: dict[str, list[TokenRow]] = {}
    for prompt, row in shuffle.sample(list(rows), len(rows)):
        by_prompt.setdefault(prompt, []).append(row)
    batches = [batch for same in by_prompt.values() for batch in chunks(same, size)]
    shuffle.shuffle(batches)
    return batches


def chunks(items: Sequence[T], size: int) -> list[list[T]]:
    """The items in order, in lists of `size`; the last may be shorter."""
    return [list(items[start : start + size]) for start in range(0, len(items), size)]

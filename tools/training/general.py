"""General rows against forgetting: while the weights learn a task, they keep the base's predictions on other text.

The texts stand in general.jsonl beside this file: questions of many kinds, some under a system text, with answers. They
were written for NeSyLoRA and are free for every use (CC0). None of them is in a shipped task, or in the probe that
measures drift (tools/diagnosis/general.jsonl).
"""

import json
import random
from collections.abc import Iterator, Sequence
from copy import copy
from importlib.resources import files
from math import ceil
from typing import TYPE_CHECKING, NamedTuple

import torch

from agent.errors import StepFailed
from agent.records.examples import Example, Prompt
from agent.records.rounds import Spend
from tools.memory_budget import is_out_of_memory
from tools.model.backbone import Backbone
from tools.model.chat_template import TokenRow
from tools.packed.base_predictions import PredictedRow, divergence, likeliest, predictions

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOGETHER = 8  # rows of one pass of the base; half as many where memory runs out


class GeneralBatch(NamedTuple):
    """The general rows of one optimizer step, and the weight of their mean KL(base || adapted) beside the loss."""

    rows: Sequence[PredictedRow]
    weight: float


NO_GENERAL_ROWS = GeneralBatch((), 0.0)


def general_divergence(backbone: Backbone, rows: Sequence[PredictedRow]) -> torch.Tensor:
    """KL(base || adapted) at every completion token, row after row: [N] in nats. Differentiable."""
    likeliest, chances = predictions(rows)
    return divergence(backbone.logits(backbone.model, rows), likeliest, chances)


def general_texts() -> list[Example]:
    """The texts, in the file's order."""
    lines = files("tools.training").joinpath("general.jsonl").read_text(encoding="utf-8").splitlines()
    return [Example(name=f"general:{number}", **json.loads(line)) for number, line in enumerate(lines, 1)]


class GeneralRows:
    """The general rows of a training, in an order fixed by the seed. A row comes again only after all others.

    Args:
        backbone: its bare base predicts them, before the first step; what that reads is charged.
        share: general rows that go with each training row.
        weight: see `GeneralBatch`.
        rows: training rows of all steps together.
        most: tokens of the longest row; longer ones are left out.

    Attributes:
        read_tokens: what the base has read.
    """

    def __init__(self, backbone: Backbone, share: float, weight: float, *, rows: int, most: int, seed: int) -> None:
        self._share, self._weight = share, weight
        shuffle = random.Random(seed)
        rendered = [backbone.render.row(Prompt(), text) for text in general_texts()]
        fitting = [row for row in rendered if len(row) <= most]
        wanted = min(ceil(self._share * rows), len(fitting)) if self._weight else 0
        self._rows, self.read_tokens = _predicted(backbone, shuffle.sample(fitting, wanted))
        self._shuffle = shuffle
        self.begin()

    def begin(self) -> None:
        """Draw from the first one on: what a training that begins again, or goes on after a kill, drew before."""
        self._due, self._order = 0.0, _endless(self._rows, copy(self._shuffle))

    def rows_an_epoch(self, training_rows: int) -> int:
        """General rows that go with so many training rows."""
        return round(self._share * training_rows) if self._rows else 0

    def draw(self, training_rows: int) -> GeneralBatch:
        """Those of a step over so many training rows; parts of a row are left for later steps."""
        self._due += self._share * training_rows
        count = int(self._due + 1e-9) if self._rows else 0
        self._due -= count
        return GeneralBatch([next(self._order) for _ in range(count)], self._weight)


def _predicted(backbone: Backbone, rows: Sequence[TokenRow]) -> tuple[list[PredictedRow], int]:
    """The rows with the bare base's predictions, and the tokens that it read."""
    found, read, together = list[PredictedRow](), 0, TOGETHER
    with backbone.using(None) as base, torch.no_grad():
        backbone.base.eval()
        while len(found) < len(rows):
            batch = rows[len(found) : len(found) + together]
            try:
                found += _predictions(backbone, base, batch)
            except RuntimeError as error:
                if backbone.sharded or not is_out_of_memory(error):
                    raise
                if len(batch) == 1:
                    raise StepFailed(
                        f"memory does not hold one general row of {len(batch[0])} tokens; set lora.replay to 0, or "
                        "take a smaller model"
                    ) from None
                together = len(batch) // 2
                continue
            read += backbone.cost(batch)
            backbone.charge(Spend(read_tokens=backbone.cost(batch)))
    return found, read


def _predictions(backbone: Backbone, base: "PreTrainedModel", rows: Sequence[TokenRow]) -> list[PredictedRow]:
    sizes = [len(row.completion) for row in rows]
    tokens, chances = (part.split(sizes) for part in likeliest(backbone.logits(base, rows)))
    return [
        PredictedRow(row.prompt, row.completion, *predictions)
        for row, *predictions in zip(rows, tokens, chances, strict=True)
    ]


def _endless(rows: Sequence[PredictedRow], shuffle: random.Random) -> Iterator[PredictedRow]:
    while rows:
        yield from rows
        rows = shuffle.sample(rows, len(rows))

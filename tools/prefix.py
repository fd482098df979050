"""Rows that begin alike: run the common prefix once and let every row continue from its KV cache.

The rows of one prompt share its system text and demonstrations, often ten times as long as a question.
The results are those of the plain forward pass (to rounding); without gradient and with it.
"""

import copy
import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from tools.rendering import TokenRow


@dataclass(frozen=True)
class Batch:
    """Rows as tensors. B rows; P prefix tokens; T own tokens, questions padded left, completions right.

    own: [B, T] ids; mask: [B, P + T], 1 where a token stands; targets: [B, C] completion ids, -100 where padded.
    """

    prefix: list[int]
    own: torch.Tensor
    mask: torch.Tensor
    targets: torch.Tensor

    @property
    def tokens(self) -> int:
        """Tokens that are run: the prefix once, and each row's own."""
        return len(self.prefix) + int(self.mask[:, len(self.prefix) :].sum())


def common_prefix(rows: Sequence[TokenRow]) -> list[int]:
    """The ids with which all prompts begin, leaving each at least one token of its own."""
    first, last = min(row.prompt for row in rows), max(row.prompt for row in rows)
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[: min(length, min(len(row.prompt) for row in rows) - 1)]


def collate(rows: Sequence[TokenRow], prefix: list[int], pad: int, device: torch.device) -> Batch:
    """Rows that all begin with `prefix` as one batch, every completion starting in the same column."""
    skip = len(prefix)
    left = max(len(row.prompt) for row in rows) - skip
    right = max(len(row.completion) for row in rows)
    own, mask, targets = [], [], []
    for row in rows:
        question = row.prompt[skip:]
        before, after = left - len(question), right - len(row.completion)
        own.append([pad] * before + question + row.completion + [pad] * after)
        mask.append([1] * skip + [0] * before + [1] * (len(own[-1]) - before - after) + [0] * after)
        targets.append(row.completion + [-100] * after)
    as_tensor = lambda values: torch.tensor(values, dtype=torch.long, device=device)  # noqa: E731
    return Batch(prefix, as_tensor(own), as_tensor(mask), as_tensor(targets))


def reach(model: PreTrainedModel) -> float:
    """Slots within which rows of this model can share a prefix.

    Any number under full attention; the window where attention slides; 0 where a cache cannot be handed on, because
    it holds more than keys and values or the model does not let us give positions.
    """
    accepted = inspect.signature(model.forward).parameters
    if model._is_stateful or not {"position_ids", "past_key_values"} <= accepted.keys():
        return 0
    layers = DynamicCache(config=model.config).layers
    if any(type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers):
        return 0
    windows = [layer.sliding_window for layer in layers if isinstance(layer, DynamicSlidingWindowLayer)]
    return min(windows, default=math.inf)


def shared_prefix(rows: Sequence[TokenRow], slots: float, room: int = 0) -> list[int]:
    """The common prefix of rows that fit into so many slots (see `reach`), `room` of them for new tokens; else nothing.

    A sliding window counts slots: beyond it, the padding between the prefix and a short question would push the
    prefix out of sight.
    """
    longest = max(len(row.prompt) for row in rows) + max(len(row.completion) for row in rows)
    return common_prefix(rows) if longest + room <= slots else []


def prefix_cache(model: Any, config: Any, prefix: list[int], device: torch.device) -> DynamicCache:
    """The KV cache after running `prefix` alone: one row. `model` may be a peft wrapper; `config` is the base's."""
    cache = DynamicCache(config=config)
    if prefix:
        ids = torch.tensor([prefix], device=device)
        model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return cache


def widen(cache: DynamicCache, rows: int) -> DynamicCache:
    """A copy of a one-row cache for `rows` rows; the original stays usable."""
    wide = copy.copy(cache)
    wide.layers = [copy.copy(layer) for layer in cache.layers]
    if cache.get_seq_length():
        wide.batch_repeat_interleave(rows)
    return wide


def completion_nll(model: Any, config: Any, batch: Batch, share: bool) -> torch.Tensor:
    """NLL of every completion token, [B, C] in nats; 0 where padded. Differentiable."""
    rows, columns = batch.targets.shape
    skip = len(batch.prefix)
    given: dict[str, Any] = {"attention_mask": batch.mask}
    if share:
        cache = prefix_cache(model, config, batch.prefix, batch.own.device)
        given |= {
            "input_ids": batch.own,
            "past_key_values": widen(cache, rows),
            "position_ids": positions(batch.mask)[:, skip:],
            "use_cache": True,
            "logits_to_keep": columns + 1,
        }
    else:
        prefix = torch.tensor([batch.prefix], device=batch.own.device, dtype=torch.long).expand(rows, -1)
        given["input_ids"] = torch.cat([prefix, batch.own], dim=1)
    logits = model(**given).logits[:, -columns - 1 : -1].float()
    flat = torch.nn.functional.cross_entropy(
        logits.reshape(rows * columns, -1), batch.targets.flatten(), ignore_index=-100, reduction="none"
    )
    return flat.view(rows, columns)


def positions(mask: torch.Tensor) -> torch.Tensor:
    """Position of each token in its row, padding not counted: [B, L] from a mask [B, L]."""
    return (mask.cumsum(dim=-1) - 1).clamp(min=0)

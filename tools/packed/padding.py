"""The plain way, for models that cannot take packed rows: every row whole, padded to the longest."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteria,
    StoppingCriteriaList,
)

from tools.model.chat_template import TokenRow
from tools.model.composite import rope_switch_length
from tools.model.generation_config import Constraints
from tools.packed.early_stopping import Completions


def rows_together(model: PreTrainedModel, lengths: Sequence[int]) -> int:
    """How many rows of these lengths, shortest first, one pass may hold with each getting what it gets alone.

    One at least. Fewer than all only where a long row changes the rotary positions of the rows beside it.
    """
    beyond = rope_switch_length(model.config)
    return len(lengths) if beyond is None else max(1, sum(length <= beyond for length in lengths))


def padded_logits(model: PreTrainedModel, rows: Sequence[TokenRow], pad: int, device: torch.device) -> torch.Tensor:
    """Logits for every completion token, row after row: [N, V]."""
    if rows_together(model, sorted(map(len, rows))) < len(rows):
        return torch.cat([padded_logits(model, [row], pad, device) for row in rows])
    ids, mask = _padded([row.prompt + row.completion for row in rows], pad, device, left=False)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits  # [B, T, V]
    spans = [(len(row.prompt) - 1, len(row) - 1) for row in rows]
    return torch.cat([row_logits[start:end] for row_logits, (start, end) in zip(logits, spans, strict=True)])


def generate_padded(
    model: Any,
    rows: Sequence[TokenRow],
    completions: Completions,
    constraints: Constraints,
    pad: int,
    max_new_tokens: int,
    device: torch.device,
) -> None:
    """Append the greedy continuation of every row to `completions`, by `model.generate`, until no row is active.

    Constraints see each row without its padding, which would otherwise count towards lengths and repetitions.
    """
    ids, mask = _padded([row.prompt for row in rows], pad, device, left=True)
    model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        pad_token_id=pad,
        logits_processor=LogitsProcessorList([_Constrained(completions, constraints)]),
        stopping_criteria=StoppingCriteriaList([_Finished(completions)]),
    )


class _Constrained(LogitsProcessor):
    """Applies the constraints of the active rows to their next token."""

    def __init__(self, completions: Completions, constraints: Constraints) -> None:
        self._completions = completions
        self._constraints = constraints

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Logits [B, V], from those of the model; ids [B, T]."""
        active = self._completions.active
        changed = scores.clone()
        changed[active] = self._constraints(active, self._completions.ids, scores[active])
        return changed


class _Finished(StoppingCriteria):
    """Appends the newest tokens to the completions, and tells which rows are finished."""

    def __init__(self, completions: Completions) -> None:
        self._completions = completions

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        """[B], true for finished rows; ids [B, T]."""
        self._completions.append(input_ids[self._completions.active, -1].tolist())
        finished = torch.ones(len(input_ids), dtype=torch.bool, device=input_ids.device)
        finished[self._completions.active] = False
        return finished


def _padded(
    lines: Sequence[list[int]], pad: int, device: torch.device, *, left: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask, each [B, T] with T the longest line."""
    T = max(map(len, lines))
    gaps = [T - len(line) for line in lines]
    ids = [[pad] * gap + line if left else line + [pad] * gap for line, gap in zip(lines, gaps, strict=True)]
    mask = [
        [0] * gap + [1] * len(line) if left else [1] * len(line) + [0] * gap
        for line, gap in zip(lines, gaps, strict=True)
    ]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)

"""The plain way, for models that cannot take packed rows: every row whole, padded to the longest."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from tools.model.chat_template import TokenRow
from tools.model.composite import turned_beyond
from tools.model.generation_config import Constraints
from tools.packed.early_stopping import Answers


def in_company(model: Any, lengths: Sequence[int]) -> int:
    """How many rows of these lengths, shortest first, are run in one pass as each alone: one at least."""
    beyond = turned_beyond(model.config)
    return len(lengths) if beyond is None else max(1, sum(length <= beyond for length in lengths))


def padded_nll(model: Any, rows: Sequence[TokenRow], pad: int, device: torch.device) -> torch.Tensor:
    """NLL of every completion token, row after row: [S] in nats. Differentiable."""
    if in_company(model, sorted(map(len, rows))) < len(rows):
        return torch.cat([padded_nll(model, [row], pad, device) for row in rows])
    ids, mask = _padded([row.prompt + row.completion for row in rows], pad, device, left=False)
    said = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    spans = [(len(row.prompt) - 1, len(row) - 1) for row in rows]
    scored = torch.cat([line[start:end] for line, (start, end) in zip(said, spans, strict=True)])
    wanted = torch.tensor([token for row in rows for token in row.completion], device=device)
    return torch.nn.functional.cross_entropy(scored.float(), wanted, reduction="none")


def generate_padded(
    model: Any,
    rows: Sequence[TokenRow],
    answers: Answers,
    constraints: Constraints,
    pad: int,
    max_new_tokens: int,
    device: torch.device,
) -> None:
    """The greedy continuation of every row, told to `answers` until none is alive, by `model.generate`.

    Constraints see each row without its padding, which by itself would count towards lengths and repetitions.
    """
    ids, mask = _padded([row.prompt for row in rows], pad, device, left=True)
    model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        pad_token_id=pad,
        logits_processor=LogitsProcessorList([_Constrained(answers, constraints)]),
        stopping_criteria=StoppingCriteriaList([_Finished(answers)]),
    )


class _Constrained(LogitsProcessor):
    """Lets the constraints of the rows that are alive change what they say next."""

    def __init__(self, answers: Answers, constraints: Constraints) -> None:
        self._answers = answers
        self._constraints = constraints

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        alive = self._answers.alive
        changed = scores.clone()
        changed[alive] = self._constraints(alive, self._answers.ids, scores[alive])
        return changed


class _Finished(StoppingCriteria):
    """Hands the newest tokens to the answers, and says which rows are through."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        self._answers.hear(input_ids[self._answers.alive, -1].tolist())
        finished = torch.ones(len(input_ids), dtype=torch.bool, device=input_ids.device)
        finished[self._answers.alive] = False
        return finished


def _padded(
    lines: Sequence[list[int]], pad: int, device: torch.device, *, left: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask, each [B, longest]."""
    longest = max(map(len, lines))
    gaps = [longest - len(line) for line in lines]
    ids = [[pad] * gap + line if left else line + [pad] * gap for line, gap in zip(lines, gaps, strict=True)]
    mask = [
        [0] * gap + [1] * len(line) if left else [1] * len(line) + [0] * gap
        for line, gap in zip(lines, gaps, strict=True)
    ]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)

"""The plain way, for models that cannot take packed rows: every row whole, padded to the longest."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from tools.rendering import TokenRow


def padded_nll(model: Any, rows: Sequence[TokenRow], pad: int, device: torch.device) -> torch.Tensor:
    """NLL of every completion token, row after row: [S] in nats. Differentiable."""
    ids, mask = _padded([row.prompt + row.completion for row in rows], pad, device, left=False)
    said = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    spans = [(len(row.prompt) - 1, len(row) - 1) for row in rows]
    scored = torch.cat([line[start:end] for line, (start, end) in zip(said, spans, strict=True)])
    wanted = torch.tensor([token for row in rows for token in row.completion], device=device)
    return torch.nn.functional.cross_entropy(scored.float(), wanted, reduction="none")


def generate_padded(
    model: Any, rows: Sequence[TokenRow], ends: Sequence[int], pad: int, max_new_tokens: int, device: torch.device
) -> list[list[int]]:
    """The greedy continuation of every row, without its end token, by `model.generate`."""
    ids, mask = _padded([row.prompt for row in rows], pad, device, left=True)
    said = model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=list(ends),
        pad_token_id=pad,
    )[:, ids.shape[1] :]
    return [list(_until(line, ends)) for line in said.tolist()]


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


def _until(ids: Sequence[int], ends: Sequence[int]) -> Iterator[int]:
    for value in ids:
        if value in ends:
            return
        yield value

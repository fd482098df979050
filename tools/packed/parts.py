"""One forward pass over parts that have nothing to do with each other, such as rows of different prefixes.

Everything but attention runs over all tokens at once, so that a part more costs no pass of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from tools.packed.attention import AttentionOptions, KeysValues, PackedForward
from tools.packed.packing import forward_logits
from tools.packed.prefix_cache import slice_tokens


@dataclass(frozen=True)
class Part:
    """A part of a pass.

    Attributes:
        ids, positions: [S].
        scored: [N] the tokens, counted from the part's first, whose logits are wanted.
    """

    forward: PackedForward
    ids: torch.Tensor
    positions: torch.Tensor
    scored: torch.Tensor


class Joined:
    """Parts as one pass. Satisfies `tools.packed.attention.PackedForward`."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts

    def attend(
        self, layer: int, query: torch.Tensor, keys_values: KeysValues, options: AttentionOptions
    ) -> torch.Tensor:
        """Every part attends for itself: [1, H, S, D]."""
        outputs, start = [], 0
        for part in self._parts:
            end = start + len(part.ids)
            outputs.append(
                part.forward.attend(layer, query[:, :, start:end], slice_tokens(keys_values, start, end), options)
            )
            start = end
        return torch.cat(outputs, dim=2)


def run_parts(model: PreTrainedModel, parts: Sequence[Part]) -> list[torch.Tensor]:
    """The logits that each part wants: each [N, V]."""
    return list(run_joined(model, parts).split([len(part.scored) for part in parts]))


def run_joined(model: PreTrainedModel, parts: Sequence[Part]) -> torch.Tensor:
    """The logits that all parts want, one part after another: [N, V]."""
    if len(parts) == 1:
        [part] = parts
        return forward_logits(model, part.forward, part.ids[None], part.positions[None], part.scored)
    ids, positions = (torch.cat([getattr(part, name) for part in parts])[None] for name in ("ids", "positions"))
    starts = [0]
    for part in parts[:-1]:
        starts.append(starts[-1] + len(part.ids))
    scored = torch.cat([part.scored + start for part, start in zip(parts, starts, strict=True)])
    return forward_logits(model, Joined(parts), ids, positions, scored)

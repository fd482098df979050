"""One forward pass over parts that have nothing to do with each other: newest tokens of rows, and prompts that begin.

Everything but attention runs over all tokens at once, so that a row that comes costs the others no pass of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from tools.continuous.row import Row
from tools.model.chat_template import TokenRow
from tools.packed.attention import AttentionOptions, KeysValues, PackedForward
from tools.packed.packing import PackedBatch, forward_logits, pack
from tools.packed.prefix_cache import PrefixCache, slice_tokens


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
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)


def run_parts(model: PreTrainedModel, parts: Sequence[Part]) -> list[torch.Tensor]:
    """The logits that each part wants: each [N, V]."""
    ids, positions = (torch.cat([getattr(part, name) for part in parts])[None] for name in ("ids", "positions"))
    starts = [0]
    for part in parts[:-1]:
        starts.append(starts[-1] + len(part.ids))
    scored = torch.cat([part.scored + start for part, start in zip(parts, starts, strict=True)])
    logits = forward_logits(model, Joined(parts), ids, positions, scored)
    return list(logits.split([len(part.scored) for part in parts]))


class PromptPart:
    """The next tokens of some rows' prompts, which all continue one cache.

    Args:
        cache: what is run of them already.
        rows: each with how many of its tokens are run now.
    """

    def __init__(self, cache: PrefixCache, rows: Sequence[tuple[Row, int]], device: torch.device) -> None:
        self.rows = [row for row, _ in rows]
        self._cache, self._taken = cache, [taken for _, taken in rows]
        known = len(cache.ids)
        packed = [TokenRow(row.prompt[: known + taken], []) for row, taken in rows]
        self._batch: PackedBatch = pack(packed, device, cache)
        self._batch.kept = {}

    @property
    def part(self) -> Part:
        return Part(self._batch, self._batch.ids[0], self._batch.positions[0], self._batch.scored)

    def keep(self) -> list[tuple[Row, int]]:
        """After the pass: give each row what was run of it.

        Returns:
            The rows whose prompts are whole now, each with its place in this part.
        """
        assert self._batch.kept is not None, "a pass over prompts keeps its keys and values"
        whole, start = [], 0
        for place, (row, taken) in enumerate(zip(self.rows, self._taken, strict=True)):
            ran = {layer: slice_tokens(pair, start, start + taken) for layer, pair in self._batch.kept.items()}
            known = len(self._cache.ids)
            row.cache = self._cache.extended(row.prompt[known : known + taken], ran)
            start += taken
            if len(row.cache.ids) == len(row.prompt):
                whole.append((row, place))
        return whole

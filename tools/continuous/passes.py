"""Prompts that begin, as parts of a pass in which other rows get their newest tokens."""

from collections.abc import Sequence

import torch

from tools.continuous.row import Row
from tools.model.chat_template import TokenRow
from tools.packed.packing import PackedBatch, pack
from tools.packed.parts import Part
from tools.packed.prefix_cache import PrefixCache, slice_tokens


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

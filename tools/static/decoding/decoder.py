"""Greedy decoding on static batches: on CUDA, each shape of a batch is captured once as a graph and then replayed.

A step of eager decoding is some thousand small kernels, and launching them takes several times as long as running them.
The host reads the new tokens only every few steps, while the device goes on.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from tools.memory_budget import free_memory, is_out_of_memory
from tools.model.generation_config import Constraints
from tools.packed.attention import KeysValues
from tools.packed.decoding import PrefixedRows, run_prompts
from tools.packed.early_stopping import Completions
from tools.packed.packing import PackedBatch, common_length
from tools.packed.prefix_cache import PrefixCache
from tools.static.decoding.batch import Buffers, Capacity, StaticBatch, bytes_per_token
from tools.static.graphs import captured, without_synchronizing
from tools.static.kernels.cascade import LEAST_PREFIX, Cascade, longest_that_works

ROWS = (4, 16, 64, 128, 256)  # sizes of batches; each is captured for itself
LATENCY_BOUND = 64  # rows up to which fewer make no step quicker: 2.2 ms for 4, 2.3 for 64, 3.7 for 256 (docs/gpu.md)
BLOCK = 4  # steps whose tokens the host reads at once
SHARE = 0.3  # of the free memory that keys and values may take
STALE = 8  # batches, with their graphs, that are kept for weights other than those in use


@dataclass
class Fetched:
    """New tokens on their way to the host: [steps, B], and the row of the completions that each place stands for."""

    tokens: torch.Tensor
    rows: list[int]
    ready: "torch.cuda.Event | None"


class StaticDecoder:
    """Decodes batch after batch, and keeps buffers and graphs for the next one.

    Args:
        model: the base.
        careful: an error is raised where the host would wait for the device in the middle of a step.

    Attributes:
        weights: stands for the memory of the weights that the model runs with. Steps are captured anew for others.
    """

    def __init__(self, model: Any, careful: bool = False) -> None:
        self.weights: object = None
        self._careful = careful
        self._model = model
        self._device: torch.device = model.device
        self._buffers: Buffers | None = None
        self._batches: dict[tuple[int, int, object], StaticBatch] = {}
        self._graphs: dict[StaticBatch, Any] = {}
        self._pool: Any = None
        self._longest: dict[tuple[int, int, int], int | None] = {}

    @property
    def bytes(self) -> int:
        """What its buffers hold."""
        return self._buffers.bytes if self._buffers else 0

    def release(self) -> None:
        """Give buffers and graphs back."""
        self._buffers, self._pool = None, None
        self._batches.clear()
        self._graphs.clear()

    def rows_that_fit(self, prefixes: Sequence[PrefixCache], own_tokens: int) -> int:
        """The largest of `ROWS` that the device's free memory has room for, with so many own tokens each; 0: none.

        Also 0 where it is not known what a token takes, because all prefixes are empty.
        """
        token = max((bytes_per_token(prefix.layers) for prefix in prefixes), default=0)
        if not token:
            return 0
        free = free_memory(self._device) + self.bytes
        return max((rows for rows in ROWS if rows * token * _rounded(own_tokens, 64) <= SHARE * free), default=0)

    def decode(
        self,
        groups: Sequence[PrefixedRows],
        completions: Completions,
        constraints: Constraints,
        max_new_tokens: int,
    ) -> None:
        """Append the greedy continuation of every row to `completions`, as `tools.packed.decoding.decode` does.

        Args:
            completions: of the rows of all groups, one group after another.
        """
        try:
            self._decode(groups, completions, constraints, max_new_tokens)
        except RuntimeError as error:
            if is_out_of_memory(error):  # fewer rows are tried next, and need the memory
                self.release()
            raise

    def _decode(
        self,
        groups: Sequence[PrefixedRows],
        completions: Completions,
        constraints: Constraints,
        max_new_tokens: int,
    ) -> None:
        prompts, logits = run_prompts(self._model, groups, self._device)
        tokens = constraints(completions.active, completions.ids, logits).argmax(dim=-1)
        staying = completions.append(tokens.tolist())
        if max_new_tokens == 1 or not staying:
            return
        batch = self.load(prompts, tokens[torch.tensor(staying, device=self._device)], staying, max_new_tokens)
        if constraints.active:
            self._constrained(batch, completions, constraints, max_new_tokens - 1)
        else:
            self._in_blocks(batch, completions, max_new_tokens - 1)

    def load(
        self, prompts: Sequence[PackedBatch], tokens: torch.Tensor, rows: Sequence[int], max_new_tokens: int
    ) -> StaticBatch:
        """A batch of the smallest size, in buffers that are large enough.

        Steps know one prefix, with which all rows begin: what groups share beyond it is copied for each of their rows.
        So a captured step serves any number of groups, and rows may leave it in any order.

        Args:
            prompts: a pass over prompts that kept its keys and values, in a part for each group of rows.
            tokens: [n] the first new tokens of the rows.
            rows: the places of these n rows in the pass.
        """
        prefix = _shared([part.prefix for part in prompts])
        P, like = len(prefix.ids), prompts[0].kept
        assert like is not None, "the pass over the prompts keeps its keys and values"
        longest = max(int(part.positions.max()) for part in prompts) + 1 - P
        self._make_room(
            Capacity(
                _bucket(len(rows)), _rounded(longest + max_new_tokens, 64), _rounded(P, 256),
                _rounded(max_new_tokens, 64),
            ),
            like,
        )  # fmt: skip
        batch = self._batch(_bucket(len(rows)), min(P, LEAST_PREFIX))
        batch.load(prompts, prefix, tokens, rows)
        return batch

    def _in_blocks(self, batch: StaticBatch, completions: Completions, steps: int) -> None:
        """The host reads the tokens of a block of steps while the next one runs."""
        rows, done, waiting = list(completions.active), 0, None
        while done < steps or waiting:
            launched = None
            if done < steps:
                block = min(BLOCK, steps - done)
                for _ in range(block):
                    self.advance(batch)
                launched = self._fetch(batch, rows, done, block)
                done += block
            if waiting:
                _append_block(waiting, completions)
                if not completions.active:
                    return
                batch, rows = self._compacted(batch, rows, completions.active)
            waiting = launched

    def _constrained(self, batch: StaticBatch, completions: Completions, constraints: Constraints, steps: int) -> None:
        """Step by step, because constraints look at the text so far."""
        rows = list(completions.active)
        for _ in range(steps):
            self.advance(batch)
            places = [rows.index(row) for row in completions.active]
            logits = batch.logits[torch.tensor(places, device=self._device)]
            tokens = constraints(completions.active, completions.ids, logits).argmax(dim=-1)
            batch.set_tokens(places, tokens)
            if not completions.append(tokens.tolist()):
                return
            batch, rows = self._compacted(batch, rows, completions.active)

    def _compacted(self, batch: StaticBatch, rows: list[int], active: Sequence[int]) -> tuple[StaticBatch, list[int]]:
        """The active rows alone, where a smaller batch holds them and is quicker."""
        B = _bucket(len(active))
        if B >= batch.B or batch.B <= LATENCY_BOUND:
            return batch, rows
        smaller = self._batch(B, batch.shared)
        smaller.take([rows.index(row) for row in active], batch)
        return smaller, list(active)

    def _fetch(self, batch: StaticBatch, rows: list[int], done: int, steps: int) -> Fetched:
        lines = batch.buffers.history[done : done + steps, : batch.B]
        if self._device.type != "cuda":
            return Fetched(lines.clone(), rows, None)
        tokens = torch.empty(lines.shape, dtype=lines.dtype, pin_memory=True)
        tokens.copy_(lines, non_blocking=True)
        ready = torch.cuda.Event()
        ready.record()
        return Fetched(tokens, rows, ready)

    # --- memory ---

    def _make_room(self, needed: Capacity, like: dict[int, KeysValues]) -> None:
        """Buffers for a batch of this size. Those that are too small go, with all graphs that write into them.

        The new ones hold what the old ones did, too, unless memory has no room for both: few long rows after many
        short ones.
        """
        if self._buffers is not None and self._buffers.capacity.holds(needed):
            return
        free = free_memory(self._device) + self.bytes
        capacity = needed if self._buffers is None else needed.united(self._buffers.capacity)
        if capacity.slots * bytes_per_token(like) > SHARE * free:
            capacity = needed
        self.release()
        self._buffers = Buffers(capacity, like, self._device)

    def _batch(self, B: int, shared: int) -> StaticBatch:
        """The batch of this size, for prefixes of so many tokens, at most LEAST_PREFIX: it serves longer ones, too."""
        assert self._buffers is not None, "room is made before a batch"
        key = B, shared, self.weights
        if key not in self._batches:
            stale = [known for known in self._batches if known[2] != self.weights]
            for known in stale[:-STALE]:
                self._graphs.pop(self._batches.pop(known), None)
            cascade = None if 0 < shared < LEAST_PREFIX else self._cascade(B)
            self._batches[key] = StaticBatch(self._buffers, B, shared, cascade)
        return self._batches[key]

    def _cascade(self, B: int) -> Cascade | None:
        """Attention by flash attention's kernels, where they can do it for the heads of every layer."""
        assert self._buffers is not None, "room is made before a batch"
        H = self._model.config.get_text_config(decoder=True).num_attention_heads
        shapes = {(key.shape[2:], value.shape[2:], key.dtype) for key, value in self._buffers.own.values()}
        (K, D), values, dtype = next(iter(shapes))
        if len(shapes) > 1 or values != (K, D) or H % K:
            return None
        if (H, K, D) not in self._longest:
            self._longest[H, K, D] = longest_that_works(H, K, D, dtype, self._device)
        longest = self._longest[H, K, D]
        capacity = self._buffers.capacity
        return None if longest is None else Cascade(B, capacity.T, capacity.P, H, self._device, longest)

    # --- steps ---

    def advance(self, batch: StaticBatch) -> None:
        """One step. On CUDA, the first of a batch runs as it is, the second is captured, all others replay it."""
        if self._device.type != "cuda":
            batch.step(self._model)
        elif batch not in self._graphs:
            self._graphs[batch] = None
            with without_synchronizing() if self._careful else nullcontext():
                batch.step(self._model)
        else:
            if self._graphs[batch] is None:
                self._pool = self._pool or torch.cuda.graph_pool_handle()
                self._graphs[batch] = captured(lambda: batch.step(self._model), self._pool)
            self._graphs[batch].replay()


def _shared(prefixes: Sequence[PrefixCache]) -> PrefixCache:
    """What rows of all these prefixes begin with; nothing where it would be too short for the kernels."""
    if len(prefixes) == 1:
        return prefixes[0]
    first, last = (pick(prefixes, key=lambda prefix: prefix.ids) for pick in (min, max))
    shared = common_length(first.ids, last.ids)
    return first.first(shared) if shared >= LEAST_PREFIX else PrefixCache()


def _append_block(fetched: Fetched, completions: Completions) -> None:
    """Append the tokens of a block, step after step, of the rows that are still active."""
    if fetched.ready is not None:
        fetched.ready.synchronize()
    place = {row: place for place, row in enumerate(fetched.rows)}
    for line in fetched.tokens.tolist():
        if not completions.active:
            return
        completions.append([line[place[row]] for row in completions.active])


def _bucket(rows: int) -> int:
    """The smallest size of a batch that holds so many rows."""
    return next((size for size in ROWS if size >= rows), rows)


def _rounded(size: int, step: int) -> int:
    """Up to the next multiple."""
    return -(-size // step) * step

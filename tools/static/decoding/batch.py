"""A decoding batch whose tensors stay where they are, so that a step can be captured once and replayed.

Same arithmetic as `tools.packed.decoding.DecodeBatch`. There every step makes new, longer tensors; here keys, values,
tokens and lengths are written into buffers of a fixed size, and masks hide what is not filled yet. A step is plain
torch without a value that the host must know.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tools.packed.attention import NO_MASK, AttentionOptions, KeysValues, apply_softcap, masked_softmax
from tools.packed.packing import PackedBatch
from tools.packed.prefix_cache import PrefixCache
from tools.static.kernels.cascade import Cascade


@dataclass(frozen=True)
class Capacity:
    """Sizes of the buffers: B rows, T own tokens of each, P prefix tokens, and new tokens that are recorded."""

    B: int
    T: int
    P: int
    steps: int

    def holds(self, needed: "Capacity") -> bool:
        """Whether a batch of this size fits."""
        return all(getattr(self, name) >= getattr(needed, name) for name in ("B", "T", "P", "steps"))

    @property
    def slots(self) -> int:
        """Tokens whose keys and values are kept."""
        return self.B * self.T + self.P

    def united(self, other: "Capacity") -> "Capacity":
        """What holds both."""
        sizes = {name: max(getattr(self, name), getattr(other, name)) for name in ("B", "T", "P", "steps")}
        return Capacity(**sizes)


def bytes_per_token(layers: Mapping[int, KeysValues]) -> int:
    """What the keys and values of one token take in all layers, each [1, K, S, D]."""
    return sum(tensor[:, :, :1].numel() * tensor.itemsize for pair in layers.values() for tensor in pair)


class Buffers:
    """The memory of static batches: batches of fewer rows use the first rows of it.

    Args:
        like: by layer, keys and values [1, K, S, D] of any pass; they give heads, widths and types.
    """

    def __init__(self, capacity: Capacity, like: Mapping[int, KeysValues], device: torch.device) -> None:
        self.capacity = capacity
        B, T, P = capacity.B, capacity.T, capacity.P

        def empty(tensor: torch.Tensor, *sizes: int) -> torch.Tensor:
            # Zeros here and wherever something is loaded: zero times what is not a number is not a number.
            return torch.zeros(*sizes, tensor.shape[1], tensor.shape[3], dtype=tensor.dtype, device=device)

        self.prefix = {layer: (empty(k, P), empty(v, P)) for layer, (k, v) in like.items()}  # each [P, K, D]
        self.own = {layer: (empty(k, B, T), empty(v, B, T)) for layer, (k, v) in like.items()}  # each [B, T, K, D]
        self.prefix_length = torch.zeros(1, dtype=torch.long, device=device)
        self.tokens = torch.zeros(B, dtype=torch.long, device=device)
        self.cursor = torch.zeros(2, B, dtype=torch.long, device=device)  # position and own slot of the newest token
        self.history = torch.zeros(capacity.steps, B, dtype=torch.long, device=device)
        self.count = torch.zeros(1, dtype=torch.long, device=device)  # lines of the history that are written
        self._loaded: PrefixCache | None = None

    @property
    def bytes(self) -> int:
        """What they hold, without the small ones."""
        layers = [*self.prefix.values(), *self.own.values()]
        return sum(tensor.numel() * tensor.itemsize for pair in layers for tensor in pair)

    def load_prefix(self, cache: PrefixCache) -> None:
        """Copy the prefix's keys and values, unless they are there already."""
        if cache is self._loaded:
            return
        for layer, pair in cache.layers.items():
            for buffer, tensor in zip(self.prefix[layer], pair, strict=True):
                buffer[: len(cache.ids)] = tensor[0].transpose(0, 1)
                buffer[len(cache.ids) :].zero_()
        self.prefix_length.fill_(len(cache.ids))
        self._loaded = cache


class StaticBatch:
    """B rows that get one new token per step. Satisfies `tools.packed.attention.PackedForward`.

    Args:
        shared: tokens that rows share, at least; 0: none.
        cascade: attention by kernels that return their log-sum-exp; None: by plain matrix products.
    """

    def __init__(self, buffers: Buffers, B: int, shared: int, cascade: Cascade | None) -> None:
        capacity, device = buffers.capacity, buffers.tokens.device
        self.buffers, self.B, self.shared = buffers, B, shared
        self.T, self.P = capacity.T, capacity.P if shared else 0
        self.logits: torch.Tensor = torch.empty(0)  # [B, V] of the last step, always the same memory once captured
        self._own = {layer: (key[:B], value[:B]) for layer, (key, value) in buffers.own.items()}
        self._tokens, self._cursor = buffers.tokens[:B], buffers.cursor[:, :B]
        self._starts = torch.arange(B, device=device) * self.T
        self._slots = torch.arange(self.P + self.T, device=device)
        self._places = self._starts
        self._cascade = cascade
        self._hidden: dict[int | None, torch.Tensor] = {}

    # --- what happens between steps ---

    def load(
        self, prompts: Sequence[PackedBatch], prefix: PrefixCache, tokens: torch.Tensor, rows: Sequence[int]
    ) -> None:
        """Take the rows of a pass over prompts, and the first new token of each.

        Args:
            prompts: the pass, in a part for each group of rows.
            prefix: with what all rows begin. What the rows of a part share beyond it becomes each row's own.
            tokens: [n] of these rows.
            rows: the places of the n ≤ B rows in the pass. The other places of the batch compute nothing of use.
        """
        device, P = tokens.device, len(prefix.ids)
        self.buffers.load_prefix(prefix)
        for pair in self._own.values():
            for buffer in pair:
                buffer.zero_()
        own = [torch.bincount(part.owner) for part in prompts]  # each [rows of the part]
        lengths = torch.cat([count + len(part.prefix.ids) - P for part, count in zip(prompts, own, strict=True)])
        taken = torch.tensor(rows, device=device)
        place = torch.full_like(lengths, self.B)
        place[taken] = torch.arange(len(rows), device=device)
        for part, places in zip(prompts, place.split([len(count) for count in own]), strict=True):
            self._load_part(part, places, P)
        self._tokens.fill_(0)
        self._tokens[: len(rows)] = tokens
        self._cursor[1].fill_(0)
        self._cursor[1, : len(rows)] = lengths[taken]
        self._cursor[0] = self._cursor[1] + P
        self.buffers.count.zero_()

    def _load_part(self, prompts: PackedBatch, place: torch.Tensor, P: int) -> None:
        """Take keys and values of rows that share P tokens with all others.

        Args:
            place: [rows of the part] of each in this batch; B: it has none.
        """
        assert prompts.kept is not None, "the pass over the prompts keeps its keys and values"
        places = place[prompts.owner]  # [S]
        wanted = (places < self.B).nonzero()[:, 0]
        targets = (places * self.T + prompts.positions[0] - P)[wanted]  # in the flattened [B * T]
        taken, more = place[place < self.B], len(prompts.prefix.ids) - P
        for layer, pair in prompts.kept.items():
            for number, (buffer, tensor) in enumerate(zip(self._own[layer], pair, strict=True)):
                if more:
                    buffer[taken, :more] = prompts.prefix.layers[layer][number][0, :, P:].transpose(0, 1)
                buffer.flatten(0, 1)[targets] = tensor[0].transpose(0, 1)[wanted]

    def take(self, places: Sequence[int], source: "StaticBatch") -> None:
        """Continue the rows at these n ≤ B places of another batch, which uses the same buffers."""
        index = torch.tensor([*places, *[places[0]] * (self.B - len(places))], device=self._tokens.device)
        for layer, pair in self._own.items():
            for buffer, tensor in zip(pair, source._own[layer], strict=True):
                buffer.copy_(tensor[index])
        self._tokens.copy_(source._tokens[index])
        self._cursor.copy_(source._cursor[:, index])

    def set_tokens(self, places: Sequence[int], tokens: torch.Tensor) -> None:
        """Replace the newest tokens at these places by `tokens` [n]."""
        self._tokens[torch.tensor(places, device=tokens.device)] = tokens

    # --- one step ---

    def step(self, model: Any) -> None:
        """Run the newest token of every row, and record the likeliest next one."""
        self._places = self._starts + self._cursor[1]
        self._hidden = {}
        if self._cascade is not None:
            self._cascade.begin(self.buffers.prefix_length, self._cursor[1])
        inputs = {"input_ids": self._tokens[None], "position_ids": self._cursor[0][None]}
        mask = self._tokens.new_empty(NO_MASK)
        self.logits = model(**inputs, attention_mask=mask, use_cache=False, packed=self).logits[0]
        tokens = self.logits.argmax(dim=-1)
        self._tokens.copy_(tokens)
        self.buffers.history[:, : self.B].index_copy_(0, self.buffers.count, tokens[None])
        self.buffers.count += 1
        self._cursor += 1

    def attend(
        self, layer: int, query: torch.Tensor, keys_values: KeysValues, options: AttentionOptions
    ) -> torch.Tensor:
        """The new token of every row attends to the prefix and to its own row: [1, H, B, D]."""
        for buffer, new in zip(self._own[layer], keys_values, strict=True):
            buffer.flatten(0, 1).index_copy_(0, self._places, new[0].transpose(0, 1))
        prefix = self.buffers.prefix[layer] if self.P else None
        queries = query[0].transpose(0, 1)  # [B, H, D]
        if self._cascade is not None and self._cascade.takes(options):
            output: torch.Tensor = self._cascade(queries, prefix, self._own[layer], options.scaling)
        else:
            output = self._by_products(queries, prefix, self._own[layer], options)
        return output.transpose(0, 1)[None]

    def _by_products(
        self, query: torch.Tensor, prefix: KeysValues | None, own: KeysValues, options: AttentionOptions
    ) -> torch.Tensor:
        """[B, H, D] from queries of this shape, prefix keys and values [P, K, D] and own ones [B, T, K, D]."""
        B, _, D = query.shape
        key, value = (tensor.transpose(1, 2) for tensor in own)  # [B, K, T, D]
        K, P = key.shape[1], self.P
        query = query.view(B, K, -1, D) * options.scaling  # [B, K, G, D]
        scores: torch.Tensor = query @ key.transpose(2, 3)  # [B, K, G, T]
        if prefix is not None:
            # To the prefix, all rows are one matrix of queries, so that its keys are read once.
            prefix_key, prefix_value = (tensor.transpose(0, 1) for tensor in prefix)  # [K, P, D]
            prefix_scores = _by_head(query) @ prefix_key.transpose(1, 2)  # [K, B * G, P]
            scores = torch.cat([_by_row(prefix_scores, B), scores], dim=-1)
        scores = apply_softcap(scores, options.softcap)
        weights = masked_softmax(scores, self._hidden_slots(options.window), value.dtype)
        output: torch.Tensor = weights[..., P:] @ value  # [B, K, G, D]
        if prefix is not None:
            output = output + _by_row(_by_head(weights[..., :P]) @ prefix_value, B)
        return output.reshape(B, -1, output.shape[-1])

    def _hidden_slots(self, window: int | None) -> torch.Tensor:
        """[B, 1, 1, P + T]: true for empty slots, and for tokens outside the window."""
        if window not in self._hidden:
            length, slots = self.buffers.prefix_length, self._slots
            in_prefix = slots < self.P
            positions = torch.where(in_prefix, slots, slots - self.P + length)
            distance = self._cursor[0][:, None] - positions
            hidden = (distance < 0) | (in_prefix & (slots >= length))
            if window is not None:
                hidden |= distance >= window
            self._hidden[window] = hidden[:, None, None]
        return self._hidden[window]


def _by_head(rows: torch.Tensor) -> torch.Tensor:
    """[B, K, G, n] as [K, B * G, n]."""
    return rows.transpose(0, 1).flatten(1, 2)


def _by_row(heads: torch.Tensor, B: int) -> torch.Tensor:
    """[K, B * G, n] as [B, K, G, n]."""
    return heads.view(len(heads), B, -1, heads.shape[-1]).transpose(0, 1)

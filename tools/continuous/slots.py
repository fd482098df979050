"""Keys and values of rows that come and go: each in a slot of its own, behind a prefix that all of them share."""

import torch

from tools.continuous.row import Row
from tools.memory_budget import is_out_of_memory
from tools.packed.attention import AttentionOptions, KeysValues, apply_softcap, masked_softmax
from tools.packed.prefix_cache import PrefixCache


class Slots:
    """Rows of one prefix and of like length, that get one new token per pass.

    The arithmetic is that of `tools.packed.decoding.DecodeBatch`. There rows only leave; here one that leaves gives its
    slot to the last one, and one that comes takes the next.
    Satisfies `tools.packed.attention.PackedForward`.

    Args:
        prefix: what all rows begin with, already run.
        T: own tokens of a row that a slot holds.
    """

    def __init__(self, prefix: PrefixCache, T: int, device: torch.device) -> None:
        self.prefix, self.T = prefix, T
        self.rows: list[Row] = []
        self._device = device
        self._own: dict[int, KeysValues] = {}  # by layer, each [slots, K, T, D]
        self._last = self._places = torch.empty(0, dtype=torch.long)
        self._longest = 0
        self._hidden: dict[int | None, torch.Tensor] = {}

    # --- rows come and go ---

    def add(self, row: Row, layers: dict[int, KeysValues]) -> None:
        """Take a row whose whole prompt was run.

        Args:
            layers: keys and values of its own tokens, each [1, K, own tokens, D].
        """
        place = len(self.rows)
        self._make_room(place + 1, layers)
        for layer, pair in layers.items():
            for own, tensor in zip(self._own[layer], pair, strict=True):
                own[place, :, : tensor.shape[2]] = tensor[0]
                own[place, :, tensor.shape[2] :] = 0  # zero times what is not a number is not a number
        self.rows.append(row)

    def remove(self, row: Row) -> None:
        """Let a row go; the last one takes its slot."""
        place, last = self.rows.index(row), len(self.rows) - 1
        if place < last:
            for pair in self._own.values():
                for own in pair:
                    own[place] = own[last]
            self.rows[place] = self.rows[last]
        self.rows.pop()
        if not self.rows:
            self._own = {}
        elif len(self.rows) <= self.capacity // 4:
            try:
                self._resize(self.capacity // 2)
            except RuntimeError as error:  # a smaller copy does not fit beside the larger: that one stays
                if not is_out_of_memory(error):
                    raise

    @property
    def capacity(self) -> int:
        """Slots that every layer has: where memory ran out on the way, some layers have more."""
        return min((len(keys) for keys, _ in self._own.values()), default=0)

    def _make_room(self, rows: int, like: dict[int, KeysValues]) -> None:
        if not self._own:
            self._own = {layer: (self._empty(k, rows), self._empty(v, rows)) for layer, (k, v) in like.items()}
        if rows > self.capacity:
            self._resize(grown(self.capacity, rows))

    def _resize(self, slots: int) -> None:
        """Layer by layer, so that only one is there twice."""
        kept = len(self.rows)
        for layer, (keys, values) in self._own.items():
            pair = self._empty(keys, slots), self._empty(values, slots)
            for new, own in zip(pair, (keys, values), strict=True):
                new[:kept] = own[:kept]
            self._own[layer] = pair

    def _empty(self, like: torch.Tensor, slots: int) -> torch.Tensor:
        _, K, _, D = like.shape
        return torch.zeros(slots, K, self.T, D, dtype=like.dtype, device=like.device)

    # --- a pass ---

    def begin(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Prepare a pass over the newest token of every row: its tokens and their positions, each [B]."""
        positions = torch.tensor([len(row) - 1 for row in self.rows], device=self._device)
        self._last = positions - len(self.prefix.ids)
        self._longest = max(map(len, self.rows)) - len(self.prefix.ids)
        self._places = torch.arange(len(self.rows), device=self._device)
        self._hidden = {}
        return torch.tensor([row.tokens[-1] for row in self.rows], device=self._device), positions

    def attend(
        self, layer: int, query: torch.Tensor, keys_values: KeysValues, options: AttentionOptions
    ) -> torch.Tensor:
        """The new token of every row attends to the prefix and to its own row: [1, H, B, D]."""
        B = len(self.rows)
        for own, new in zip(self._own[layer], keys_values, strict=True):
            own[self._places, :, self._last] = new[0].transpose(0, 1)
        key, value = (own[:B, :, : self._longest] for own in self._own[layer])  # [B, K, T, D]
        K, D = key.shape[1], query.shape[-1]
        query = query[0].transpose(0, 1).reshape(B, K, -1, D) * options.scaling  # [B, K, G, D]
        scores = query @ key.transpose(2, 3)  # [B, K, G, T]
        P = len(self.prefix.ids)
        if P:
            # To the prefix, all rows are one matrix of queries, so that its keys are read once.
            prefix_key, prefix_value = (tensor[0] for tensor in self.prefix.layers[layer])  # [K, P, D]
            scores = torch.cat([_by_row(_by_head(query) @ prefix_key.transpose(1, 2), B), scores], dim=-1)
        weights = masked_softmax(
            apply_softcap(scores, options.softcap), self._hidden_slots(options.window), value.dtype
        )
        output: torch.Tensor = weights[..., P:] @ value  # [B, K, G, D]
        if P:
            output = output + _by_row(_by_head(weights[..., :P]) @ prefix_value, B)
        return output.reshape(B, -1, output.shape[-1]).transpose(0, 1)[None]

    def _hidden_slots(self, window: int | None) -> torch.Tensor:
        """[B, 1, 1, P + T]: true for what a row does not hold yet, and for tokens outside the window."""
        if window not in self._hidden:
            P = len(self.prefix.ids)
            distance = (self._last + P)[:, None] - torch.arange(P + self._longest, device=self._device)
            hidden = distance < 0 if window is None else (distance < 0) | (distance >= window)
            self._hidden[window] = hidden[:, None, None]
        return self._hidden[window]


def grown(capacity: int, rows: int) -> int:
    """Slots that there are once so many rows have come, one after another."""
    while capacity < rows:
        capacity = max(capacity + 1, capacity * 3 // 2)
    return capacity


def _by_head(rows: torch.Tensor) -> torch.Tensor:
    """[B, K, G, n] as [K, B * G, n]."""
    return rows.transpose(0, 1).flatten(1, 2)


def _by_row(heads: torch.Tensor, B: int) -> torch.Tensor:
    """[K, B * G, n] as [B, K, G, n]."""
    return heads.view(len(heads), B, -1, heads.shape[-1]).transpose(0, 1)

"""Keys and values of tokens that rows share, kept from one forward pass for the next."""

from dataclasses import dataclass, field

import torch

from tools.packed.attention import KeysValues


@dataclass
class PrefixCache:
    """What rows share, already run.

    Attributes:
        ids: the P shared tokens.
        layers: by layer, their keys and values, each [1, K, P, D]. Empty without tokens.
    """

    ids: list[int] = field(default_factory=list)
    layers: dict[int, KeysValues] = field(default_factory=dict)

    def first(self, length: int) -> "PrefixCache":
        """Its first `length` tokens."""
        layers = {layer: slice_tokens(keys_values, 0, length) for layer, keys_values in self.layers.items()}
        return PrefixCache(self.ids[:length], layers if length else {})

    def extended(self, ids: list[int], layers: dict[int, KeysValues]) -> "PrefixCache":
        """With these tokens at its end."""
        joined = {layer: concat_tokens(self.layers.get(layer), new) for layer, new in layers.items()}
        return PrefixCache([*self.ids, *ids], joined)


def slice_tokens(keys_values: KeysValues, start: int, end: int) -> KeysValues:
    """Keys and values [1, K, end - start, D] of a range of tokens."""
    key, value = keys_values
    return key[:, :, start:end], value[:, :, start:end]


def concat_tokens(before: KeysValues | None, after: KeysValues) -> KeysValues:
    """Keys and values of tokens that follow one another; None: there are none before."""
    if before is None:
        return after
    return torch.cat([before[0], after[0]], dim=2), torch.cat([before[1], after[1]], dim=2)

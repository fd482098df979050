"""Attention over packed rows, registered with transformers beside its own kinds.

Rows that begin alike stand in one sequence without padding: what they share once, then each row's own tokens. Every
matrix product of the model so runs over the tokens there are and no others; only attention has to know which token
belongs to which row, and that is what stands here.
"""

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "packed"
NO_MASK = (1, 1, 1, 1)  # four axes: transformers takes such a mask as made, and makes none
SHARED = -1  # the row number of tokens that belong to all rows

KeysValues = tuple[torch.Tensor, torch.Tensor]  # each [1, heads, tokens, width]


@dataclass(frozen=True)
class Rule:
    """How a layer attends: the factor on its scores, dropout of weights, its window in tokens, its soft cap."""

    scaling: float
    dropout: float = 0.0
    window: int | None = None
    softcap: float | None = None


class Packed(Protocol):
    """One forward pass, as every layer's attention sees it."""

    def attend(self, layer: int, query: torch.Tensor, keys_values: KeysValues, rule: Rule) -> torch.Tensor:
        """[1, query heads, N, width] from a query of this shape and the keys and values of the same N tokens."""
        ...


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    packed: Packed | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **given: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls in every layer. Without `packed`, its own scaled-dot-product attention.

    Raises:
        NotImplementedError: the layer attends in a way that packed rows do not know.
    """
    if packed is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, softcap=softcap, **given
        )
    if s_aux is not None or attention_mask is None or attention_mask.shape != NO_MASK:
        raise NotImplementedError("attention sinks, or a mask of the model's own")
    rule = Rule(scaling or query.shape[-1] ** -0.5, dropout, sliding_window, softcap)
    layer = module.layer_idx
    assert isinstance(layer, int), "transformers numbers the attention layers of its decoders"
    return packed.attend(layer, query, (key, value), rule).transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


def weighted(query: torch.Tensor, keys_values: KeysValues, mask: torch.Tensor | None, rule: Rule) -> torch.Tensor:
    """Softmax attention of [1, H, n, d] queries; `mask` [n, m] is true where a key is seen, None: causal."""
    groups = query.shape[1] // keys_values[0].shape[1]
    key, value = (repeat_kv(each, groups) for each in keys_values)
    if rule.softcap is None:
        return scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=rule.dropout, scale=rule.scaling, is_causal=mask is None
        )
    if mask is None:
        mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
    chances = softmax(capped(query @ key.transpose(2, 3) * rule.scaling, rule), ~mask, value.dtype)
    return torch.nn.functional.dropout(chances, rule.dropout) @ value


def capped(scores: torch.Tensor, rule: Rule) -> torch.Tensor:
    return scores if rule.softcap is None else torch.tanh(scores / rule.softcap) * rule.softcap


def softmax(scores: torch.Tensor, hidden: torch.Tensor, kind: torch.dtype) -> torch.Tensor:
    """Over the last axis, in fp32, with nothing where `hidden` is true."""
    return scores.masked_fill(hidden, -torch.inf).softmax(dim=-1, dtype=torch.float32).to(kind)


@dataclass
class Trunk:
    """What rows share, already run: its ids, and the keys and values of every layer."""

    ids: list[int] = field(default_factory=list)
    layers: dict[int, KeysValues] = field(default_factory=dict)

    def cut(self, length: int) -> "Trunk":
        """Its first `length` tokens."""
        layers = {layer: (key[:, :, :length], value[:, :, :length]) for layer, (key, value) in self.layers.items()}
        return Trunk(self.ids[:length], layers if length else {})

    def grown(self, ids: list[int], layers: dict[int, KeysValues]) -> "Trunk":
        """With more tokens at its end."""
        return Trunk([*self.ids, *ids], {layer: joined(self.layers.get(layer), new) for layer, new in layers.items()})


def joined(before: KeysValues | None, after: KeysValues) -> KeysValues:
    """Keys and values of tokens that follow one another."""
    if before is None:
        return after
    return torch.cat([before[0], after[0]], dim=2), torch.cat([before[1], after[1]], dim=2)

"""Attention over packed rows, registered with transformers beside its own kinds.

Rows with a common prefix are one sequence without padding: the prefix once, then the own tokens of each row. So every
matrix product of the model runs over real tokens only. Only attention must know which token belongs to which row, and
that is what this module handles.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "packed"
NO_MASK = (1, 1, 1, 1)  # a mask of four axes is final for transformers: it makes none of its own
SHARED = -1  # the row number of tokens that belong to all rows

KeysValues = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of one layer, each [1, K, S, D]."""


@dataclass(frozen=True)
class AttentionOptions:
    """How a layer attends.

    Attributes:
        scaling: factor on the scores.
        dropout: probability by which a weight is dropped.
        window: tokens that a token sees, itself included; None: all before it.
        softcap: scores stay within ± this, by tanh; None: they are not capped.
    """

    scaling: float
    dropout: float = 0.0
    window: int | None = None
    softcap: float | None = None


class PackedForward(Protocol):
    """One forward pass, as the attention of every layer sees it."""

    def attend(
        self, layer: int, query: torch.Tensor, keys_values: KeysValues, options: AttentionOptions
    ) -> torch.Tensor:
        """Attention outputs [1, H, S, D], from queries of this shape and keys and values of the same S tokens."""
        ...


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    packed: PackedForward | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls in every layer. Without `packed`, its own scaled-dot-product attention.

    Args:
        query: [B, H, T, D]; in a packed pass [1, H, S, D].
        key, value: [B, K, T, D]; in a packed pass [1, K, S, D].
        kwargs: whatever else the architecture passes on.

    Returns:
        Outputs [B, T, H, D], and no weights.

    Raises:
        NotImplementedError: the layer attends in a way that packed rows do not support.
    """
    if packed is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, softcap=softcap, **kwargs
        )
    if s_aux is not None or attention_mask is None or attention_mask.shape != NO_MASK:
        raise NotImplementedError("attention sinks, or a mask of the model's own")
    options = AttentionOptions(scaling or query.shape[-1] ** -0.5, dropout, sliding_window, softcap)
    layer = module.layer_idx
    assert isinstance(layer, int), "transformers numbers the attention layers of its decoders"
    return packed.attend(layer, query, (key, value), options).transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


def masked_attention(
    query: torch.Tensor, keys_values: KeysValues, mask: torch.Tensor | None, options: AttentionOptions
) -> torch.Tensor:
    """Softmax attention.

    Args:
        query: [1, H, n, D].
        keys_values: each [1, K, m, D].
        mask: [n, m], true where a key is seen; None: causal.

    Returns:
        [1, H, n, D].
    """
    G = query.shape[1] // keys_values[0].shape[1]
    key, value = (repeat_kv(tensor, G) for tensor in keys_values)  # [1, H, m, D]
    if options.softcap is None:
        return scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=options.dropout, scale=options.scaling, is_causal=mask is None
        )
    if mask is None:
        mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
    scores = apply_softcap(query @ key.transpose(2, 3) * options.scaling, options.softcap)  # [1, H, n, m]
    weights = masked_softmax(scores, ~mask, value.dtype)
    return torch.nn.functional.dropout(weights, options.dropout) @ value


def apply_softcap(scores: torch.Tensor, softcap: float | None) -> torch.Tensor:
    """Scores of any shape, within ± `softcap`; unchanged for None."""
    return scores if softcap is None else torch.tanh(scores / softcap) * softcap


def masked_softmax(scores: torch.Tensor, hidden: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Softmax over the last axis, computed in fp32, as `dtype`; 0 where `hidden` is true."""
    return scores.masked_fill(hidden, -torch.inf).softmax(dim=-1, dtype=torch.float32).to(dtype)

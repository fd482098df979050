"""Which models can be run packed: tried out on two rows, because a configuration alone does not tell."""

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from tools.memory_budget import is_out_of_memory
from tools.model.chat_template import TokenRow
from tools.model.composite import rope_switch_length, text_config
from tools.packed.attention import NAME
from tools.packed.packing import pack, pack_logits

# What architectures raise that pass on to attention what it does not know: a mask, a scale, a layer without a number.
# NotImplementedError is a RuntimeError.
UNSUPPORTED = (RuntimeError, TypeError, ValueError, AttributeError, AssertionError, LookupError)
PROBE = [TokenRow([3, 5, 4, 6], [7]), TokenRow([3, 5, 4, 8, 9], [10, 11, 6])]


def can_pack(model: PreTrainedModel) -> bool:
    """Switch a model to packed attention, if it then gives packed rows the logits that it gives each alone.

    The model is tried, not only its configuration read: architectures differ in what they pass on to attention.
    Where it cannot (state beside keys and values, biases by position, sinks, chunks), it is left as it was.
    """
    windows = _windows(model)
    if windows is None:
        return False
    with torch.no_grad():
        alone = torch.cat([_logits_alone(model, row) for row in PROBE])
        before = model.config._attn_implementation
        agrees = False
        try:
            model.set_attn_implementation(NAME)
            agrees = model.config._attn_implementation == NAME and _agrees(model, alone, windows)
        finally:
            if not agrees:
                model.set_attn_implementation(before)
    return agrees


def _windows(model: PreTrainedModel) -> set[int | None] | None:
    """The windows of its layers; None where layers keep more than keys and values, or attend in chunks."""
    config = text_config(model.config)
    kinds = set(getattr(config, "layer_types", None) or ())
    if model._is_stateful or not kinds <= {"full_attention", "sliding_attention"}:
        return None
    if not model._can_set_attn_implementation() or rope_switch_length(config) is not None:
        return None
    layers = DynamicCache(config=config).layers
    if any(type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers):
        return None
    return {getattr(layer, "sliding_window", None) for layer in layers} or {None}


def _logits_alone(model: PreTrainedModel, row: TokenRow) -> torch.Tensor:
    """[N, V] before each completion token of one row, by the plain forward pass."""
    ids = torch.tensor([[*row.prompt, *row.completion]], device=model.device)
    logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits
    return logits[0, len(row.prompt) - 1 : -1].float()


def _agrees(model: PreTrainedModel, alone: torch.Tensor, windows: set[int | None]) -> bool:
    batch = pack(PROBE, model.device)
    try:
        packed = pack_logits(model, batch).float()
    except UNSUPPORTED as error:
        if isinstance(error, RuntimeError) and is_out_of_memory(error):
            raise
        return False
    if packed.shape != alone.shape or batch.windows != windows:  # rows as short as the probe's do not reach a window
        return False
    tolerance = 1e-3 if model.dtype == torch.float32 else 5e-2
    return bool((packed - alone).abs().max() <= tolerance * alone.abs().max())

"""A whole model as one GGUF file, for llama.cpp, Ollama and LM Studio; its chat template carries the prompt.

After llama.cpp's own converter (conversion/llama.py, qwen.py and gemma.py there), for the architectures that are
listed here, and with the tokenizer as the run used it.
"""

import math
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np
import torch
from transformers import PreTrainedModel

from agent.errors import NesyLoraError
from export.formats.gguf_tokenizer import add_tokenizer
from tools.model.composite import text_config

Array = np.ndarray[Any, np.dtype[Any]]
GEMMA_PATTERN = 6  # layers; the last of them sees everything
WAY_OUT = "Give away the merged model (--merged), and convert it with llama.cpp's own convert_hf_to_gguf.py."


class Architecture(NamedTuple):
    """How a kind of model is written.

    Attributes:
        name: as llama.cpp knows it.
        permutes: whether the rows of q and k are in another order there (rotary halves side by side).
        norm_shift: what is added to the weights of norms.
    """

    name: gguf.MODEL_ARCH
    permutes: bool = False
    norm_shift: float = 0.0


ARCHITECTURES = {  # by transformers' model_type
    "llama": Architecture(gguf.MODEL_ARCH.LLAMA, permutes=True),
    "mistral": Architecture(gguf.MODEL_ARCH.LLAMA, permutes=True),
    "qwen2": Architecture(gguf.MODEL_ARCH.QWEN2),
    "qwen3": Architecture(gguf.MODEL_ARCH.QWEN3),
    "gemma3_text": Architecture(gguf.MODEL_ARCH.GEMMA3, norm_shift=1.0),
}
TYPES = {
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}


def write_gguf(model: PreTrainedModel, tokenizer: Path, into: Path, kind: str, name: str) -> None:
    """Write a model.

    Args:
        model: without adapters.
        tokenizer: a folder with tokenizer.json, tokenizer_config.json, chat_template.jinja and generation_config.json.
        into: the file.
        kind: of numbers, a key of `TYPES`. Vectors stay in fp32.
        name: of the model.

    Raises:
        NesyLoraError: its architecture, positions or tokenizer cannot be written; nothing is.
    """
    config: Any = model.config
    architecture = architecture_of(model)
    number, file_type = TYPES[kind]
    writer = gguf.GGUFWriter(into, gguf.MODEL_ARCH_NAMES[architecture.name], use_temp_file=False)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_sizes(writer, config, architecture)
    add_tokenizer(writer, tokenizer, config.vocab_size)
    for tensor, values in _tensors(model, architecture):
        _add(writer, tensor, values, number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def architecture_of(model: PreTrainedModel) -> Architecture:
    """Raises NesyLoraError: it is none of those listed here."""
    kind = model.config.model_type
    if kind not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise NesyLoraError(f"a model of the kind '{kind}' is not written as GGUF here, only {known}. {WAY_OUT}")
    return ARCHITECTURES[kind]


@lru_cache
def _names(kind: gguf.MODEL_ARCH, layers: int) -> gguf.TensorNameMap:
    return gguf.get_tensor_name_map(kind, layers)


def gguf_name(model: PreTrainedModel, name: str) -> str:
    """What GGUF calls a tensor. Raises NesyLoraError: it has no place for it."""
    layers = text_config(model.config).num_hidden_layers
    known = _names(architecture_of(model).name, layers).get_name(name, try_suffixes=(".weight", ".bias"))
    if known is None:
        raise NesyLoraError(f"GGUF has no place for {name} of a '{model.config.model_type}' model. {WAY_OUT}")
    return known


def _add_sizes(writer: gguf.GGUFWriter, config: Any, architecture: Architecture) -> None:
    head = _head(config)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_rope_freq_base(_rope(config)["rope_theta"])
    if architecture.name == gguf.MODEL_ARCH.GEMMA3:
        _check_gemma(config)
        writer.add_sliding_window(config.sliding_window)
    elif "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        raise NesyLoraError(f"sliding windows of a '{config.model_type}' model are not written as GGUF here. {WAY_OUT}")


def _check_gemma(config: Any) -> None:
    """Raises NesyLoraError for a Gemma 3 that differs from Google's in what llama.cpp does not read from the file."""
    kinds = [
        "sliding_attention" if (layer + 1) % GEMMA_PATTERN else "full_attention"
        for layer in range(config.num_hidden_layers)
    ]
    if config.query_pre_attn_scalar != _head(config) or list(config.layer_types) != kinds:
        raise NesyLoraError(
            "llama.cpp takes a Gemma 3's attention scale from its head size and makes every sixth layer a full one; "
            f"this model's are others. {WAY_OUT}"
        )


def _head(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _rope(config: Any) -> dict[str, Any]:
    """Of all layers, or of those that see everything; raises NesyLoraError for kinds that are not written."""
    rope: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    rope = rope.get("full_attention", rope)
    if rope.get("rope_type", "default") not in ("default", "llama3"):
        raise NesyLoraError(f"rotary positions of the kind '{rope['rope_type']}' are not written as GGUF. {WAY_OUT}")
    return {"rope_theta": 10_000.0} | rope


def _tensors(model: PreTrainedModel, architecture: Architecture) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor under its name in GGUF. A head that is tied to the embeddings is left out."""
    config: Any = text_config(model.config)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        part = name.split(".")[-2]
        if architecture.permutes and part in heads:
            weight = permuted(weight, heads[part])
        if architecture.norm_shift and part.endswith("norm"):
            weight = weight.float() + architecture.norm_shift
        yield gguf_name(model, name), weight
    if _rope(config).get("rope_type") == "llama3":
        yield "rope_freqs.weight", _llama3_factors(config)


def permuted(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of q or k in llama.cpp's order: the two halves that a rotation pairs stand side by side, in each head."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def _llama3_factors(config: Any) -> torch.Tensor:
    """By how much each frequency is slowed: [head / 2]. After transformers' `_compute_llama3_parameters`."""
    rope, size = _rope(config), _head(config)
    factor, low, high = rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"]
    old = rope["original_max_position_embeddings"]
    factors = []
    for frequency in 1.0 / rope["rope_theta"] ** (torch.arange(0, size, 2, dtype=torch.float32) / size):
        wavelength = 2 * math.pi / float(frequency)
        smooth = (old / wavelength - low) / (high - low)
        middle = 1 / ((1 - smooth) / factor + smooth)
        factors.append(1.0 if wavelength < old / high else factor if wavelength > old / low else middle)
    return torch.tensor(factors)


def _add(writer: gguf.GGUFWriter, name: str, weight: torch.Tensor, number: gguf.GGMLQuantizationType) -> None:
    values: Array = weight.detach().to("cpu", torch.float32).contiguous().numpy()
    if values.ndim < 2:
        writer.add_tensor(name, values)
        return
    block = gguf.GGML_QUANT_SIZES[number][0]
    if values.shape[-1] % block:  # as llama.cpp does where rows are no whole number of blocks
        number = gguf.GGMLQuantizationType.F16
    writer.add_tensor(name, gguf.quants.quantize(values, number), raw_dtype=number)

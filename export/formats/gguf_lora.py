"""A LoRA as a GGUF file of its own, for llama.cpp to put on a GGUF of the base."""

from pathlib import Path
from typing import Any

import gguf
import torch
from transformers import PreTrainedModel

from agent.errors import NesyLoraError
from export.formats.gguf_file import architecture_of, gguf_name, permuted
from tools.adapters.files import check_files, strip
from tools.model.composite import text_config

WAY_OUT = "Take the whole model: --gguf f16."


def write_lora_gguf(model: PreTrainedModel, adapter: Path, into: Path, name: str) -> None:
    """Write an adapter; the model is as before when this returns.

    llama.cpp scales by alpha / rank, so whatever else peft scales by (rsLoRA, patterns) goes into the weights.

    Raises:
        BadInput: the adapter cannot be used.
        NesyLoraError: it is no plain LoRA of linear layers, or the architecture is not written; nothing is.
    """
    from peft import PeftModel

    kind = check_files(adapter)
    architecture = architecture_of(model)
    try:
        adapted: Any = PeftModel.from_pretrained(model, str(adapter))
        config = adapted.peft_config["default"]
        if kind != "LORA" or config.use_dora or config.modules_to_save:
            raise NesyLoraError(f"llama.cpp takes plain LoRA only, which the adapter in {adapter} is not. {WAY_OUT}")
        writer = gguf.GGUFWriter(into, gguf.MODEL_ARCH_NAMES[architecture.name])
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(config.r))
        writer.add_name(name)
        for part, layer in adapted.get_base_model().named_modules():
            if hasattr(layer, "lora_A"):
                _add_layer(writer, model, part, layer, config.r)
    finally:
        strip(model)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_layer(writer: gguf.GGUFWriter, model: PreTrainedModel, part: str, layer: Any, rank: int) -> None:
    """The two matrices of a layer: A of [rank, in], B of [out, rank]."""
    if "default" not in layer.lora_A:
        raise NesyLoraError(f"llama.cpp takes LoRA of linear layers only, and {part} is none. {WAY_OUT}")
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    up = up * (layer.scaling["default"] * down.shape[0] / rank)
    config, own = text_config(model.config), part.rpartition(".")[2]
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    if architecture_of(model).permutes and own in heads:
        up = permuted(up, heads[own])
    name = gguf_name(model, f"{part}.weight")
    for ending, weight in (("lora_a", down), ("lora_b", up)):
        values = weight.detach().to("cpu", torch.float32).contiguous().numpy()
        writer.add_tensor(f"{name}.{ending}", values)

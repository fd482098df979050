"""Finding a base model, and putting it where it runs best."""

import importlib.util
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

from agent.errors import BadInput
from agent.protocols import Progress
from tools.model import embedded
from tools.model.availability import check_model
from tools.model.chat_template import Renderer
from tools.model.composite import window
from tools.model.tokenizer import load_tokenizer

# What one library asks another in a way that is to go is nothing that a user could mend (peft 0.21, transformers 5.23).
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)


def load_renderer(
    name: str, *, chat_template_kwargs: Mapping[str, object] | None = None, progress: Progress
) -> tuple[Renderer, int]:
    """What makes token ids of rows, and the model's window in tokens. No weights are read.

    Args:
        name: a hub name, a local folder, or the embedded model's name.
        chat_template_kwargs: see `tools.model.chat_template.Renderer`.
        progress: told while the embedded model is unpacked.

    Raises:
        BadInput: the model cannot be found, is no causal language model, or its chat template cannot be used.
    """
    source = source_folder(name, progress)
    try:
        tokenizer = load_tokenizer(source)
        config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise _unreadable(name, error) from error
    # What transformers cannot run as a causal language model is refused before weights are read.
    if type(config) not in transformers.AutoModelForCausalLM._model_mapping:
        raise BadInput(
            f"model '{name}' is of the kind '{config.model_type}', which transformers does not run as a causal "
            f"language model; take a text model of the same family, or '{embedded.NAME}'"
        )
    render = Renderer(tokenizer, chat_template_kwargs)
    render.check(name)
    return render, window(config, tokenizer)


def load_model(
    name: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    qlora: bool = False,
    spread: bool = False,
    chat_template_kwargs: Mapping[str, object] | None = None,
    progress: Progress,
) -> tuple[transformers.PreTrainedModel, transformers.PreTrainedTokenizerBase]:
    """A base model in evaluation mode, and its tokenizer. Safetensors only, and no remote code.

    Args:
        name: a hub name, a local folder, or the embedded model's name.
        device: `auto` for the best one, `cpu`, `cuda` or `mps`.
        dtype: `auto` for the device's own, or the name of a torch dtype.
        qlora: weights in four bits (nf4), on CUDA only.
        spread: over all CUDA devices of this machine, if there are several: one has the first layers, the next those
            that follow.
        chat_template_kwargs: see `tools.model.chat_template.Renderer`.
        progress: told while the embedded model is unpacked.

    Raises:
        BadInput: as `load_renderer`; or the weights cannot be read, or the device is not there, or has no room.
    """
    render, _ = load_renderer(name, chat_template_kwargs=chat_template_kwargs, progress=progress)
    source = source_folder(name, progress)
    device = check_device(device)
    kind = pick_dtype(device) if dtype == "auto" else getattr(torch, dtype)
    spread = spread and device == "cuda" and torch.cuda.device_count() > 1
    extra: dict[str, Any] = {"quantization_config": four_bit(kind), "device_map": device} if qlora else {}
    if spread:
        extra["device_map"] = "auto"
    if Path(source).is_dir():  # takes a second; a download from the hub keeps its progress bar
        transformers.utils.logging.disable_progress_bar()
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            source, dtype=kind, use_safetensors=True, trust_remote_code=False, **extra
        )
    except (OSError, ValueError) as error:
        raise _unreadable(name, error) from error
    if qlora:
        from peft import prepare_model_for_kbit_training

        return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False).eval(), render.tokenizer
    if spread:
        return _on_devices_only(model, name).eval(), render.tokenizer
    return model.to(torch.device(device)).eval(), render.tokenizer  # type: ignore[arg-type]


def _on_devices_only(model: transformers.PreTrainedModel, name: str) -> transformers.PreTrainedModel:
    """A model that was spread. Raises BadInput: a part of it was left on the host, which is far too slow."""
    devices: Mapping[str, object] = getattr(model, "hf_device_map", None) or {}
    if {"cpu", "disk"} & {str(place) for place in devices.values()}:
        raise BadInput(
            f"the {torch.cuda.device_count()} CUDA devices of this machine do not hold '{name}' together; take a "
            "smaller one, or `lora.qlora: true` without `shard`"
        )
    return model


def source_folder(name: str, progress: Progress) -> str:
    """The name or folder that transformers loads the model from."""
    check_model(name)
    return str(embedded.embedded_model(progress)) if name == embedded.NAME else name


def _unreadable(name: str, error: Exception) -> BadInput:
    return BadInput(
        f"model '{name}' cannot be loaded: {str(error).splitlines()[0]} "
        f"Give a hub name that this machine can reach, a local folder, or '{embedded.NAME}'."
    )


def pick_device(wanted: str = "auto") -> str:
    """The device that is wanted; for `auto`, the best one of this machine."""
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def check_device(device: str) -> str:
    """The device; for `auto` the best there is. Raises BadInput: this machine has no such device."""
    device = pick_device(device)
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available[device]:
        found = ", ".join(name for name in available if available[name])
        raise BadInput(f"there is no device '{device}' here; set device to auto, or to one of: {found}")
    return device


def pick_dtype(device: str) -> torch.dtype:
    """bfloat16 on CUDA devices that compute in it, else fp32: small adapters lose too much in fp16.

    Cards from before Ampere (T4, V100) only emulate bfloat16, slower than fp32; torch calls that supported, too.
    """
    native = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float32


def dtype_name(wanted: str, device: str) -> str:
    """In which a model computes, as a task.yaml names it; for `auto`, what the device takes."""
    return str(pick_dtype(device)).removeprefix("torch.") if wanted == "auto" else wanted


def four_bit(compute: torch.dtype) -> transformers.BitsAndBytesConfig:
    """The base in four bits. Raises BadInput: it cannot be on this machine."""
    if importlib.util.find_spec("bitsandbytes") is None or not torch.cuda.is_available():
        raise BadInput(
            "lora.qlora needs a CUDA device and bitsandbytes: pip install bitsandbytes, or set lora.qlora: false"
        )
    return transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute)

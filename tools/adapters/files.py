"""Adapters on disk and on the base: which ones may be attached, how they are saved, how peft is removed again."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from agent.config.lora_options import REFUSED, init_refusal
from agent.errors import BadInput

if TYPE_CHECKING:
    from peft import PeftModel

# Adapters of peft that answer here as with peft alone, and leave the base unchanged (see test_foreign_adapters.py).
SUPPORTED_KINDS = (
    "LORA", "ADALORA", "BOFT", "C3A", "DELORA", "FOURIERFT", "GRALORA", "HIRA", "HRA", "IA3", "LN_TUNING", "LOHA",
    "LOKR", "MISS", "OFT", "RANDLORA", "ROAD", "SHIRA", "VBLORA", "VERA", "WAVEFT",
)  # fmt: skip
# Options with which a saved LoRA would change the base, or answer differently here than with peft alone.
REFUSED_OPTIONS = (
    "bias", "kasa_config", "layer_replication", "alora_invocation_tokens", "arrow_config", "megatron_config",
    "use_qalora", "loftq_config",
)  # fmt: skip
PREFIX = "base_model.model."  # of the base's modules, in peft's files
MERGE = "merge it into its base (peft's merge_and_unload) and give the merged model as `model`"


def check_files(folder: Path) -> str:
    """Check a saved adapter before anything is loaded.

    Returns:
        Its kind: peft's `peft_type`.

    Raises:
        BadInput: there is no adapter, or it would change the base, or this program cannot run it.
    """
    if not (folder / "adapter_model.safetensors").is_file():
        raise BadInput(f"no adapter in {folder}: give a folder that holds adapter_model.safetensors")
    config = _config(folder)
    kind = str(config.get("peft_type"))
    if kind not in SUPPORTED_KINDS:
        raise BadInput(
            f"the adapter in {folder} is of kind {kind}, which cannot be used here; those are "
            f"{', '.join(SUPPORTED_KINDS)}"
        )
    if config.get("task_type") not in (None, "CAUSAL_LM"):
        raise BadInput(f"the adapter in {folder} was made for {config['task_type']}, not for a model that answers")
    for name in REFUSED_OPTIONS:
        if config.get(name) not in (None, False, "none") and config[name] != {}:
            raise BadInput(f"the adapter in {folder} has `{name}`, which {REFUSED[name]}: {MERGE}")
    init = config.get("init_lora_weights") if kind == "LORA" else None
    if init != "eva" and init_refusal(init):  # eva's file holds all its weights
        raise BadInput(
            f"the adapter in {folder} has `init_lora_weights: {init}`: its weights belong to a base that was changed. "
            "Save it as a plain LoRA (save_pretrained with `path_initial_model_for_weight_conversion`), or " + MERGE
        )
    return kind


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"adapter_config.json in {folder} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise BadInput(f"adapter_config.json in {folder} is no object")
    return config


def check_base_weights(folder: Path, base: torch.nn.Module) -> None:
    """Compare weights of the base in the file (embeddings, biases) with the base: peft would write them into it.

    Raises:
        BadInput: they differ, or the file cannot be read.
    """
    from peft.utils.other import EMBEDDING_LAYER_NAMES
    from safetensors import SafetensorError, safe_open

    config = _config(folder)
    saved = tuple(config.get("modules_to_save") or ())  # names of copies that belong to the adapter
    if saved and config.get("ensure_weight_tying"):
        saved += tuple(EMBEDDING_LAYER_NAMES)
    own = {plain_name(name): weight for name, weight in base.named_parameters(remove_duplicate=False)}
    try:
        with safe_open(str(folder / "adapter_model.safetensors"), framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                part = plain_name(name.removeprefix(PREFIX))
                module = part.rpartition(".")[0]
                if part not in own or module.endswith(saved):
                    continue
                in_file, weight = file.get_tensor(name), own[part]
                if in_file.shape != weight.shape or not torch.equal(in_file.to(weight.dtype), weight.detach().cpu()):
                    raise BadInput(
                        f"the adapter in {folder} carries weights of its base, and {part} is not this model's: {MERGE}"
                    )
    except SafetensorError as error:
        raise BadInput(f"adapter_model.safetensors in {folder} cannot be read: {error}") from error


def plain_name(name: str) -> str:
    """A parameter's name without peft's layers around it."""
    for layer in ("token_adapter.base_layer.", "base_layer.", "original_module."):
        name = name.replace(layer, "")
    return name


def write(model: "PeftModel", adapter: str, folder: Path) -> None:
    """Save an attached adapter in `folder`: adapter_model.safetensors and peft's adapter_config.json.

    The base's own weights are left out, since none of them was trained. Tensors that share memory (tied layers) are
    written once for each name.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    weights = get_peft_model_state_dict(model, adapter_name=adapter, save_embedding_layers=False)
    save_file(
        {name: value.detach().to("cpu", copy=True).contiguous() for name, value in weights.items()},
        str(folder / "adapter_model.safetensors"),
        metadata={"format": "pt"},
    )
    config = model.peft_config[adapter].to_dict() | {"inference_mode": True}
    text = json.dumps(config, indent=2, default=lambda value: sorted(value) if isinstance(value, set) else str(value))
    (folder / "adapter_config.json").write_text(text)


def strip(base: torch.nn.Module) -> None:
    """Remove every layer of peft from the base, also those of an adapter that was attached only in part.

    (peft's own `unload` leaves trained `modules_to_save` in the base.)
    """
    for name, child in list(base.named_children()):
        inner = unwrapped(child)
        if inner is child:
            strip(child)
        else:
            base._modules[name] = inner
    if "peft_config" in vars(base):
        del base.peft_config


def unwrapped(module: torch.nn.Module) -> torch.nn.Module:
    """The base's own layer inside peft's wrappers, or the module itself where there are none."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    while isinstance(module, AuxiliaryTrainingWrapper | BaseTunerLayer):
        wrapped = isinstance(module, AuxiliaryTrainingWrapper)
        module = module.original_module if wrapped else module.get_base_layer()
    return module

"""Adapters on disk and on the base: which may be attached, how one is written, and how all are taken off again."""

import json
from pathlib import Path
from typing import Any

import torch

from agent.config.lora_options import REFUSED, init_refusal
from agent.errors import BadInput

# Kinds of peft that answer here as with peft alone, and leave the base as it is (see test_foreign_adapters.py).
SOUND = (
    "LORA", "ADALORA", "BOFT", "C3A", "DELORA", "FOURIERFT", "GRALORA", "HIRA", "HRA", "IA3", "LN_TUNING", "LOHA",
    "LOKR", "MISS", "OFT", "RANDLORA", "ROAD", "SHIRA", "VBLORA", "VERA", "WAVEFT",
)  # fmt: skip
# Options with which a saved LoRA would change the base, or say another thing here than with peft alone.
UNSOUND = (
    "bias", "kasa_config", "layer_replication", "alora_invocation_tokens", "arrow_config", "megatron_config",
    "use_qalora", "loftq_config",
)  # fmt: skip
OUTER = "base_model.model."  # before the names of the base's parts, in peft's files
MERGE = "merge it into its base (peft's merge_and_unload) and give the merged model as `model`"


def check_files(folder: Path) -> str:
    """Look at a saved adapter before anything is loaded.

    Returns:
        Its kind, as peft calls it.

    Raises:
        BadInput: no adapter there, or one that would change the base or cannot be answered with here.
    """
    if not (folder / "adapter_model.safetensors").is_file():
        raise BadInput(f"no adapter in {folder}: give a folder that holds adapter_model.safetensors")
    config = _config(folder)
    kind = str(config.get("peft_type"))
    if kind not in SOUND:
        raise BadInput(
            f"the adapter in {folder} is of kind {kind}, which cannot be used here; those are {', '.join(SOUND)}"
        )
    if config.get("task_type") not in (None, "CAUSAL_LM"):
        raise BadInput(f"the adapter in {folder} was made for {config['task_type']}, not for a model that answers")
    for name in UNSOUND:
        if config.get(name) not in (None, False, "none") and config[name] != {}:
            raise BadInput(f"the adapter in {folder} has `{name}`, which {REFUSED[name]}: {MERGE}")
    init = config.get("init_lora_weights") if kind == "LORA" else None
    if init != "eva" and init_refusal(init):  # eva's weights are all in the file
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
    """Weights of the base itself in the file (embeddings, biases), which peft would write into it, must be the base's.

    Raises:
        BadInput: they are not, or the file cannot be read.
    """
    from peft.utils.other import EMBEDDING_LAYER_NAMES
    from safetensors import SafetensorError, safe_open

    config = _config(folder)
    saved = tuple(config.get("modules_to_save") or ())  # what these are called is a copy of the adapter's own
    if saved and config.get("ensure_weight_tying"):
        saved += tuple(EMBEDDING_LAYER_NAMES)
    own = {plain_name(name): weight for name, weight in base.named_parameters(remove_duplicate=False)}
    try:
        with safe_open(str(folder / "adapter_model.safetensors"), framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                part = plain_name(name.removeprefix(OUTER))
                module = part.rpartition(".")[0]
                if part not in own or any(module.endswith(one) for one in saved):
                    continue
                given, weight = file.get_tensor(name), own[part]
                if given.shape != weight.shape or not torch.equal(given.to(weight.dtype), weight.detach().cpu()):
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


def write(model: Any, adapter: str, folder: Path) -> None:
    """An attached adapter as safetensors, with peft's adapter_config.json, straight into `folder`.

    The base's own weights are left out: none of them was trained. Tensors that share memory (tied layers) are written
    for each.
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
    """Take every layer of peft's off the base, also those of an adapter that could be made only in part.

    (peft's own `unload` leaves trained `modules_to_save` in the base.)
    """
    for name, child in list(base.named_children()):
        inner = bare(child)
        if inner is child:
            strip(child)
        else:
            base._modules[name] = inner
    if "peft_config" in vars(base):
        del base.peft_config


def bare(module: torch.nn.Module) -> torch.nn.Module:
    """The base's own layer in peft's wrapper, or the module itself where there is none."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    while isinstance(module, AuxiliaryTrainingWrapper | BaseTunerLayer):
        wrapped = isinstance(module, AuxiliaryTrainingWrapper)
        module = module.original_module if wrapped else module.get_base_layer()
    return module

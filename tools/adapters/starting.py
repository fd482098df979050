"""An adapter from elsewhere that a run goes on training: what is checked of its files, and what it is like."""

import json
import re
from pathlib import Path

from agent.config.lora import Lora
from agent.config.lora_options import NEED_THE_BASE, REFUSED
from agent.errors import BadInput
from tools.adapters.files import MERGE, check_files
from tools.model import embedded

UNTRAINABLE = ("velora_config", "monteclora_config", "ensure_weight_tying")  # answers are right with them, training not


def check_start(folder: Path, model: str, lora: Lora, sharded: bool = False) -> str:
    """Check an adapter that a run is to start from, without loading a model.

    Args:
        model: the task's.
        lora: the task's settings, which hold for adapters that are begun anew.
        sharded: whether the base is divided in training.

    Returns:
        A sentence on what it is, and which of the task's settings it goes on without.

    Raises:
        BadInput: there is none; its files are damaged; it cannot be trained on here, or is of another base.
    """
    if not folder.is_dir():
        raise BadInput(f"there is no folder {folder}")
    if not (folder / "adapter_config.json").is_file():
        whole = "; its best pair is a prompt without one" if (folder / "bundle.json").is_file() else ""
        raise BadInput(f"there is no adapter in {folder}: it holds no adapter_config.json{whole}")
    if not (folder / "adapter_model.safetensors").is_file() and list(folder.glob("adapter_model.bin")):
        raise BadInput(
            f"the adapter in {folder} is a pickle (adapter_model.bin), which may run code: load it with peft where you "
            "trust it, and save it again with save_pretrained"
        )
    kind = check_files(folder)
    if kind != "LORA":
        raise BadInput(f"the adapter in {folder} is of kind {kind}; a run goes on training LoRA only: {MERGE}")
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    for name in UNTRAINABLE:
        if config.get(name):
            raise BadInput(f"the adapter in {folder} has `{name}`, which {REFUSED[name]}: {MERGE}")
    for name in ("use_dora", *NEED_THE_BASE) if sharded else ():
        if config.get(name):
            raise BadInput(f"the adapter in {folder} has `{name}`, which needs a whole base: set shard: false")
    _check_base(config.get("base_model_name_or_path"), model, folder)
    _check_weights(folder)
    return _described(config, lora)


def _check_base(of: object, model: str, folder: Path) -> None:
    """Raises BadInput: both bases have names, and these are of different models."""
    ours = embedded.HUB if model == embedded.NAME else model
    names = [name for name in (of, ours) if isinstance(name, str) and _is_hub_name(name)]
    if len({name.rpartition("/")[2].casefold() for name in names}) > 1:
        raise BadInput(
            f"the adapter in {folder} was made on {of}, and the task's model is {model}: set `model: {of}`; or, if "
            "these are the same weights under two names, put the task's into its adapter_config.json as "
            "base_model_name_or_path"
        )


def _is_hub_name(name: str) -> bool:
    """As opposed to a folder of some machine."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None and not name.startswith(".") and not Path(name).exists()


def _check_weights(folder: Path) -> None:
    """Raises BadInput: the file is cut off or holds no LoRA, or weights that are no numbers."""
    from safetensors import SafetensorError, safe_open

    file = folder / "adapter_model.safetensors"
    try:
        with safe_open(str(file), framework="pt") as weights:
            names = list(weights.keys())
            if not any("lora_" in name for name in names):
                raise BadInput(f"{file} holds no LoRA weights")
            for name in names:
                if not weights.get_tensor(name).isfinite().all():
                    raise BadInput(f"{file} is damaged: {name} holds values that are no numbers")
    except SafetensorError as error:
        raise BadInput(f"{file} is damaged: {error}") from error


def _described(config: dict[str, object], lora: Lora) -> str:
    own = {"rank": config.get("r"), "alpha": config.get("lora_alpha")}
    own |= {"rslora": bool(config.get("use_rslora")), "dora": bool(config.get("use_dora"))}
    settings = lora.model_dump()
    others = [f"{name} {value} (the task's lora has {settings[name]})" for name, value in own.items()
              if value != settings[name]]  # fmt: skip
    targets = config.get("target_modules")
    if isinstance(targets, list) and not isinstance(lora.targets, str) and {*targets} != {*lora.targets}:
        others.append(f"targets {', '.join(sorted(map(str, targets)))} (the task's lora has {', '.join(lora.targets)})")
    said = f"The run starts from a LoRA of rank {own['rank']}"
    if not others:
        return f"{said}."
    return (
        f"{said}. It keeps its own {', '.join(others)} while its weights are trained on, since they have that shape; "
        "the task's hold for adapters that are begun anew."
    )

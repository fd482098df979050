"""From the `lora:` section of a task to a LoRA on the model. Wrong settings are refused before any training."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING

import torch

from agent.config.lora import Lora
from agent.config.lora_options import check_options, chosen
from agent.errors import BadInput
from tools.adapters.files import plain_name, unwrapped
from tools.model.backbone import Backbone

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel

TRIAL = "0" * 12  # the id of an adapter that is made only to be dropped
# What peft raises for settings that do not fit a model, bad patterns included.
PEFT_REFUSES = (TypeError, ValueError, LookupError, NotImplementedError, re.error)


def lora_config(rank: int, settings: Lora) -> "LoraConfig":
    """peft's LoraConfig; alpha keeps its ratio to the rank when the policy asks for another rank.

    Raises:
        BadInput: an option that is not allowed.
    """
    from peft import LoraConfig

    check_options(settings)
    known = {
        "r": rank,
        "lora_alpha": settings.alpha * rank / settings.rank,
        "target_modules": settings.targets if isinstance(settings.targets, str) else list(settings.targets),
        "lora_dropout": settings.dropout,
        "use_rslora": settings.rslora,
        "use_dora": settings.dora,
        "task_type": "CAUSAL_LM",
    }
    return LoraConfig(**(known | chosen(settings)))


def new_lora(backbone: Backbone, adapter: str, rank: int, settings: Lora) -> None:
    """Attach a new LoRA by these settings.

    Raises:
        BadInput: a setting that peft refuses on this model, or one that names what the model does not have. Nothing
            stays attached then.
    """
    try:
        config = lora_config(rank, settings)
        check_names(backbone.base, settings)
        backbone.create(adapter, config)
    except PEFT_REFUSES as error:
        raise BadInput(f"lora.targets and lora.options do not make a LoRA of {backbone.name}: {error}") from error
    targeted = backbone.model.base_model.targeted_module_names
    for name in ("rank_pattern", "alpha_pattern"):
        for key in chosen(settings).get(name, ()):
            if not any(re.match(rf"(.*\.)?({key})$", module) for module in targeted):  # as peft matches
                backbone.detach(adapter)
                raise BadInput(f"lora.options.{name}: '{key}' matches no module that gets a LoRA in {backbone.name}")


def try_settings(backbone: Backbone, settings: Lora) -> None:
    """Make a LoRA and drop it again, so that wrong settings end a run at its start.

    Initial weights that are computed from the base's are left out here: they take long on a large model.

    Raises:
        BadInput: as `new_lora`.
    """
    check_options(settings)
    init = settings.options.get("init_lora_weights")
    plain = {"init_lora_weights": True} if isinstance(init, str) else {}
    devices = [backbone.device] if backbone.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        new_lora(backbone, TRIAL, settings.rank, settings.model_copy(update={"options": settings.options | plain}))
        backbone.detach(TRIAL)


def check_names(model: "PreTrainedModel", settings: Lora) -> None:
    """Look up in the model every module, parameter, layer and token that the settings name; peft ignores wrong ones.

    Raises:
        BadInput: one that the model does not have.
    """
    options = chosen(settings)
    modules = {name: unwrapped(module) for name, module in model.named_modules(remove_duplicate=False) if name}
    parameters = [plain_name(name) for name, _ in model.named_parameters(remove_duplicate=False)]
    if not isinstance(settings.targets, str):
        _require("lora.targets", settings.targets, modules)
    excluded = options.get("exclude_modules", ())
    if isinstance(excluded, str) and not any(re.fullmatch(excluded, name) for name in modules):
        raise _no_match("lora.options.exclude_modules", excluded, modules)
    _require("lora.options.exclude_modules", () if isinstance(excluded, str) else excluded, modules)
    _require("lora.options.modules_to_save", options.get("modules_to_save", ()), modules)
    _require_whole_names("lora.options.modules_to_save", options.get("modules_to_save", ()), modules)
    _require("lora.options.target_parameters", options.get("target_parameters", ()), parameters)
    _check_layers(options.get("layers_to_transform", []), modules)
    _check_tokens(options.get("trainable_token_indices", []), model, modules)


def _require(key: str, wanted: Iterable[str], names: Iterable[str]) -> None:
    """Each name is one of these, or the end of one after a dot. Raises BadInput."""
    for name in wanted:
        if not any(known == name or known.endswith(f".{name}") for known in names):
            raise _no_match(key, name, names)


def _require_whole_names(key: str, wanted: Iterable[str], names: Iterable[str]) -> None:
    """peft matches the end of a module's name, even within a word: `norm` also matches `input_layernorm`."""
    for name in wanted:
        for known in names:
            if known.endswith(name) and known != name and not known.endswith(f".{name}"):
                longer = next(whole for whole in names if whole == name or whole.endswith(f".{name}"))
                raise BadInput(
                    f"{key}: peft would take '{name}' for '{known}', too; write more of the name: '{longer}'"
                )


def _no_match(key: str, name: str, names: Iterable[str]) -> BadInput:
    parts = sorted({part for whole in names for part in (whole, whole.rpartition(".")[2])})
    near = get_close_matches(name, parts, n=1)
    hint = f"did you mean '{near[0]}'?" if near else "`print(model)` shows how its parts are called"
    return BadInput(f"{key}: '{name}' matches nothing in the model; {hint}")


def _check_layers(wanted: int | list[int], modules: Iterable[str]) -> None:
    numbers = {int(found[1]) for name in modules if (found := re.search(r"\.(\d+)(\.|$)", name))}
    for layer in [wanted] if isinstance(wanted, int) else wanted:
        if layer not in numbers:
            raise BadInput(f"lora.options.layers_to_transform: there is no layer {layer}; the last is {max(numbers)}")


def _check_tokens(
    wanted: list[int] | dict[str, list[int]], model: "PreTrainedModel", modules: dict[str, torch.nn.Module]
) -> None:
    """Token ids are rows of their embedding table [V, H]: the input embeddings, or a module by name."""
    key = "lora.options.trainable_token_indices"
    by_table = {"": wanted} if isinstance(wanted, list) else wanted
    _require(key, filter(None, by_table), modules)
    for table_name, ids in by_table.items():
        named = (module for name, module in modules.items() if name == table_name or name.endswith(f".{table_name}"))
        table = next(named) if table_name else unwrapped(model.get_input_embeddings())
        rows = len(table.weight) if isinstance(table.weight, torch.Tensor) else 0
        if ids and max(ids) >= rows:
            raise BadInput(f"{key}: there is no token {max(ids)}; the last is {rows - 1}")

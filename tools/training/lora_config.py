"""From the `lora:` section of a task to a LoRA on the model: what cannot be had is told before anything is trained."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

import torch

from agent.config.lora_options import check_options, chosen
from agent.config.task import Lora
from agent.errors import BadInput
from tools.model.backbone import Backbone
from tools.training.adapters import bare, plain_name

TRIAL = "0" * 12  # the id of an adapter that is made only to be dropped
# What peft raises for settings that a model cannot have; a bad pattern is among them.
PEFT_REFUSES = (TypeError, ValueError, LookupError, NotImplementedError, re.error)


def lora_config(rank: int, settings: Lora) -> Any:
    """peft's LoraConfig; alpha keeps its ratio to the rank when the policy asks for another rank.

    Raises:
        BadInput: an option that cannot be had.
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
    """Make a LoRA and drop it again, so that settings which cannot be had end a run at its start.

    Starting weights that are computed from the base's are left out here: they take long on a large model.

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


def check_names(model: torch.nn.Module, settings: Lora) -> None:
    """Raises BadInput: a name or a place in the settings that is nothing in the model; peft would say nothing."""
    options = chosen(settings)
    modules = {name: bare(module) for name, module in model.named_modules(remove_duplicate=False) if name}
    parameters = [plain_name(name) for name, _ in model.named_parameters(remove_duplicate=False)]
    if not isinstance(settings.targets, str):
        _all_named("lora.targets", settings.targets, modules)
    excluded = options.get("exclude_modules", ())
    if isinstance(excluded, str) and not any(re.fullmatch(excluded, name) for name in modules):
        raise _nothing("lora.options.exclude_modules", excluded, modules)
    _all_named("lora.options.exclude_modules", () if isinstance(excluded, str) else excluded, modules)
    _all_named("lora.options.modules_to_save", options.get("modules_to_save", ()), modules)
    _none_more("lora.options.modules_to_save", options.get("modules_to_save", ()), modules)
    _all_named("lora.options.target_parameters", options.get("target_parameters", ()), parameters)
    _check_layers(options.get("layers_to_transform", []), modules)
    _check_tokens(options.get("trainable_token_indices", []), model, modules)


def _all_named(key: str, wanted: Iterable[str], names: Iterable[str]) -> None:
    for one in wanted:
        if not any(name == one or name.endswith(f".{one}") for name in names):
            raise _nothing(key, one, names)


def _none_more(key: str, wanted: Iterable[str], names: Iterable[str]) -> None:
    """peft takes a module to save by how its name ends, be it within a word: `norm` for `input_layernorm`, too."""
    for one in wanted:
        for name in names:
            if name.endswith(one) and name != one and not name.endswith(f".{one}"):
                more = next(whole for whole in names if whole == one or whole.endswith(f".{one}"))
                raise BadInput(f"{key}: peft would take '{one}' for '{name}', too; write more of the name: '{more}'")


def _nothing(key: str, name: str, names: Iterable[str]) -> BadInput:
    parts = sorted({part for whole in names for part in (whole, whole.rpartition(".")[2])})
    near = get_close_matches(name, parts, n=1)
    hint = f"did you mean '{near[0]}'?" if near else "`print(model)` shows how its parts are called"
    return BadInput(f"{key}: '{name}' matches nothing in the model; {hint}")


def _check_layers(wanted: int | list[int], modules: Iterable[str]) -> None:
    numbers = {int(found[1]) for name in modules if (found := re.search(r"\.(\d+)(\.|$)", name))}
    for layer in [wanted] if isinstance(wanted, int) else wanted:
        if layer not in numbers:
            raise BadInput(f"lora.options.layers_to_transform: there is no layer {layer}; the last is {max(numbers)}")


def _check_tokens(wanted: list[int] | dict[str, list[int]], model: Any, modules: dict[str, torch.nn.Module]) -> None:
    """Token ids against the rows of the table that they are of."""
    key = "lora.options.trainable_token_indices"
    of = {"": wanted} if isinstance(wanted, list) else wanted
    _all_named(key, filter(None, of), modules)
    for place, ids in of.items():
        named = (module for name, module in modules.items() if name == place or name.endswith(f".{place}"))
        table = next(named) if place else bare(model.get_input_embeddings())
        rows = len(table.weight) if isinstance(table.weight, torch.Tensor) else 0
        if ids and max(ids) >= rows:
            raise BadInput(f"{key}: there is no token {max(ids)}; the last is {rows - 1}")

"""Which options of peft's LoRA a task may set, and why not the others. Written for the LoraConfig of peft 0.21.

Many adapters are attached to one base in memory and removed again, rows are packed into one sequence, and an adapter
must answer the same after it was saved and loaded. An option that breaks one of these is refused, with the reason.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, StrictInt, ValidationError

from agent.config.base import Settings
from agent.config.lora import Lora
from agent.errors import BadInput

Place = Annotated[StrictInt, Field(ge=0)]
Size = Annotated[StrictInt, Field(ge=1)]
Names = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]


class BlockDiagonal(Settings):
    """peft's BdLoraConfig."""

    target_modules_bd_a: Names | None = None
    target_modules_bd_b: Names | None = None
    nblocks: Size = 1
    match_strict: StrictBool = True


class Options(Settings):
    """What `lora.options` may hold, under peft's names. None: as if it were left out."""

    exclude_modules: str | Names | None = None
    fan_in_fan_out: StrictBool | None = None
    modules_to_save: Names | None = None
    init_lora_weights: StrictBool | Literal["gaussian", "orthogonal", "mica"] | None = None
    layers_to_transform: Place | Annotated[list[Place], Field(min_length=1)] | None = None
    layers_pattern: str | Names | None = None
    rank_pattern: dict[str, Size] | None = None
    alpha_pattern: dict[str, Annotated[float, Field(gt=0)]] | None = None
    trainable_token_indices: list[Place] | dict[str, list[Place]] | None = None
    lora_bias: StrictBool | None = None
    target_parameters: Names | None = None
    use_bdlora: BlockDiagonal | None = None


OURS = {
    "r": "lora.rank", "lora_alpha": "lora.alpha", "target_modules": "lora.targets", "lora_dropout": "lora.dropout",
    "use_rslora": "lora.rslora", "use_dora": "lora.dora",
}  # fmt: skip
PEFTS_OWN = (
    "task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
)  # fmt: skip

_DATA = "needs a pass over data before the first step, which is not made here; leave it out"
REFUSED = {
    "bias": "trains the base's own biases in place, so that the base is another one afterwards; `lora_bias: true` "
    "gives the adapter biases of its own",
    "megatron_config": "needs Megatron's parallel layers, which no model here has; leave it out",
    "megatron_core": "belongs to Megatron, which no model here runs on; leave it out",
    "loftq_config": "puts a quantized copy in place of the base's weights; `lora.qlora: true` loads the base in 4 bit",
    "eva_config": _DATA,
    "corda_config": _DATA,
    "lora_ga_config": _DATA,
    "velora_config": "compresses gradients by what one pass holds, so that a step cut to fit into memory would be "
    "another one; `lora.checkpointing: true` saves memory too",
    "alora_invocation_tokens": "is active only behind its tokens, which packed rows and cached decoding do not "
    "see; leave it out",
    "use_qalora": "works on GPTQ layers only, which no model here has; `lora.qlora: true` loads the base in 4 bit",
    "qalora_group_size": "belongs to `use_qalora`, which works on GPTQ layers only; leave it out",
    "monteclora_config": "needs a loss of its own, which is not trained with here; leave it out",
    "layer_replication": "builds other layers into the base, also for answers without the adapter; leave it out",
    "runtime_config": "is about layers kept in another memory, which no model here has; leave it out",
    "arrow_config": "routes between adapters that are already there; one is trained at a time here; leave it out",
    "kasa_config": "takes a part out of the base's weights and does not give it back; leave it out",
    "ensure_weight_tying": "is not read back as it was saved; leave it out, and embedding and head are each trained by "
    "themselves where both are named",
}
NEED_THE_BASE = ("modules_to_save", "trainable_token_indices", "target_parameters", "use_bdlora")
INITS = {
    "pissa": "takes a part out of the base's weights and does not give it back; `orthogonal` and `mica` leave the base "
    "alone",
    "olora": "takes a part out of the base's weights and does not give it back; `orthogonal` leaves the base alone",
    "loftq": REFUSED["loftq_config"],
    "eva": _DATA,
    "corda": _DATA,
    "lora_ga": _DATA,
}


def check_options(settings: Lora) -> None:
    """Raises BadInput: an option that is refused, or not possible with the other settings; a sentence for each."""
    found = faults(settings)
    if found:
        raise BadInput("\n".join(found.values()))


def faults(settings: Lora) -> dict[str, str]:
    """What is wrong with `lora.options`, by option, as far as that shows without the model."""
    found = {}
    for name, value in settings.options.items():
        why = _refusal(name, value)
        if why:
            found[name] = f"lora.options.{name} {why}"
    return (
        found
        or _ill_typed(settings.options)
        or {name: f"lora.options.{name} {why}" for name, why in _conflicts(settings)}
    )


def chosen(settings: Lora) -> dict[str, Any]:
    """The options to hand to peft: copies, since peft changes what it is given. `faults` has found none."""
    return Options.model_validate(_asked(settings.options)).model_dump(exclude_none=True)


def undividable(settings: Lora) -> str | None:
    """A setting that reads or copies whole weights of the base, by name: where it is divided, no process has them."""
    ours = (name for name in ("qlora", "dora") if getattr(settings, name))
    options = (
        f"options.{name}" for name, value in settings.options.items()
        if value and (name in NEED_THE_BASE or (name == "init_lora_weights" and value not in (True, "gaussian")))
    )  # fmt: skip
    return next((f"`lora.{name}`" for name in (*ours, *options)), None)


def init_refusal(value: object) -> str | None:
    """Why peft's `init_lora_weights` cannot have this value; None: no such reason."""
    name = str(value).lower()
    return next((why for init, why in INITS.items() if name == init or name.startswith(f"{init}_")), None)


def _asked(options: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in options.items() if name in Options.model_fields}


def _ill_typed(options: Mapping[str, object]) -> dict[str, str]:
    """Of a value that fits no member of a union, what the member says that got furthest."""
    try:
        Options.model_validate(_asked(options))
    except ValidationError as error:
        deepest = sorted(error.errors(), key=lambda fault: len(fault["loc"]))
        return {
            str(fault["loc"][0]): f"lora.options.{fault['loc'][0]}: {fault['msg']}, but it is {fault['input']!r}"
            for fault in deepest
        }
    return {}


def _refusal(name: str, value: object) -> str | None:
    if name in OURS:
        return f"is set by `{OURS[name]}`"
    if name in PEFTS_OWN:
        return "is set here; leave it out"
    if name in REFUSED:
        return None if value in (None, False, "none") else REFUSED[name]
    if name == "init_lora_weights":
        why = init_refusal(value)
        return why and f"`{value}`: it {why}"
    if name in Options.model_fields:
        return None
    near = get_close_matches(name, [*Options.model_fields, *REFUSED, *OURS], n=1)
    known = f"did you mean `{near[0]}`?" if near else f"the options are {', '.join(Options.model_fields)}"
    return f"is no option of peft's LoRA; {known}"


def _conflicts(settings: Lora) -> list[tuple[str, str]]:
    """Options that peft cannot combine with each other, or with other settings."""
    options = chosen(settings)
    init = options.get("init_lora_weights", True)
    found: list[tuple[str, str]] = []
    for name in ("layers_to_transform", "layers_pattern"):
        if name in options and isinstance(settings.targets, str):
            found.append((name, "needs `lora.targets` as a list of names, such as [q_proj, v_proj]"))
    if "layers_pattern" in options and "layers_to_transform" not in options:
        found.append(("layers_pattern", "has no effect without `layers_to_transform`"))
    if options.get("lora_bias") and settings.dora:
        found.append(("lora_bias", "cannot be combined with `lora.dora`"))
    if options.get("lora_bias") and isinstance(init, str):
        found.append(("lora_bias", f"cannot be combined with `init_lora_weights: {init}`"))
    if init == "orthogonal" and settings.rank % 2:
        found.append(("init_lora_weights", f"`orthogonal`: it needs an even `lora.rank`, and it is {settings.rank}"))
    if init == "mica" and settings.dora:
        found.append(("init_lora_weights", "`mica`: it cannot be combined with `lora.dora`"))
    if "use_bdlora" in options and (settings.dora or init == "mica"):
        found.append(("use_bdlora", "cannot be combined with `lora.dora` or `init_lora_weights: mica`"))
    return found

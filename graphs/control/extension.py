"""Other limits for a run: read from what a user wrote, checked against its task."""

import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from pydantic import ValidationError

from agent.config.task import TaskConfig
from agent.counting import plural
from agent.errors import BadInput
from agent.records.events import LimitsSet
from agent.records.limits import Extension, Limits
from graphs.queue.shares import freed
from memory.run.folder import RunFolder

NAMES = tuple(Limits.model_fields)
KEYS = {name if name == "target" else f"budget.{name}": name for name in NAMES}
"""As a task.yaml calls them."""


def extended(config: TaskConfig, present: Limits, changes: Mapping[str, float | None]) -> Limits:
    """The limits that hold once these are changed.

    Args:
        config: the run's task.
        changes: by the names of `Limits`; None lifts a limit.

    Raises:
        BadInput: a name or a value that cannot be, nothing is changed, or money is limited and no price is known.
    """
    for name in changes:
        if name not in NAMES:
            near = get_close_matches(name, NAMES, n=1)
            raise BadInput(f"There is no limit {name!r}{f': did you mean {near[0]}?' if near else ''} {_ways()}")
    for name, value in changes.items():
        if value is not None and not math.isfinite(value):
            raise BadInput(f"{name}: {value} is no limit; `none` lifts one")
    if "rounds" in changes and changes["rounds"] is None:
        raise BadInput("rounds cannot be lifted: it is a number, at most 10,000, those that are done included")
    try:
        limits = Limits.model_validate(present.model_dump() | dict(changes))
    except ValidationError as error:
        fault = error.errors()[0]
        said = fault["msg"].removeprefix("Input should be ")
        raise BadInput(f"{fault['loc'][0]} must be {said}, but it is {fault['input']:g}; nothing is changed") from None
    if "rounds" in changes and limits.rounds < 1:
        raise BadInput("rounds: at least 1, those that are done included; `nesylora ctl finish` ends a run")
    if limits.target is None:
        raise BadInput("target cannot be lifted: it is a reward above 0, and at most 1")
    if limits.usd is not None and config.unpriced:
        raise BadInput(f"usd needs {config.unpriced} in the task")
    if limits == present:
        raise BadInput(f"Nothing is changed: {in_words(present)} hold already. {_ways()}")
    return limits


def as_changes(settings: Sequence[str]) -> dict[str, float | None]:
    """What `--set` says, as changes of limits.

    Raises:
        BadInput: it sets something else, which is fixed once a run has begun.
    """
    changes: dict[str, float | None] = {}
    for setting in settings:
        key, _, value = setting.partition("=")
        if key.strip() not in KEYS:
            raise BadInput(
                f"--set {setting}: of a run that has begun only its limits can be set ({', '.join(KEYS)}), since "
                "what was measured holds for the other settings. For those, start a new run. (Only where an engine "
                "is, `generation.url`, may be changed in the run's task.yaml.)"
            )
        changes[KEYS[key.strip()]] = _number(setting, value.strip())
    return changes


def extend_stopped(folder: RunFolder, config: TaskConfig, changes: Mapping[str, float | None]) -> Extension:
    """Extend a run that no process works on.

    Args:
        config: the run's task, as it began.

    Raises:
        BadInput: see `extended`.
        Busy: a process works on it after all.
    """
    limits = extended(config, standing(folder, config), changes)
    with folder.locked():
        row = folder.extend(limits)
        folder.event(LimitsSet(row=row))
    return row


def standing(folder: RunFolder, config: TaskConfig) -> Limits:
    """The limits that an extension changes: those that hold; of a run that has ended in a queue, those of its own task.

    Args:
        config: the run's task, as it began.
    """
    known = freed(folder, config.limits) if folder.outcome() else None
    return known or folder.limits() or config.limits


def in_words(limits: Limits) -> str:
    """What ends a run, in a line."""
    named = {
        plural(limits.rounds, "round"): True,
        plural(limits.minutes or 0.0, "minute"): limits.minutes is not None,
        f"{limits.train_tokens or 0:,} training tokens": limits.train_tokens is not None,
        f"{limits.llm_tokens or 0:,} LLM tokens": limits.llm_tokens is not None,
        f"{limits.usd or 0:g} USD": limits.usd is not None,
        f"target {limits.target or 0:g}": limits.target is not None,
    }
    return ", ".join(text for text, holds in named.items() if holds)


def _number(setting: str, value: str) -> float | None:
    if value.lower() in ("null", "none"):
        return None
    if value.startswith("+"):
        raise BadInput(f"{setting}: a limit counts what is done, so it is the sum that is wanted, without +")
    try:
        number = float(value)
    except ValueError:
        raise BadInput(f"{setting}: {value!r} is no number; none lifts a limit") from None
    return int(number) if number.is_integer() else number


def _ways() -> str:
    return f"The limits are {', '.join(NAMES)}."

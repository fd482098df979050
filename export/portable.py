"""What only this machine or its network knows, taken out of what leaves it."""

import re
from pathlib import Path
from typing import Any

from agent.config.task import TaskConfig

FOLDERS = re.compile(r"(?<![\w/:.<~])~?/(?:[^\s/'\"<>]+/)+")
"""The folders of an absolute path in a text; not the slashes of an address, of "and/or", or of a tag."""
FILES = ("train", "validation", "test", "path")  # in `data`


def without_folders(text: str) -> str:
    """The text, with the names of files in place of their absolute paths, which may name a user."""
    return FOLDERS.sub("", text)


def portable_settings(config: TaskConfig, hub: str | None) -> dict[str, Any]:
    """The settings of a task without addresses, and with the name of a file in place of an absolute path.

    Args:
        hub: the hub's name of the base, where it is known.
    """
    values = config.model_dump(mode="json", by_alias=True)
    values["model"] = (hub if hub and _is_here(config.model) else None) or _model(config.model)
    for name in FILES:
        values["data"][name] = values["data"][name] and _name(values["data"][name])
    values["data"]["extra"] = [_name(path) for path in values["data"]["extra"]]
    values["keep"] = [_name(path) for path in values["keep"]]
    if start := values.get("start"):
        start["adapter"] = _name(start["adapter"])
    values["experience"] = _name(values["experience"])
    for scorer in values["content"]:
        if "model" in scorer:
            scorer["model"] = _model(scorer["model"])
    if llm := values.get("llm"):
        for settings in (llm, *(own for own in llm.values() if isinstance(own, dict))):
            settings.pop("base_url", None)
    for own in ("url", "python", "key_variable", "arguments"):  # the engine of one machine
        values["generation"].pop(own, None)
    values["generation"]["engine"] = "own"  # which answers as the run was answered
    for own in ("notify", "track"):  # an address is often a secret
        values.pop(own, None)
    return values


def _is_here(model: str) -> bool:
    return Path(model).expanduser().is_dir()


def _model(model: str) -> str:
    return f"./{Path(model).name}" if _is_here(model) or Path(model).is_absolute() else model


def _name(path: str) -> str:
    return Path(path).name if path.startswith(("/", "~")) or Path(path).is_absolute() else path

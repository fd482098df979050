"""What /help says: all commands; or one of them, with the settings that may follow it."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from agent.records.actions import EditPrompt, TrainLora
from agent.records.limits import Limits
from graphs.conversation import commands
from ui.talk.lines import Line, line

SETTINGS: dict[str, type[BaseModel]] = {"/train": TrainLora, "/edit": EditPrompt, "/set": Limits}
ELSEWHERE = ("action", "instruction")  # the command says both itself
WRITTEN = {
    "/train": "written as /train epochs=4 rows=both:",
    "/edit": "or settings, as /edit parts=system,demos:",
    "/set": "written as /set target=90% rounds=+2 minutes=none (+2: two more; none: no limit):",
}
ENDS = (("minimum", "from"), ("exclusiveMinimum", "above"), ("maximum", "to"))
WORDS = {"boolean": "true or false", "integer": "a whole number", "number": "a number"}


def about(command: str) -> Iterator[Line]:
    """All commands; or the one of this name, "/" or not, with what each of its settings takes and means.

    Raises:
        BadInput: there is no such command.
    """
    if not command:
        yield from map(line, commands.HELP.splitlines())
        return
    told = commands.named(f"/{command.lstrip('/')}")
    yield line(f"{told.name} {told.takes}".strip(), "strong")
    yield line(f"  {told.about}")
    if told.name in SETTINGS:
        yield line(f"  {WRITTEN[told.name]}")
        for name, field in SETTINGS[told.name].model_json_schema()["properties"].items():
            if name not in ELSEWHERE:
                yield line(f"    {name} ({_takes(field)}): {field['description']}", "dim")


def _takes(field: Mapping[str, Any]) -> str:
    """The values of a setting, in words."""
    kinds = [kind for kind in field.get("anyOf", [field]) if kind.get("type") != "null"]
    [kind] = kinds or [field]
    if kind.get("type") == "array":
        return f"some of {','.join(kind['items']['enum'])}"
    if "enum" in kind:
        return " or ".join(kind["enum"])
    return " ".join([WORDS[kind["type"]], *(f"{word} {kind[end]:,}" for end, word in ENDS if end in kind)])

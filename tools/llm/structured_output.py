"""The ways of asking an LLM server for one of several records: whichever it takes."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import BaseModel

from agent import prompts
from agent.config.llm import Way
from tools.llm.schema import about_of, as_schema, as_tools, name_of

Message = tuple[str, str]  # role and text
Options = dict[str, Any]
Records = Sequence[type[BaseModel]]


def put(messages: list[Message], records: Records, way: Way) -> tuple[list[Message], Options]:
    """Messages and request options that ask for one of the records. Without tools, the schema stands in the words too.

    Args:
        messages: the first is the system's.
        way: one of WAYS.
    """
    options = WAYS[way](records)
    if "tools" in options:
        return messages, options
    (role, system), *rest = messages
    told = prompts.fill("as_json", schema=json.dumps(as_schema(records)))
    return [(role, f"{system}\n\n{told}"), *rest], options


def _tools(records: Records) -> Options:
    """A tool a record, one of which must be called."""
    if len(records) == 1:
        return _one_tool(records)
    return {"tools": as_tools(records), "tool_choice": "required"}


def _one_tool(records: Records) -> Options:
    """A single tool, called by name: for servers that know no other tool_choice."""
    name = name_of(records[0]) if len(records) == 1 else "choose"
    about = "Choose one." if len(records) > 1 else about_of(records[0])
    function = {"name": name, "description": about, "parameters": as_schema(records)}
    return {
        "tools": [{"type": "function", "function": function}],
        "tool_choice": {"type": "function", "function": {"name": name}},
    }


def _schema(records: Records) -> Options:
    """Structured output as OpenAI has it."""
    wanted = {"name": "answer", "schema": as_schema(records)}
    return {"response_format": {"type": "json_schema", "json_schema": wanted}}


def _object(records: Records) -> Options:
    """Structured output as llama.cpp's servers had it before, and JSON mode where the schema is passed over."""
    return {"response_format": {"type": "json_object", "schema": as_schema(records)}}


def _text(records: Records) -> Options:
    """No more than words."""
    return {}


WAYS: dict[Way, Callable[[Records], Options]] = {
    "tools": _tools, "one tool": _one_tool, "schema": _schema, "object": _object, "text": _text,
}  # fmt: skip
CALLING: tuple[Way, ...] = ("tools", "one tool")


class Ways:
    """In which way a server is asked next: as has worked, or as is left to try.

    Args:
        only: the one way that may be taken; None: all may.
    """

    def __init__(self, only: Way | None = None) -> None:
        self.worked: Way | None = None
        self._left = [only] if only else list(WAYS)

    def order(self) -> list[Way]:
        """The ways in which one question may be put, the best first."""
        known = [self.worked] if self.worked else []
        return known + [way for way in self._left if way != self.worked]

    def learn(self, way: Way, called: bool) -> None:
        """A usable answer came in this way. Servers that take tools and let the model write words call none later."""
        if called or way not in CALLING:
            self.worked = way
        elif not self.worked:
            self._left = others(self._left, way) or self._left

    def defer(self, way: Way) -> None:
        """This way, and those of its kind, are tried last from now on."""
        first = others(self._left, way)
        self._left = [*first, *(other for other in self._left if other not in first)]


def others(ways: Sequence[Way], way: Way) -> list[Way]:
    """The ways but this one. Whoever does not call one of several tools is not asked to call a single one either."""
    left = CALLING if way in CALLING else (way,)
    return [other for other in ways if other not in left]

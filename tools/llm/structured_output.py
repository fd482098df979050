"""Structured output: the methods of asking an LLM server for one of several records. Each server supports some."""

import json
from collections.abc import Callable, Sequence

from pydantic import BaseModel

from agent import prompts
from agent.config.llm import OutputMethod
from tools.llm.schema import JsonObject, as_schema, as_tools, tool_description, tool_name

Message = tuple[str, str]  # role and text
Options = JsonObject  # of a request's body
Records = Sequence[type[BaseModel]]


def ask_for(records: Records, messages: list[Message], method: OutputMethod) -> tuple[list[Message], Options]:
    """Messages and request options that ask for one of the records.

    Methods without tools put the schema into the system message too: servers may ignore the option.

    Args:
        messages: the first is the system's.
    """
    options = OUTPUT_METHODS[method](records)
    if "tools" in options:
        return messages, options
    (role, system), *rest = messages
    instruction = prompts.fill("as_json", schema=json.dumps(as_schema(records)))
    return [(role, f"{system}\n\n{instruction}"), *rest], options


def _tools(records: Records) -> Options:
    """One tool per record; the LLM must call one of them."""
    if len(records) == 1:
        return _one_tool(records)
    return {"tools": as_tools(records), "tool_choice": "required"}


def _one_tool(records: Records) -> Options:
    """A single tool, called by name: for servers that support no other tool_choice."""
    name = tool_name(records[0]) if len(records) == 1 else "choose"
    about = "Choose one." if len(records) > 1 else tool_description(records[0])
    function = {"name": name, "description": about, "parameters": as_schema(records)}
    return {
        "tools": [{"type": "function", "function": function}],
        "tool_choice": {"type": "function", "function": {"name": name}},
    }


def _schema(records: Records) -> Options:
    """`response_format` by JSON schema, as OpenAI defines it."""
    schema = {"name": "answer", "schema": as_schema(records)}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _object(records: Records) -> Options:
    """`json_object` with a schema, as older llama.cpp servers take it; plain JSON mode where a server ignores it."""
    return {"response_format": {"type": "json_object", "schema": as_schema(records)}}


OUTPUT_METHODS: dict[OutputMethod, Callable[[Records], Options]] = {
    "tools": _tools, "one tool": _one_tool, "schema": _schema, "object": _object, "text": lambda _: {},
}  # fmt: skip
TOOL_METHODS: tuple[OutputMethod, ...] = ("tools", "one tool")


class MethodOrder:
    """The order in which methods are tried on one server: the one that has worked first.

    Args:
        only: the one method that may be used; None: all.
    """

    def __init__(self, only: OutputMethod | None = None) -> None:
        self.worked: OutputMethod | None = None
        self._untried = [only] if only else list(OUTPUT_METHODS)

    def order(self) -> list[OutputMethod]:
        """The methods to try for one question, the best first."""
        known = [self.worked] if self.worked else []
        return known + [method for method in self._untried if method != self.worked]

    def learn(self, method: OutputMethod, called: bool) -> None:
        """A usable answer came by this method. A server that accepts tools but answers in text will not call one."""
        if called or method not in TOOL_METHODS:
            self.worked = method
        elif not self.worked:
            self._untried = without_kind_of(self._untried, method) or self._untried

    def defer(self, method: OutputMethod) -> None:
        """Try this method, and those of its kind, last from now on."""
        first = without_kind_of(self._untried, method)
        self._untried = [*first, *(last for last in self._untried if last not in first)]


def without_kind_of(methods: Sequence[OutputMethod], method: OutputMethod) -> list[OutputMethod]:
    """The methods left after this one. Both tool methods go together: who calls none of many calls no single one."""
    failed = TOOL_METHODS if method in TOOL_METHODS else (method,)
    return [left for left in methods if left not in failed]

"""Records as tools and as JSON schemas for an LLM, and its answers as records."""

import json
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from agent.reasoning import without_thoughts
from agent.records.base import Record

T = TypeVar("T", bound=BaseModel)
JsonObject = dict[str, Any]

CUT = "the answer was cut off: be shorter"
WRAPPER = "choice"  # servers want an object at the root, where a choice among several cannot stand


class Reply(Record):
    """What an LLM answered: text, tool calls as (name, arguments as JSON text), and whether `max_tokens` cut it off."""

    text: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    cut: bool = False


def tool_name(record: type[BaseModel]) -> str:
    """The default of the record's field `action`; the class's own name where it has none."""
    action = record.model_fields.get("action")
    return str(action.default) if action else record.__name__


def tool_description(record: type[BaseModel]) -> str:
    """The record's docstring as one line."""
    return " ".join((record.__doc__ or "").split())


def as_tools(records: Sequence[type[BaseModel]]) -> list[JsonObject]:
    """One function tool per record, in OpenAI's form."""
    functions = [
        {"name": tool_name(record), "description": tool_description(record), "parameters": _schema(record)}
        for record in records
    ]
    return [{"type": "function", "function": function} for function in functions]


def as_schema(records: Sequence[type[BaseModel]]) -> JsonObject:
    """One JSON schema: a single record's own, or a choice among several by their `action`."""
    if len(records) == 1:
        return _schema(records[0])
    choices = [{"description": tool_description(record), **_schema(record)} for record in records]
    return {
        "type": "object", "properties": {WRAPPER: {"anyOf": choices}}, "required": [WRAPPER],
        "additionalProperties": False,
    }  # fmt: skip


class MalformedReply(ValueError):
    """A reply from which no choice can be read; another method of structured output may bring one."""


def parse_choice(reply: Reply, records: Sequence[type[T]]) -> T:
    """The one record that the reply calls as a tool or, where it calls none, writes as JSON in its text.

    Reasoning in the text is ignored. A field that is null counts as left out where it has a default.

    Raises:
        MalformedReply: no choice, several, or one that does not exist.
        ValueError: values out of bounds. The message of both is written for the LLM.
    """
    by_name = {tool_name(record): record for record in records}
    name, arguments = _called(reply) if reply.calls else _written_as_text(reply, by_name)
    if name not in by_name and isinstance(arguments, dict):
        arguments = arguments.get(WRAPPER, arguments)
        name = str(arguments.get("action", name)) if isinstance(arguments, dict) else name
    if name not in by_name:
        raise MalformedReply(f"there is no tool '{name}'; there are {', '.join(by_name)}")
    record = by_name[name]
    fields = record.model_fields
    if isinstance(arguments, dict):
        arguments = {
            key: value
            for key, value in arguments.items()
            if value is not None or key not in fields or fields[key].is_required()
        }
    try:
        return record.model_validate(arguments)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ValueError(problems) from error


def _called(reply: Reply) -> tuple[str, object]:
    """Name and arguments of the one tool call. Raises MalformedReply."""
    if reply.cut:
        raise MalformedReply(CUT)
    if len(reply.calls) > 1:
        raise MalformedReply(f"{len(reply.calls)} tools were called")
    [(name, text)] = reply.calls
    return name, _arguments(text)


def _arguments(arguments: object) -> object:
    """Arguments as they are or, as most servers send them, decoded from a JSON text. Raises MalformedReply."""
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments or "{}")
    except (json.JSONDecodeError, RecursionError):  # small models write brackets without end
        raise MalformedReply("the tool's arguments were not JSON") from None


def _written_as_text(reply: Reply, by_name: dict[str, type[T]]) -> tuple[str, object]:
    """Name and arguments from the JSON in a text: a record's values alone, or a call `{"name": …, "arguments": …}`.

    Raises MalformedReply.
    """
    values, rest = _first_object(without_thoughts(reply.text))
    if reply.cut and (values is None or rest.strip(" \t\r\n`")):  # many models write new lines or a fence to the limit
        raise MalformedReply(CUT)
    if values is None:
        raise MalformedReply("0 tools were called")
    call = values["function"] if isinstance(values.get("function"), dict) else values
    called = call.get("name", call.get("function"))
    arguments = next((key for key in ("arguments", "parameters") if key in call), None)
    if isinstance(called, str) and arguments:
        return called, _arguments(call[arguments])
    values = values[WRAPPER] if isinstance(values.get(WRAPPER), dict) else values
    [only, *others] = by_name
    return str(values.get("action", "nothing")) if others else only, values


def _first_object(text: str) -> tuple[JsonObject | None, str]:
    """The first JSON object in a text, and the text after it."""
    decoder = json.JSONDecoder()
    for start, sign in enumerate(text):
        if sign == "{":
            try:
                found, end = decoder.raw_decode(text, start)
            except (json.JSONDecodeError, RecursionError):
                continue
            return (found, text[end:]) if isinstance(found, dict) else (None, "")
    return None, ""


def _schema(record: type[BaseModel]) -> JsonObject:
    """Every field is required: a small model leaves out whatever it may, and a default then decides in its place."""
    schema = record.model_json_schema()
    kept = {key: _without_titles(value) for key, value in schema.items() if key not in ("title", "description")}
    return kept | {"required": list(schema.get("properties", ()))}


def _without_titles(schema: object) -> object:
    """Without the titles that pydantic makes from names: they cost tokens and add nothing."""
    if isinstance(schema, dict):
        return {
            key: _without_titles(value)
            for key, value in schema.items()
            if not (key == "title" and isinstance(value, str))
        }
    return [_without_titles(item) for item in schema] if isinstance(schema, list) else schema

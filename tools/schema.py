"""Records as tools and as JSON schemas for an LLM, and its answers as records."""

import json
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from agent.records import Record

T = TypeVar("T", bound=BaseModel)

WRAPPER = "choice"  # servers want an object at the root, where a choice of several is none


class Reply(Record):
    """What an LLM said: text, tool calls as (name, arguments as JSON), and whether it was cut off for its length."""

    text: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    cut: bool = False


def name_of(record: type[BaseModel]) -> str:
    """The tool's name: a move's action, else the class's own name."""
    action = record.model_fields.get("action")
    return str(action.default) if action else record.__name__


def as_tools(records: Sequence[type[BaseModel]]) -> list[dict[str, Any]]:
    """One function tool a record, in OpenAI's form."""
    functions = [{"name": name_of(one), "description": about_of(one), "parameters": _schema(one)} for one in records]
    return [{"type": "function", "function": function} for function in functions]


def as_schema(records: Sequence[type[BaseModel]]) -> dict[str, Any]:
    """One JSON schema for them all: the record's own, or a choice among several by their `action`."""
    if len(records) == 1:
        return _schema(records[0])
    choices = [{"description": about_of(one), **_schema(one)} for one in records]
    for choice in choices:
        choice["required"] = list(dict.fromkeys(["action", *choice.get("required", [])]))
    return {
        "type": "object", "properties": {WRAPPER: {"anyOf": choices}}, "required": [WRAPPER],
        "additionalProperties": False,
    }  # fmt: skip


def chosen(reply: Reply, records: Sequence[type[T]]) -> T:
    """The one record that the reply calls as a tool or, where it calls none, spells out as JSON.

    Raises:
        ValueError: none or several, or values out of bounds; says what is wrong in words for the LLM.
    """
    if reply.cut:
        raise ValueError("the answer was cut off: be shorter")
    by_name = {name_of(one): one for one in records}
    if len(reply.calls) > 1:
        raise ValueError(f"{len(reply.calls)} tools were called")
    name, arguments = _call(reply, by_name)
    if name not in by_name and isinstance(arguments, dict) and WRAPPER in arguments:
        arguments = arguments[WRAPPER]
        name = str(arguments.get("action")) if isinstance(arguments, dict) else name
    if name not in by_name:
        raise ValueError(f"there is no tool '{name}'; there are {', '.join(by_name)}")
    try:
        return by_name[name].model_validate(arguments)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ValueError(problems) from error


def _call(reply: Reply, by_name: dict[str, type[T]]) -> tuple[str, Any]:
    if reply.calls:
        name, text = reply.calls[0]
        try:
            return name, json.loads(text or "{}")
        except (json.JSONDecodeError, RecursionError):  # brackets without end, as small models write them
            raise ValueError("the tool's arguments were not JSON") from None
    spelled = _first_object(reply.text)
    if spelled is None:
        raise ValueError("0 tools were called")
    values = spelled[WRAPPER] if isinstance(spelled.get(WRAPPER), dict) else spelled
    [only, *others] = by_name
    return str(values.get("action", "nothing")) if others else only, values


def _first_object(text: str) -> dict[str, Any] | None:
    """The first JSON object in a text, whatever stands around it."""
    decoder = json.JSONDecoder()
    for place, sign in enumerate(text):
        if sign == "{":
            try:
                found, _ = decoder.raw_decode(text, place)
            except (json.JSONDecodeError, RecursionError):
                continue
            return found if isinstance(found, dict) else None
    return None


def about_of(record: type[BaseModel]) -> str:
    """What the tool is for: the record's docstring as one line."""
    return " ".join((record.__doc__ or "").split())


def _schema(record: type[BaseModel]) -> dict[str, Any]:
    schema = record.model_json_schema()
    return {key: _untitled(value) for key, value in schema.items() if key not in ("title", "description")}


def _untitled(value: Any) -> Any:
    """Without the titles that pydantic makes of names: tokens that say nothing."""
    if isinstance(value, dict):
        return {key: _untitled(one) for key, one in value.items() if not (key == "title" and isinstance(one, str))}
    return [_untitled(one) for one in value] if isinstance(value, list) else value

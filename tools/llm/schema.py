"""Records as tools and as JSON schemas for an LLM, and its answers as records."""

import json
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from agent.reasoning import without_thoughts
from agent.records.base import Record

T = TypeVar("T", bound=BaseModel)

CUT = "the answer was cut off: be shorter"
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
    return {
        "type": "object", "properties": {WRAPPER: {"anyOf": choices}}, "required": [WRAPPER],
        "additionalProperties": False,
    }  # fmt: skip


class Misshapen(ValueError):
    """An answer that chooses nothing that can be read: asked in another way, the LLM may do better."""


def chosen(reply: Reply, records: Sequence[type[T]]) -> T:
    """The one record that the reply calls as a tool or, where it calls none, spells out as JSON.

    What stands in thoughts does not count. A field that is null where it has a default counts as left out.

    Raises:
        Misshapen: none or several, or one that is not there.
        ValueError: values out of bounds. Both say what is wrong in words for the LLM.
    """
    by_name = {name_of(one): one for one in records}
    name, arguments = _called(reply) if reply.calls else _spelled(reply, by_name)
    if name not in by_name and isinstance(arguments, dict):
        arguments = arguments.get(WRAPPER, arguments)
        name = str(arguments.get("action", name)) if isinstance(arguments, dict) else name
    if name not in by_name:
        raise Misshapen(f"there is no tool '{name}'; there are {', '.join(by_name)}")
    record = by_name[name]
    if isinstance(arguments, dict):
        given = arguments.items()
        arguments = {key: value for key, value in given if value is not None or _needed(record, key)}
    try:
        return record.model_validate(arguments)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ValueError(problems) from error


def _needed(record: type[BaseModel], key: str) -> bool:
    return key not in record.model_fields or record.model_fields[key].is_required()


def _called(reply: Reply) -> tuple[str, Any]:
    """Name and arguments of the one tool call. Raises Misshapen."""
    if reply.cut:
        raise Misshapen(CUT)
    if len(reply.calls) > 1:
        raise Misshapen(f"{len(reply.calls)} tools were called")
    [(name, text)] = reply.calls
    return name, _arguments(text)


def _arguments(given: Any) -> Any:
    """Arguments as they are or, as most servers send them, as a JSON text. Raises Misshapen."""
    if not isinstance(given, str):
        return given
    try:
        return json.loads(given or "{}")
    except (json.JSONDecodeError, RecursionError):  # brackets without end, as small models write them
        raise Misshapen("the tool's arguments were not JSON") from None


def _spelled(reply: Reply, by_name: dict[str, type[T]]) -> tuple[str, Any]:
    """Name and arguments of what the text spells out: the values alone, or a call as models are trained to write it.

    Raises Misshapen.
    """
    values, rest = _first_object(without_thoughts(reply.text))
    if reply.cut and (values is None or rest.strip(" \t\r\n`")):  # many write new lines or a fence up to the limit
        raise Misshapen(CUT)
    if values is None:
        raise Misshapen("0 tools were called")
    if call := _written_call(values):
        return call[0], _arguments(call[1])
    values = values[WRAPPER] if isinstance(values.get(WRAPPER), dict) else values
    [only, *others] = by_name
    return str(values.get("action", "nothing")) if others else only, values


def _written_call(values: dict[str, Any]) -> tuple[str, Any] | None:
    """The call that a JSON object is: `{"name": …, "arguments": …}`, alone or as a `function`; None: it is none."""
    inside = values["function"] if isinstance(values.get("function"), dict) else values
    name = inside.get("name", inside.get("function"))
    given = next((key for key in ("arguments", "parameters") if key in inside), None)
    return (name, inside[given]) if isinstance(name, str) and given else None


def _first_object(text: str) -> tuple[dict[str, Any] | None, str]:
    """The first JSON object in a text, and what stands after it; whatever stands before it is passed over."""
    decoder = json.JSONDecoder()
    for place, sign in enumerate(text):
        if sign == "{":
            try:
                found, end = decoder.raw_decode(text, place)
            except (json.JSONDecodeError, RecursionError):
                continue
            return (found, text[end:]) if isinstance(found, dict) else (None, "")
    return None, ""


def about_of(record: type[BaseModel]) -> str:
    """What the tool is for: the record's docstring as one line."""
    return " ".join((record.__doc__ or "").split())


def _schema(record: type[BaseModel]) -> dict[str, Any]:
    """With every field required: a small model that may leave a field out does so, and another choice is made of it."""
    schema = record.model_json_schema()
    told = {key: _untitled(value) for key, value in schema.items() if key not in ("title", "description")}
    return told | {"required": list(schema.get("properties", ()))}


def _untitled(value: Any) -> Any:
    """Without the titles that pydantic makes of names: tokens that say nothing."""
    if isinstance(value, dict):
        return {key: _untitled(one) for key, one in value.items() if not (key == "title" and isinstance(one, str))}
    return [_untitled(one) for one in value] if isinstance(value, list) else value

"""The forms in which a request wants its answer: tools, a JSON schema beside the messages, or one in words."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.llm.server import Reply, Request

Form = dict[str, Any]
"""The JSON schemas of a form's fields, by name."""


@dataclass(frozen=True)
class Offer:
    """A form: its schema, the tool that takes it (empty: the text does), and the field that wraps it, if one does."""

    schema: dict[str, Any]
    tool: str
    wrapper: str = ""


def forms_of(request: Request) -> dict[str, Form]:
    """The fields of every form that is offered, by the tool's name or, in a choice of several, by the action."""
    return {name: offer.schema.get("properties", {}) for name, offer in _offers(request)}


def answered(request: Request, name: str, wanted: dict[str, Any]) -> Reply:
    """This form filled: with what is wanted where the form has a place for it, else with the least that fits."""
    offer = dict(_offers(request))[name]
    fields = offer.schema.get("properties", {})
    fitting = {key: value for key, value in wanted.items() if key in fields and _fits(fields[key], value)}
    needed = {key: _least(fields[key], offer.schema) for key in offer.schema.get("required", ()) if key not in fitting}
    values = needed | fitting
    whole = {offer.wrapper: values} if offer.wrapper else values
    return Reply(calls=((offer.tool, whole),)) if offer.tool else Reply(json.dumps(whole, ensure_ascii=False))


def _offers(request: Request) -> Iterator[tuple[str, Offer]]:
    root = _root(request)
    for tool, schema in request.tools.items() or ([("", root)] if root else []):
        choices = dict(_choices(schema, tool))
        yield from choices.items() or [(tool or "answer", Offer(schema, tool))]


def _choices(schema: dict[str, Any], tool: str) -> Iterator[tuple[str, Offer]]:
    """The forms of a field that takes one of several, each known by its action."""
    for wrapper, field in schema.get("properties", {}).items():
        for option in field.get("anyOf", ()):
            if "action" in option.get("properties", {}):
                yield option["properties"]["action"]["const"], Offer(option, tool, wrapper)


def _root(request: Request) -> Form:
    """The schema of the whole answer: sent beside the messages, or written in the system text."""
    place = request.system.find("JSON schema")
    start = request.system.find("{", place) if place >= 0 else -1
    try:
        schema = json.JSONDecoder().raw_decode(request.system, start)[0] if start >= 0 else {}
    except ValueError:
        schema = {}
    return request.schema or schema


def _fits(field: Form, value: Any) -> bool:
    return value in field["enum"] if "enum" in field else True


def _least(field: Form, root: Form) -> Any:
    """A value of the field's type, within its bounds."""
    if "$ref" in field:
        field = root["$defs"][field["$ref"].rsplit("/", 1)[-1]]
    for key in ("const", "default"):
        if key in field:
            return field[key]
    if "enum" in field:
        return field["enum"][0]
    if "anyOf" in field:
        return _least(field["anyOf"][0], root)
    return _plainest(field, root)


def _plainest(field: Form, root: Form) -> Any:
    match field.get("type"):
        case "integer" | "number":
            return field.get("minimum", field.get("exclusiveMinimum", -1) + 1)
        case "array":
            return [_least(field["items"], root) for _ in range(field.get("minItems", 0))]
        case "object":
            return {key: _least(field["properties"][key], root) for key in field.get("required", ())}
        case "boolean":
            return False
        case _:
            return "As it was asked for."

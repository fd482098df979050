"""The forms in which a request wants its answer: tools, a JSON schema beside the messages, or one told in words."""

import json
from typing import Any

from tests.llm_server import Reply, Request

Form = dict[str, Any]
"""The JSON schemas of a form's fields, by name."""


def forms_of(request: Request) -> dict[str, Form]:
    """The fields of every form that is offered, by the tool's name or the action it stands for."""
    return {name: schema.get("properties", {}) for name, schema in _offered(request).items()}


def answered(request: Request, name: str, wanted: dict[str, Any]) -> Reply:
    """This form filled: with what is wanted where the form has a place for it, else with the least that fits."""
    schema = _offered(request)[name]
    fields = schema.get("properties", {})
    given = {key: value for key, value in wanted.items() if key in fields and _fits(fields[key], value)}
    needed = {key: _least(fields[key], schema) for key in schema.get("required", ()) if key not in given}
    values = needed | given
    if request.tools:
        return Reply(calls=((name, values),))
    action = {"action": name} if "action" in fields else {}
    wrapper = next((key for key, field in _root(request).get("properties", {}).items() if "anyOf" in field), "")
    whole = action | values
    return Reply(json.dumps({wrapper: whole} if wrapper else whole, ensure_ascii=False))


def _offered(request: Request) -> dict[str, Form]:
    """Schemas by name; of a choice among several, each by its action."""
    if request.tools:
        return request.tools
    root = _root(request)
    choices = [one for field in root.get("properties", {}).values() for one in field.get("anyOf", ())]
    named = {one["properties"]["action"]["const"]: one for one in choices if "action" in one.get("properties", {})}
    return named or ({"answer": root} if root else {})


def _root(request: Request) -> Form:
    """The schema of the whole answer: sent beside the messages, or told in the system text."""
    place = request.system.find("JSON schema")
    start = request.system.find("{", place) if place >= 0 else -1
    try:
        told = json.JSONDecoder().raw_decode(request.system, start)[0] if start >= 0 else {}
    except ValueError:
        told = {}
    return request.schema or told


def _fits(field: Form, value: Any) -> bool:
    return value in field["enum"] if "enum" in field else True


def _least(field: Form, root: Form) -> Any:
    """A value of the field's type, within its bounds."""
    if "$ref" in field:
        field = root.get("$defs", {}).get(field["$ref"].rsplit("/", 1)[-1], {})
    for key in ("const", "default"):
        if key in field:
            return field[key]
    if "enum" in field or "anyOf" in field:
        return field["enum"][0] if "enum" in field else _least(field["anyOf"][0], root)
    simple = {
        "integer": max(0, field.get("minimum", 0)), "number": max(0.0, field.get("minimum", 0.0)), "boolean": False,
        "array": [_least(field.get("items", {}), root)] * field.get("minItems", 0), "null": None,
    }  # fmt: skip
    if field.get("type") == "object":
        return {key: _least(field["properties"][key], root) for key in field.get("required", ())}
    return simple.get(field.get("type", ""), "As it was asked for.")

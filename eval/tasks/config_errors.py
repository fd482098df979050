"""What pydantic found wrong with a task.yaml, in sentences that name the key and the way out."""

from collections.abc import Sequence
from difflib import get_close_matches
from functools import cache
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from agent import extensions
from agent.config.task import TaskConfig
from agent.registry import Registry

KeyPath = tuple[int | str, ...]

WANTED = {
    "string_type": "text (put it in quotes)",
    "string_pattern_mismatch": "text that matches {pattern}",
    "string_too_long": "at most {max_length} characters long",
    "literal_error": "one of {expected}",
    "model_attributes_type": "a section with keys of its own",
    "model_type": "a section with keys of its own",
    "dict_type": "a section with keys of its own",
    "tuple_type": "a list",
    "too_short": "a list of at least {min_length}",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "greater_than": "above {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "below {lt:g}",
    "less_than_equal": "at most {le:g}",
}


def sentences(error: ValidationError) -> dict[KeyPath, str]:
    """One sentence, without its place, for each wrong key; a value that fits no member of a union gets only one."""
    found: dict[KeyPath, str] = {}
    for fault in error.errors():
        if fault["type"] == "too_short" and fault["input"]:
            continue  # its entries are wrong, and have sentences of their own
        path, sentence = _sentence(fault)
        found.setdefault(path, sentence)
    return found


def nearest(word: str, known: Sequence[str], group: str) -> str:
    """Did you mean …? Or, where nothing is near, all that is known."""
    close = get_close_matches(word, known, n=1)
    return f"did you mean '{close[0]}'?" if close else f"{group} are {', '.join(known)}"


def _sentence(error: ErrorDetails) -> tuple[KeyPath, str]:
    path, known = _locate(error["loc"])
    name, kind, context = ".".join(map(str, path)), error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return path, f"unknown key '{path[-1]}'; {nearest(str(path[-1]), known, 'the keys here')}"
    if kind == "missing":
        return path, f"the key '{name}' is missing"
    if kind == "union_tag_not_found":
        return path, f"the key '{name}.kind' is missing; it must be one of {', '.join(known)}"
    if kind == "union_tag_invalid":
        return (*path, "kind"), f"unknown kind '{context['tag']}'; {nearest(context['tag'], known, 'the kinds')}"
    if kind == "value_error":
        return path, f"'{name}': {context['error']}" if name else str(context["error"])
    if kind in WANTED:
        return path, f"'{name}' must be {WANTED[kind].format(**context)}, but it is {_shown(error['input'])}"
    return path, f"'{name}': {error['msg']}"


def _locate(loc: KeyPath) -> tuple[KeyPath, list[str]]:
    """Pydantic's location without the steps it adds for unions; and the keys, or kinds, that are allowed there."""
    root = node = _schema()
    path, known = KeyPath(), list[str]()
    for step in loc:
        node = _resolved(node, root)
        if "discriminator" in node:
            if built_in := node["discriminator"]["mapping"].get(step):
                node = {"$ref": built_in}
            else:
                root = node = _registered_schema(path, str(step))
            continue
        if "anyOf" in node:
            break
        properties = node.get("properties", {})
        known, path = list(properties), (*path, step)
        node = node.get("items", {}) if isinstance(step, int) else properties.get(step, {})
    kinds = _resolved(node, root).get("discriminator", {}).get("mapping")
    return path, [*kinds, *_registry(path).names()] if kinds else known


@cache
def _schema() -> dict[str, Any]:
    return TaskConfig.model_json_schema()


def _registry(path: KeyPath) -> Registry[extensions.Scorer] | Registry[extensions.Style]:
    """Where the kinds of the scorers under this key are registered."""
    return extensions.scorers if path[0] == "content" else extensions.styles


def _registered_schema(path: KeyPath, kind: str) -> dict[str, Any]:
    """The JSON schema of a registered scorer's settings."""
    found = _registry(path).get(kind)
    return found.settings.model_json_schema() if found else {}


def _resolved(node: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    """The schema behind references into `root`, and behind `or null`."""
    while "$ref" in node or "anyOf" in node:
        if "$ref" in node:
            node = root["$defs"][node["$ref"].rpartition("/")[2]]
            continue
        members = [member for member in node["anyOf"] if member.get("type") != "null"]
        if len(members) > 1:
            break
        node = members[0]
    return node


def cut(text: str, most: int = 40) -> str:
    """The text in quotes, on one line, and no longer than this."""
    text = " ".join(text.split())
    return f"'{text}'" if len(text) <= most else f"'{text[:most]}…'"


def _shown(value: object, most: int = 40) -> str:
    match value:
        case None:
            return "empty"
        case bool():
            return str(value).lower()
        case dict():
            return "a section"
        case list():
            return "a list" if value else "an empty list"
        case str():
            return cut(value, most)
        case _:
            return str(value)

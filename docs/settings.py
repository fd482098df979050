"""Writes docs/settings.md: every key of a task.yaml, from the models that read it. Run: python docs/settings.py"""

import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from agent.config import llm
from agent.config.scorers import BuiltInContent, BuiltInStyle
from agent.config.task import TaskConfig
from agent.records.examples import Demo

PAGE = Path(__file__).with_name("settings.md")
HEAD = """\
# Settings of a task.yaml

Written by `python docs/settings.py` from the models that read the file; do not edit it here. Only `name`, `data` and
`content` must be given. A key that is not listed is an error, which names the nearest one. On the command line a key
can be set as `--set a.b=value` (of a list, by number: `--set style.0.text="A: "`). `nesylora init ROWS` drafts a file.
"""
NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false"}
CHOICES = (("content", BuiltInContent), ("style", BuiltInStyle))
PLURALS = {Demo: "questions with answers"}


def page() -> str:
    """The whole page."""
    parts = [HEAD, "## The file", *_table(TaskConfig, "")]
    for path, model in _sections(TaskConfig, ""):
        parts += [f"\n## `{path}`", _about(model), *_table(model, path)]
    for name, kinds in CHOICES:
        parts.append(f"\n## `{name}` scorers")
        parts.append(f"Each entry of `{name}` has a `kind`, and the keys of that kind. Others can be registered: see "
                     "[extending.md](extending.md).")  # fmt: skip
        for kind in get_args(kinds):
            [word] = get_args(kind.model_fields["kind"].annotation)
            parts += [f"\n### `kind: {word}`", _about(kind), *_table(kind, "", skip=("kind",))]
    return "\n".join(parts) + "\n"


def _sections(model: type[BaseModel], path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """The models that stand under keys, in order, with their paths."""
    for name, field in model.model_fields.items():
        inner = _model(field.annotation)
        key = f"{path}.{name}" if path else name
        if inner is llm.RoleSettings:
            continue  # the same three times; said in the table
        if inner:
            yield key, inner
            yield from _sections(inner, key)


def _table(model: type[BaseModel], path: str, skip: tuple[str, ...] = ()) -> Iterator[str]:
    rows = [(field.alias or name, field) for name, field in model.model_fields.items() if name not in skip]
    if not rows:
        return
    yield "\n| key | type | default | what |\n|---|---|---|---|"
    for name, field in rows:
        key = f"{path}.{name}" if path else name
        cells = (f"`{name}`", _kind(field), _default(field), _what(field, key))
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _kind(field: FieldInfo) -> str:
    """The type in words, with its range."""
    bounds = _bounds([*field.metadata, *_inner_metadata(field.annotation)])
    return f"{_words(field.annotation)}{f', {bounds}' if bounds else ''}"


def _words(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    if annotation in NAMES:
        return NAMES[annotation]
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin in (Union, types.UnionType):
        known = list(dict.fromkeys(_words(member) for member in inner if member is not type(None)))
        return " or ".join([*known, *(["null"] if type(None) in inner else [])])
    if origin is tuple:
        item = inner[0]
        return f"list of {PLURALS[item]}" if item in PLURALS else f"list of {_plural(_words(item))}"
    if origin is dict or annotation is dict:
        return "keys and values"
    if inner:  # Annotated
        return _words(inner[0]) if inner else str(annotation)
    return "text"


def _plural(words: str) -> str:
    return {"text": "texts", "section": "sections"}.get(words, words)


def _inner_metadata(annotation: Any) -> list[Any]:
    """The constraints inside a union or an alias."""
    found: list[Any] = []
    for member in get_args(annotation):
        info = [part for part in getattr(member, "__metadata__", ()) if isinstance(part, FieldInfo)]
        found += [constraint for part in info for constraint in part.metadata]
    return found


def _bounds(metadata: list[Any]) -> str:
    low = next((f"{_number(part.ge)}" for part in metadata if isinstance(part, Ge)), "")
    above = next((f"{_number(part.gt)}" for part in metadata if isinstance(part, Gt)), "")
    high = next((f"{_number(part.le)}" for part in metadata if isinstance(part, Le)), "")
    below = next((f"{_number(part.lt)}" for part in metadata if isinstance(part, Lt)), "")
    parts = [f"at least {low}" if low else "", f"above {above}" if above else ""]
    parts += [f"at most {high}" if high else "", f"below {below}" if below else ""]
    for part in metadata:
        if isinstance(part, MinLen):
            parts.append(f"at least {part.min_length} long")
        if isinstance(part, MaxLen):
            parts.append(f"at most {part.max_length} long")
    return ", ".join(filter(None, parts))


def _number(value: Any) -> str:
    return f"{value:g}" if abs(value) < 1e4 else f"{value:,}"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**must be given**"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "see there"
    if value is None:
        return "null"
    if value in ("", (), {}):
        return "none"
    if isinstance(value, tuple):
        return ", ".join(f"`{part}`" for part in value)
    return f"`{str(value).lower() if isinstance(value, bool) else f'{value:g}' if isinstance(value, float) else value}`"


def _what(field: FieldInfo, key: str) -> str:
    described = field.description or next(
        (part.description for member in (field.annotation, *get_args(field.annotation))
         for part in getattr(member, "__metadata__", ()) if isinstance(part, FieldInfo) and part.description), "",
    )  # fmt: skip
    inner = _model(field.annotation)
    if inner and inner is not llm.RoleSettings and not described:
        described = f"see [{key}](#{re.sub(r'[^a-z0-9_-]', '', key.lower())})"
    return described


def _about(model: type[BaseModel]) -> str:
    """The first paragraph of its docstring."""
    text = model.__doc__ or ""
    return "\n".join(line.strip() for line in text.strip().split("\n\n")[0].split("\n"))


def _model(annotation: Any) -> type[BaseModel] | None:
    """The one settings model that an annotation speaks of, if there is one. (Lists have tables of their own.)"""
    members = [annotation, *(get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else ())]
    found = [member for member in members if isinstance(member, type) and issubclass(member, BaseModel)]
    return found[0] if found else None


def undescribed() -> list[str]:
    """Keys of which the page would say nothing."""
    models = [("", TaskConfig), *_sections(TaskConfig, "")]
    models += [(f"{name} {kind.__name__}", kind) for name, kinds in CHOICES for kind in get_args(kinds)]
    return [
        f"{path}.{name}"
        for path, model in models
        for name, field in model.model_fields.items()
        if name != "kind" and not _what(field, name)
    ]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

"""What is wrong with a text that should be bare JSON."""

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from agent.errors import BadInput

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError


LOOKS_AHEAD = len(r"\ud83d\ude00")  # the most characters from where a decoder stops that it may have looked at


class Validator(Protocol):
    """What is used of a jsonschema validator."""

    def iter_errors(self, instance: object) -> "Iterator[ValidationError]": ...


def schema_validator(schema: dict[str, Any]) -> Validator:
    """A validator of JSON Schema 2020-12 that fetches nothing.

    Raises:
        BadInput: the schema is not valid, or one of its references leads nowhere inside it.
    """
    from jsonschema import Draft202012Validator, SchemaError
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    registry = Registry().with_resource("", DRAFT202012.create_resource(schema))
    try:
        Draft202012Validator.check_schema(schema)
        for reference in _references(schema):
            registry.resolver().lookup(reference)
    except SchemaError as error:
        raise BadInput(f"'schema' is not a JSON schema: {error.message} at {error.json_path}") from None
    except Unresolvable as error:
        raise BadInput(f"'schema' refers to {error.ref!r}, which is not inside it; write it out there") from None
    validator: Validator = Draft202012Validator(schema, registry=registry)
    return validator


def _references(schema: object) -> Iterator[str]:
    """Every $ref in a schema."""
    if isinstance(schema, dict) and isinstance(reference := schema.get("$ref"), str):
        yield reference
    inner = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    for part in inner:
        yield from _references(part)


def json_fault(output: str, keys: Sequence[str], validator: Validator | None) -> str:
    """What keeps the output from being bare JSON with these keys and by this schema; empty if nothing does."""
    if output.lstrip().startswith("```"):
        return "it stands in a ``` fence"
    try:
        value = json.loads(output, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        return f"it is not valid JSON ({error})" if output.strip() else "it is empty"
    return _keys_fault(value, keys) or _schema_fault(value, validator)


def json_settled(said: str) -> bool:
    """Whether `json_fault` is the same for every text that goes on from `said`: the fault lies too far back."""
    if said.lstrip().startswith("```"):
        return True
    try:
        json.loads(said, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        # Of a string without its end the decoder names the beginning; the end may follow.
        return not error.msg.startswith("Unterminated") and error.pos + LOOKS_AHEAD <= len(said)
    except (ValueError, RecursionError):
        return False
    return False


def _refuse(constant: str) -> None:
    """Python reads NaN and Infinity, which JSON does not know."""
    raise ValueError(f"{constant} is not a JSON value")


def _keys_fault(value: object, keys: Sequence[str]) -> str:
    if not keys:
        return ""
    if not isinstance(value, dict):
        return "it is JSON of another kind"
    missing = [f'"{key}"' for key in keys if key not in value]
    return f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing" if missing else ""


def _schema_fault(value: object, validator: Validator | None) -> str:
    if validator is None:
        return ""
    from jsonschema.exceptions import best_match

    error = best_match(validator.iter_errors(value))
    return f"at {error.json_path} {error.message}" if error else ""

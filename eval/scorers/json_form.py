"""What is wrong with a text that should be bare JSON."""

import json
import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from agent.errors import BadInput
from eval.scorers.patterns import Pattern

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError


FENCE = re.compile(r"\s*```\w*\n(.*?)\n?```\s*", re.DOTALL)
STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
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
    from jsonschema.validators import extend
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    registry = Registry().with_resource("", DRAFT202012.create_resource(schema))
    try:
        Draft202012Validator.check_schema(schema)
        for reference in _texts_under("$ref", schema):
            registry.resolver().lookup(reference)
        for pattern in _texts_under("pattern", schema):
            _compiled(pattern)
        for _ in _under("patternProperties", schema):  # jsonschema searches these names by `re`, without a limit
            raise BadInput("'schema' uses patternProperties, which has no time limit; name the properties instead")
    except SchemaError as error:
        raise BadInput(f"'schema' is not a JSON schema: {error.message} at {error.json_path}") from None
    except Unresolvable as error:
        raise BadInput(f"'schema' refers to {error.ref!r}, which is not inside it; write it out there") from None
    validator: Validator = extend(Draft202012Validator, {"pattern": _pattern})(schema, registry=registry)
    return validator


def _pattern(validator: object, pattern: str, instance: object, schema: object) -> "Iterator[ValidationError]":
    """JSON Schema's `pattern`, with the time limit that all regular expressions have here. Raises TooSlow."""
    from jsonschema.exceptions import ValidationError

    if isinstance(instance, str) and not _compiled(pattern).matches(instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


@cache
def _compiled(pattern: str) -> Pattern:
    return Pattern(pattern, "schema")


def _texts_under(key: str, schema: object) -> Iterator[str]:
    """Every text under this key in a schema."""
    return (value for value in _under(key, schema) if isinstance(value, str))


def _under(key: str, schema: object) -> Iterator[object]:
    """Every value under this key in a schema, at any depth."""
    if isinstance(schema, dict) and key in schema:
        yield schema[key]
    inner = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    for part in inner:
        yield from _under(key, part)


def json_fault(output: str, keys: Sequence[str], validator: Validator | None) -> str:
    """What keeps the output from being bare JSON with these keys and by this schema; empty if nothing does."""
    if output.lstrip().startswith("```"):
        return "it stands in a ``` fence"
    try:
        value = json.loads(output, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        return f"it is not valid JSON ({error})" if output.strip() else "it is empty"
    if keys and not isinstance(value, dict):
        return "it is JSON of another kind"
    if missing := [f'"{key}"' for key in keys if key not in value]:
        return f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
    if validator is None:
        return ""
    from jsonschema.exceptions import best_match

    try:
        fault = best_match(validator.iter_errors(value))
    except RecursionError:
        return "the schema refers to itself without end, or the JSON is nested too deeply for it"
    return f"at {fault.json_path} {fault.message}" if fault else ""


def put_into(template: str, answer: str) -> str:
    """The JSON template with {answer} replaced by the answer: escaped within a string, unchanged elsewhere."""
    parts, shown = template.split("{answer}"), ""
    for part in parts[:-1]:
        shown += part
        inside = len(re.sub(r"\\\\.", "", shown).split('"')) % 2 == 0
        shown += json.dumps(answer, ensure_ascii=False)[1:-1] if inside else answer
    return shown + parts[-1]


def json_value(text: str, fenced: bool = False) -> object:
    """What the text says as JSON; None where it is not (or says null).

    Args:
        fenced: also read the inside of a ``` fence.
    """
    inside = FENCE.fullmatch(text) if fenced else None
    try:
        return json.loads(inside[1] if inside else text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None


def same_json(left: object, right: object) -> bool:
    """Whether two JSON values are the same, the order of keys, and case and outer white space of text aside."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same_json(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same_json, left, right))
    if isinstance(left, str) and isinstance(right, str):
        return left.strip().casefold() == right.strip().casefold()
    return left == right and isinstance(left, bool) == isinstance(right, bool)  # to Python, True is 1


def unescaped(text: str) -> str:
    """A JSON text with the escapes in its strings undone, for comparing what they say; any other text as it is."""
    if "\\" not in text or json_value(text, fenced=True) is None:
        return text
    return STRING.sub(lambda string: f'"{json.loads(string[0], strict=False)}"', text)


def json_fault_is_final(beginning: str) -> bool:
    """Whether `json_fault` is the same for every output with this beginning: the fault lies too far back."""
    if beginning.lstrip().startswith("```"):
        return True
    try:
        json.loads(beginning, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        # Of a string without its end the decoder names the beginning; the end may follow.
        return not error.msg.startswith("Unterminated") and error.pos + LOOKS_AHEAD <= len(beginning)
    except (ValueError, RecursionError):
        return False
    return False


def _refuse(constant: str) -> None:
    """Python reads NaN and Infinity, which JSON does not know."""
    raise ValueError(f"{constant} is not a JSON value")

"""The text in one cell of a row."""

import json
import math
from collections.abc import Mapping


class RowError(ValueError):
    """Why one row is no example."""


class Written(float):
    """A number of a JSON file that is still written as it was there: 1.50, 1e5."""

    text: str

    def __new__(cls, text: str) -> "Written":
        number = super().__new__(cls, text)
        number.text = text
        return number

    def __str__(self) -> str:
        return self.text


def cell_text(values: Mapping[str, object], column: str) -> str:
    """The value as text, untouched if it is text. Raises RowError where there is none."""
    value = values.get(column)
    if is_empty(value):
        raise RowError(f"'{column}' is {'null' if column in values else 'missing'}")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict | list | bytes):
        raise RowError(f"'{column}' must be text or a number, but it is a {type(value).__name__}")
    if not (text := str(value)).strip():
        raise RowError(f"'{column}' is empty")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise RowError(f"'{column}' holds half a character (a lone surrogate), which no file can store")
    return text


def answer_text(values: Mapping[str, object], column: str) -> str:
    """As `cell_text`; an object is its JSON, for scorers that compare it key by key."""
    value = values.get(column)
    if not isinstance(value, dict):
        return cell_text(values, column)
    return cell_text({column: json.dumps(value, ensure_ascii=False, default=str)}, column)


def is_empty(value: object) -> bool:
    """Whether a table has nothing in this place."""
    return value is None or (isinstance(value, float) and math.isnan(value))

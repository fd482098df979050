"""From raw rows to examples: columns or chat messages, with a reason for every row that cannot be used."""

import math
from collections.abc import Mapping
from typing import Literal

from agent.config import Data
from agent.errors import BadInput
from agent.records import Example, Turn
from eval.complaints import nearest
from eval.sources import RawRow, Table

MOST_LISTED = 20


class RowError(ValueError):
    """Why one row is no example."""


def read_examples(table: Table, data: Data, split: str) -> tuple[list[Example], str]:
    """The table's examples, named `split:number`, and a warning about rows left out (empty if none were).

    Raises:
        BadInput: no rows; a column that no row has; rows that cannot be used, unless `data.skip_invalid` leaves them
            out and they are at most half.
    """
    if not table.rows:
        raise BadInput(f"{table.place}: no rows for the {split} split; add some or name another file")
    _check_columns(table, data)
    examples, faults = [], []
    for row in table.rows:
        try:
            examples.append(_example(row, data, split))
        except RowError as fault:
            faults.append(f"{table.place}, {table.unit} {row.number}: {fault}")
    return examples, _judge_faults(faults, table, data.skip_invalid)


def _judge_faults(faults: list[str], table: Table, skip: bool) -> str:
    """The warning about rows left out. Raises BadInput where they may not be."""
    if not faults:
        return ""
    count = f"{len(faults)} of {len(table.rows)} rows cannot be used"
    if skip and 2 * len(faults) <= len(table.rows):
        return f"{table.place}: {count} and were left out; the first: {faults[0]}"
    more = [f"... and {len(faults) - MOST_LISTED} more"] if len(faults) > MOST_LISTED else []
    way_out = (
        f"{table.place}: {count}, more than half: too many to leave out"
        if skip
        else f"{table.place}: {count}; mend them, or set data.skip_invalid: true to leave them out"
    )
    raise BadInput("\n".join([*faults[:MOST_LISTED], *more, way_out]))


def _check_columns(table: Table, data: Data) -> None:
    """Raises BadInput for a wanted column that no row has. (Rows that lack it one by one are faults of those rows.)"""
    columns = list(dict.fromkeys(name for row in table.rows if row.values for name in row.values))
    wanted = {"messages": data.messages} if data.messages else {"question": data.question, "answer": data.answer}
    for key, column in wanted.items():
        if columns and column not in columns:
            hint = nearest(column, columns, "the columns there")
            raise BadInput(f"{table.place}: no column '{column}'; {hint} (name it as data.{key})")


def _example(row: RawRow, data: Data, split: str) -> Example:
    if row.values is None:
        raise RowError(row.problem)
    name = f"{split}:{row.number}"
    if not data.messages:
        question, answer = (_text(row.values, column) for column in (data.question, data.answer))
        return Example(name=name, question=question, answer=answer)
    *turns, question_turn, answer_turn = _turns(row.values.get(data.messages), data.messages)
    return Example(name=name, question=question_turn.content, answer=answer_turn.content, turns=tuple(turns))


def _text(values: Mapping[str, object], column: str) -> str:
    """The value as text, untouched if it is text. Raises RowError where there is none."""
    value = values.get(column)
    if value is None or (isinstance(value, float) and math.isnan(value)):
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


def _turns(messages: object, column: str) -> list[Turn]:
    """The messages as turns that alternate from user to assistant. Raises RowError."""
    if not isinstance(messages, list) or not messages:
        raise RowError(f"'{column}' must be a list of turns such as {{role: user, content: ...}}")
    turns = [_turn(message, number) for number, message in enumerate(messages, start=1)]
    for number, turn in enumerate(turns, start=1):
        due = "user" if number % 2 else "assistant"
        if turn.role != due:
            raise RowError(f"turn {number} is the {turn.role}'s, but user and assistant must alternate, the user first")
    if turns[-1].role == "user":
        raise RowError("the last turn is the user's; it must be the assistant's, which is the answer")
    return turns


def _turn(message: object, number: int) -> Turn:
    if not isinstance(message, dict):
        raise RowError(f"turn {number} must have a role and a content")
    role = _role(message.get("role"), number)
    try:
        return Turn(role=role, content=_text(message, "content"))
    except RowError as fault:
        raise RowError(f"turn {number}: {fault}") from None


def _role(role: object, number: int) -> Literal["user", "assistant"]:
    match role:
        case "user" | "assistant":
            return role
        case "system":
            raise RowError(f"turn {number} is a system message; put its text in prompt.system, where it can be edited")
    raise RowError(f"turn {number} has the role {role!r}; it must be user or assistant")

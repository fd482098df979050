"""Rows whose cells are lists, as data sets on the hub have them, made into plain questions and answers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from eval.tasks.sources import RawRow, Table

OPTIONS = ("choices", "options")
LETTERS = "ABCDEFGHIJ"

Values = Mapping[str, object]


def flattened(table: Table, question: str, answer: str) -> tuple[Table, dict[str, str], str]:
    """The table with options in the question and their letter as answer (MMLU, ARC), or the first answer (SQuAD).

    Returns:
        It, the column of options, and what was made in words; both empty where nothing was.
    """
    rows = [row.values for row in table.rows if row.values]
    options = next(
        (name for name in OPTIONS if name not in (question, answer) and all(map(_texts, _of(rows, name)))), ""
    )
    if options:
        made = [_with_options(row, question, answer, options) for row in table.rows]
        if all(row.values is None or row.values.get(answer) for row in made):
            return replace(table, rows=tuple(made)), {"options": options}, "options as (A), (B) … in the question"
    if all(isinstance(cell, dict) and _texts(cell) for cell in _of(rows, answer)):
        first = [_changed(row, {answer: _texts(row.values[answer])[0]}) if row.values else row for row in table.rows]
        return replace(table, rows=tuple(first)), {}, f"the first of the {answer}"
    return table, {}, ""


def _of(rows: Sequence[Values], column: str) -> list[object]:
    return [row.get(column) for row in rows]


def _texts(cell: object) -> list[str]:
    """The texts in a list, or in ARC's and SQuAD's {text: […]}; empty where there are none."""
    inner = cell.get("text") if isinstance(cell, dict) else cell
    return [str(text) for text in inner] if isinstance(inner, list) and len(inner) > 0 else []


def _with_options(row: RawRow, question: str, answer: str, options: str) -> RawRow:
    """With the letter of the right option, if that can be told: by its index, its letter, its label or its text."""
    if row.values is None:
        return row
    cell, right = row.values[options], row.values.get(answer)
    texts = _texts(cell)
    labels = cell.get("label") if isinstance(cell, dict) else None
    known: list[object] = [*range(len(texts))]
    ways: list[Sequence[object]] = [
        known,
        list(LETTERS),
        labels if isinstance(labels, list) else [],
        [str(place) for place in known],
        texts,
    ]
    place = next((way.index(right) for way in ways if right in way), None)
    listed = "\n".join(f"({letter}) {text}" for letter, text in zip(LETTERS, texts, strict=False))
    letter = f"({LETTERS[place]})" if place is not None and place < min(len(texts), len(LETTERS)) else ""
    return _changed(row, {question: f"{row.values.get(question)}\n{listed}", answer: letter})


def _changed(row: RawRow, values: Mapping[str, object]) -> RawRow:
    return replace(row, values={**(row.values or {}), **values})

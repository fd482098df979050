"""From raw rows to examples: columns or chat messages, with a reason for every row that cannot be used."""

from collections.abc import Mapping
from typing import NamedTuple

from agent.config.data import Data
from agent.errors import BadInput
from agent.records.examples import Example
from eval.tasks.cells import RowError, answer_text, cell_text, is_empty
from eval.tasks.chats import read_chat
from eval.tasks.config_errors import nearest
from eval.tasks.sources import RawRow, Table

MOST_LISTED = 20
MOST_NUMBERED = 5  # rows with one and the same fault that are named


class Read(NamedTuple):
    """The examples of a table, and warnings: sentences on rows that were left out, or whose text was changed."""

    examples: tuple[Example, ...]
    warnings: tuple[str, ...]


def read_examples(table: Table, data: Data, split: str) -> Read:
    """The table's examples, named `split:number`.

    Raises:
        BadInput: no rows; a column that no row has; rows that cannot be used, unless `data.skip_invalid` leaves them
            out and they are at most half.
    """
    if not table.rows:
        raise BadInput(f"{table.place}: no rows for the {split} split; add some or name another file")
    columns = list(dict.fromkeys(name for row in table.rows if row.values for name in row.values))
    _check_columns(table, data, columns)
    input = _input(data, columns)
    examples, tools = [], []
    faults: dict[str, list[int]] = {}
    for row in table.rows:
        try:
            example, has_tools = _example(row, data, input, split)
        except RowError as fault:
            faults.setdefault(str(fault), []).append(row.number)
        else:
            examples.append(example)
            tools += [row.number] if has_tools else []
    warnings = [_judge_faults(faults, table, data.skip_invalid)] if faults else []
    if tools:
        warnings.append(
            f"{table.place}: {len(tools)} of {len(table.rows)} rows have calls of tools before their answer "
            f"(the first is {table.unit} {tools[0]}); they and their results are told to the model as text"
        )
    return Read(tuple(examples), tuple(warnings))


def _judge_faults(faults: Mapping[str, list[int]], table: Table, skip: bool) -> str:
    """The warning about rows left out. Raises BadInput where they may not be."""
    listed = [f"{table.place}, {_numbered(table.unit, numbers)}: {fault}" for fault, numbers in faults.items()]
    bad = sum(map(len, faults.values()))
    count = f"{bad} of {len(table.rows)} rows cannot be used"
    if skip and 2 * bad <= len(table.rows):
        return f"{table.place}: {count} and were left out; the first: {listed[0]}"
    rest = [f"... and {len(listed) - MOST_LISTED} more"] if len(listed) > MOST_LISTED else []
    way_out = (
        f"{table.place}: {count}, more than half: too many to leave out"
        if skip
        else f"{table.place}: {count}; mend them, or set data.skip_invalid: true to leave them out"
    )
    raise BadInput("\n".join([*listed[:MOST_LISTED], *rest, way_out]))


def _numbered(unit: str, numbers: list[int]) -> str:
    if len(numbers) == 1:
        return f"{unit} {numbers[0]}"
    rest = f" and {len(numbers) - MOST_NUMBERED} more" if len(numbers) > MOST_NUMBERED else ""
    return f"{unit}s {', '.join(map(str, numbers[:MOST_NUMBERED]))}{rest}"


def _check_columns(table: Table, data: Data, columns: list[str]) -> None:
    """Raises BadInput for a wanted column that no row has. (Rows that lack it one by one are faults of those rows.)"""
    wanted = {"messages": data.messages} if data.messages else {"question": data.question, "answer": data.answer}
    if data.input and not data.messages:
        wanted["input"] = data.input
    for key, column in wanted.items():
        if columns and column not in columns:
            hint = nearest(str(column), columns, "the columns there")
            raise BadInput(f"{table.place}: no column '{column}'; {hint} (name it as data.{key})")


def _input(data: Data, columns: list[str]) -> str | None:
    """The column that goes on from the question: as in Alpaca's rows, `input` behind `instruction`."""
    if data.input is None and data.question == "instruction" and "input" in columns and data.answer != "input":
        return "input"
    return data.input or None


def _example(row: RawRow, data: Data, input: str | None, split: str) -> tuple[Example, bool]:
    """The example, and whether its conversation has calls of tools."""
    if row.values is None:
        raise RowError(row.problem)
    name = f"{split}:{row.number}"
    if data.messages:
        chat = read_chat(row.values.get(data.messages), data.messages)
        example = Example(name=name, question=chat.question, answer=chat.answer, turns=chat.turns, system=chat.system)
        return example, chat.tools
    question, answer = cell_text(row.values, data.question), answer_text(row.values, data.answer)
    if input and not is_empty(cell := row.values.get(input)) and str(cell).strip():
        question = f"{question}\n{cell_text(row.values, input)}"
    return Example(name=name, question=question, answer=answer), False

"""Which columns of a file are asked and answered, proposed from their names and from what stands in them."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import NamedTuple

from agent.config.data import Data
from agent.errors import BadInput
from agent.records.base import folded
from eval.drafts.records import DraftOptions
from eval.drafts.shapes import flattened
from eval.tasks.cells import is_empty
from eval.tasks.config_errors import nearest
from eval.tasks.sources import RawRow, Table

ASKED = (
    "question", "prompt", "instruction", "query", "input", "user", "text", "sentence", "ticket", "message", "content",
    "problem", "request", "source", "review", "title", "subject", "document", "article", "passage", "context",
)  # fmt: skip
ANSWERED = (
    "answer", "output", "response", "completion", "label", "target", "chosen", "solution", "reply", "assistant",
    "expected", "category", "class", "intent", "reference", "result", "summary", "translation", "gold", "routing",
)  # fmt: skip
GOES_ON = ("input", "context", "passage", "body", "document", "text")
SPEAKERS = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant",
    "model": "assistant", "bing": "assistant", "bard": "assistant", "system": "system", "observation": "tool",
    "tool": "tool", "function_call": "assistant",
}  # fmt: skip
DATE = re.compile(r"(?i)date|time|_at$|^year$")
FEW = 10  # different values of a column that look like labels
LOOKED_AT = 500  # rows whose cells are looked at

Values = Mapping[str, object]


class Reading(NamedTuple):
    """How a file is read: its table (chats as OpenAI has them), the columns, and what kind of file that is.

    `system`: an instruction that all rows share, taken out of them. `sure`: the columns' names say what they are.
    """

    table: Table
    data: Data
    format: str
    columns: dict[str, str]
    system: str = ""
    sure: bool = True


def read_columns(table: Table, options: DraftOptions) -> Reading:
    """Find question and answer, or the chats.

    Raises:
        BadInput: a column that the user names is not there, or nothing can be told apart.
    """
    rows = [row.values for row in table.rows if row.values]
    names = list(dict.fromkeys(name for row in rows for name in row))
    for wanted in filter(None, (options.question, options.answer, options.input, options.messages)):
        if wanted not in names:
            raise BadInput(f"{table.place}: no column '{wanted}'; {nearest(wanted, names, 'the columns there')}")
    if not options.question and (chats := _chats(table, rows, names, options)):
        return chats
    question, answer, sure = _pair(table, rows, names, options)
    input = options.input
    if input is None:
        input = next((name for name in GOES_ON if name in names and name not in (question, answer)), "")
    table, options_column, made = flattened(table, question, answer)
    asked = {column: [row.get(column) for row in rows] for column in (question, input) if column}
    shared = {folded(str(cell)) for cell in asked[question]}
    if input and len(shared) == 1 and len(rows) > 1 and not any(map(is_empty, asked[input])):
        # One instruction for all: as the system text, it can be rewritten.
        data, columns = _data(input, answer, ""), {"question": input, "answer": answer, "system": question}
        return Reading(table, data, "Alpaca rows", columns, system=str(asked[question][0]), sure=sure)
    columns = {"question": question, **options_column, **({"input": input} if input else {}), "answer": answer}
    kind = "Alpaca rows" if (question, answer) == ("instruction", "output") else f"columns{made and f', {made}'}"
    return Reading(table, _data(question, answer, input), kind, columns, sure=sure)


def _data(question: str, answer: str, input: str) -> Data:
    return Data(path="rows", question=question, answer=answer, input=input, skip_invalid=True)


def _pair(table: Table, rows: Sequence[Values], names: list[str], options: DraftOptions) -> tuple[str, str, bool]:
    """The columns of question and answer, and whether their names say so."""
    texts = [name for name in names if _is_text(row.get(name) for row in rows[:LOOKED_AT])]
    answer = options.answer or _named(ANSWERED, [name for name in texts if name != options.question])
    question = options.question or _named(ASKED, [name for name in texts if name != answer])
    if question and answer:
        return question, answer, True
    left = [name for name in texts if name not in (question, answer) and not _is_idle(name, rows)]
    if not question and left:
        question = max(left, key=lambda name: fmean(len(str(row.get(name) or "")) for row in rows[:LOOKED_AT]))
        left.remove(question)
    answer = answer or _likeliest_answer(left, rows)
    if not question or not answer:
        columns = ", ".join(names) or "there are none"
        raise BadInput(
            f"{table.place}: which columns are question and answer cannot be told ({columns}); a column of text for "
            "each is needed. Name them: --question COLUMN --answer COLUMN (or --messages COLUMN for chats)"
        )
    return question, answer, False


def _likeliest_answer(names: Sequence[str], rows: Sequence[Values]) -> str:
    """Of columns whose names say nothing: labels, or else the last one; "" without any."""
    different = {name: len({str(row.get(name)) for row in rows}) for name in names if not DATE.search(name)}
    labels = [name for name, count in different.items() if count <= FEW and 3 * count <= len(rows)]
    return min(labels, key=different.__getitem__) if labels else next(reversed(different), "")


def _named(known: Sequence[str], names: Sequence[str]) -> str:
    """The column with the first of the known names, whole or as one of the words of its name; "" without."""
    words = {name: name.casefold().replace("-", "_").replace(" ", "_") for name in names}
    for wanted in known:
        for name, written in words.items():
            if written in (wanted, wanted + "s"):
                return name
    for wanted in known:
        for name, written in words.items():
            if wanted in written.split("_") and "id" not in written.split("_"):
                return name
    return ""


def _is_text(cells: Iterable[object]) -> bool:
    """Whether a column may be asked or answered: it holds something, and neither lists nor bytes."""
    there = [cell for cell in cells if not is_empty(cell) and str(cell).strip()]
    return bool(there) and not any(isinstance(cell, list | bytes) for cell in there)


def _is_idle(name: str, rows: Sequence[Values]) -> bool:
    """Whether a column says nothing of its rows: one value for all, a running number, or an id by its name."""
    cells = [str(row.get(name)) for row in rows]
    different = len(set(cells))
    numbered = all(cell.isdecimal() for cell in cells) and different == len(cells)
    return different == 1 or numbered or name.casefold() in ("id", "uuid", "index", "row", "key")


# --- chats -----------------------------------------------------------------------------------------


def _chats(table: Table, rows: Sequence[Values], names: list[str], options: DraftOptions) -> Reading | None:
    """How the file's chats are read; None where it has none."""
    first = rows[:LOOKED_AT]
    for name in [options.messages] if options.messages else names:
        speakers = [_keys(row.get(name)) for row in first]
        if any({"role", "content"} <= keys or {"role", "tool_calls"} <= keys for keys in speakers):
            if name == "prompt" and any("role" in _keys(row.get("completion")) for row in first):
                parts = _rewritten(table, lambda row: [*_turns(row["prompt"]), *_turns(row["completion"])])
                columns = {"messages": "prompt and completion"}
                return Reading(parts, _chat_data("messages"), "chats of prompt and completion", columns)
            return Reading(table, _chat_data(name), "OpenAI chats", {"messages": name})
        if any({"from", "value"} <= keys for keys in speakers):
            spoken = _rewritten(table, lambda row, name=name: _sharegpt(row, name))  # type: ignore[misc]
            return Reading(spoken, _chat_data("messages"), "ShareGPT chats", {"messages": name})
    if options.messages:
        raise BadInput(f"{table.place}: '{options.messages}' holds no chats: turns with a role and a content")
    return None


def _chat_data(column: str) -> Data:
    return Data(path="rows", messages=column, skip_invalid=True)


def _keys(cell: object) -> set[str]:
    """The keys of the turns in a cell."""
    return {str(key) for turn in _turns(cell) if isinstance(turn, dict) for key in turn}


def _turns(cell: object) -> list[object]:
    return cell if isinstance(cell, list) else []


def _rewritten(table: Table, messages: Callable[[Values], list[object]]) -> Table:
    rows = [row if row.values is None else RawRow(row.number, {"messages": messages(row.values)}) for row in table.rows]
    return replace(table, rows=tuple(rows))


def _sharegpt(row: Values, column: str) -> list[object]:
    """ShareGPT's turns in OpenAI's words, up to the last of the assistant's. Unknown speakers stay, and are faults."""
    turns = [turn if isinstance(turn, dict) else {} for turn in _turns(row.get(column))]
    messages = [
        {"role": SPEAKERS.get(str(turn.get("from")), turn.get("from")), "content": turn.get("value")} for turn in turns
    ]
    while messages and messages[-1]["role"] == "user":  # conversations that were cut off
        messages.pop()
    system = row.get("system")
    if isinstance(system, str) and system.strip() and messages and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system})
    return list(messages)

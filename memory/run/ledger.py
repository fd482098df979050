"""ledger.jsonl: one typed row a line, each written once, never changed."""

import json
from pathlib import Path

from agent.errors import BadInput
from agent.records.rounds import Baseline, Outcome, Round
from memory.storage.disk import append_line, whole_lines

Row = Baseline | Round | Outcome
TYPES: dict[str, type[Row]] = {"baseline": Baseline, "round": Round, "outcome": Outcome}


class RowFile:
    """The rows of one run, kept parsed for as long as the file's size is the one that was read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._size = 0
        self._rows: list[Row] = []

    def append(self, row: Row) -> None:
        """Writes the row and waits for the disk. A row of the same kind and number that is there already stays."""
        rows = self.read()
        if any(_key(row) == _key(known) for known in rows):
            return
        fields = {"kind": _kind(row), **row.model_dump(mode="json")}
        append_line(self.path, json.dumps(fields, ensure_ascii=False), sync=True)
        rows.append(row)
        self._size = self.path.stat().st_size

    def read(self) -> list[Row]:
        """All rows in the order written. A last line without its newline was cut off by a kill and does not count.

        Raises:
            BadInput: a whole line is not a row; names file and line.
        """
        size = self.path.stat().st_size if self.path.exists() else 0
        if size != self._size:
            lines = whole_lines(self.path)
            self._rows = [_parsed(line, f"{self.path}, line {number}") for number, line in enumerate(lines, 1)]
            self._size = size
        return self._rows


def _kind(row: Row) -> str:
    return type(row).__name__.lower()


def _key(row: Row) -> tuple[str, int]:
    return _kind(row), 0 if isinstance(row, Outcome) else row.number


def _parsed(line: bytes, place: str) -> Row:
    try:
        fields = json.loads(line)
        return TYPES[fields.pop("kind")].model_validate(fields)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise BadInput(
            f"{place}: not a row of a ledger ({error}). Take the line out, or put the file back from a copy."
        ) from error

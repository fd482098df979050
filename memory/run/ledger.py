"""ledger.jsonl: one typed row a line, each written once, never changed."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from agent.errors import BadInput
from agent.records.rounds import Baseline, Outcome, Round
from memory.storage.damage import set_aside
from memory.storage.disk import append_line, whole_lines, write_atomically

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

    def mend(self, known: Iterable[Row]) -> str:
        """Restores damaged lines from rows that are known from elsewhere; the last one is cut off if it is not.

        Returns:
            What was done, in a sentence; "" where no line is damaged, or one in the middle that nothing can restore.
        """
        found, damaged = list[Row](), list[int]()
        for number, line in enumerate(whole_lines(self.path), 1):
            try:
                found.append(_parsed(line, ""))
            except BadInput:
                if _is_json(line):
                    return ""  # of another version
                damaged.append(number)
        if not damaged:
            return ""
        rows = _in_order({_key(row): row for row in (*found, *known)})
        if len(rows) < len({_key(row) for row in found}):
            return ""
        said = set_aside(self.path, self.path.parent)
        lines = (json.dumps({"kind": _kind(row), **row.model_dump(mode="json")}, ensure_ascii=False) for row in rows)
        write_atomically(self.path, "".join(f"{line}\n" for line in lines))
        self._size = -1
        restored = [_name(row) for row in rows if _key(row) not in set(map(_key, found))]
        if restored:
            return f"{said}. Restored from the run's events: {', '.join(restored)}."
        return f"{said}. The run goes on after {_name(rows[-1]) if rows else 'nothing'}, what comes before the damage."

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


def _name(row: Row) -> str:
    return f"round {row.number}" if isinstance(row, Round) else f"the {_kind(row)}"


def _in_order(rows: Mapping[tuple[str, int], Row]) -> list[Row]:
    """Baseline, rounds, outcome, as far as none is missing."""
    found = list[Row]()
    for key in (("baseline", 0), *(("round", number) for number in range(1, len(rows) + 1))):
        if key not in rows:
            break
        found.append(rows[key])
    rounds = sum(kind == "round" for kind, _ in rows)
    return [*found, rows["outcome", 0]] if ("outcome", 0) in rows and len(found) == rounds + 1 else found


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _parsed(line: bytes, place: str) -> Row:
    try:
        fields = json.loads(line)
        return TYPES[fields.pop("kind")].model_validate(fields)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise BadInput(
            f"{place}: not a row of a ledger ({error}). Take the line out, or put the file back from a copy."
        ) from error

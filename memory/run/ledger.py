"""ledger.jsonl: one typed row a line, each written once, never changed."""

import json
from collections.abc import Sequence
from pathlib import Path
from threading import RLock

from agent.errors import BadInput
from agent.records.limits import Extension, Limits
from agent.records.rounds import Baseline, Outcome, Round
from memory.storage.damage import set_aside
from memory.storage.disk import append_line, whole_lines, write_atomically

Row = Baseline | Round | Outcome | Extension
TYPES: dict[str, type[Row]] = {"baseline": Baseline, "round": Round, "outcome": Outcome, "extension": Extension}


class RowFile:
    """The rows of one run, kept parsed for as long as the file's size is the one that was read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._size = 0
        self._rows: list[Row] = []
        self._lock = RLock()  # a run works in one thread, and a user extends it from another

    def append(self, row: Row) -> None:
        """Writes the row and waits for the disk. A row of the same kind and number that is there already stays.

        So does the outcome of a run that has not been opened again since.
        """
        with self._lock:
            rows = self.read()
            known = outcome_of(rows) is not None if isinstance(row, Outcome) else _key(row) in map(_key, rows)
            if not known:
                self._write(row)

    def extend(self, limits: Limits) -> Extension:
        """Writes that these limits hold from now on. A run that has ended is opened again by it."""
        with self._lock:
            rows = self.read()
            number = 1 + sum(isinstance(row, Extension) for row in rows)
            row = Extension(number=number, limits=limits, reopened=outcome_of(rows) is not None)
            self._write(row)
            return row

    def _write(self, row: Row) -> None:
        fields = {"kind": _kind(row), **row.model_dump(mode="json")}
        append_line(self.path, json.dumps(fields, ensure_ascii=False), sync=True)
        self._rows = [*self._rows, row]  # another thread may be reading the old list
        self._size = self.path.stat().st_size

    def mend(self, known: Sequence[Row]) -> str:
        """Restores damaged lines from rows that are known from elsewhere; the last one is cut off if it is not.

        Args:
            known: in the order in which they were written here.

        Returns:
            What was done, in a sentence; "" where no line is damaged, or one in the middle that nothing can restore.
        """
        lines = whole_lines(self.path)
        places = list[Row | None]()
        for line in lines:
            try:
                places.append(_parsed(line, ""))
            except BadInput:
                if _is_json(line):
                    return ""  # of another version
                places.append(None)
        if all(places):
            return ""
        restored = _restored(places, known)
        rows = [row for row in restored if row]
        if None in restored[: len(rows)] or not _is_sound(rows):
            return ""
        said = set_aside(self.path, self.path.parent)
        texts = (json.dumps({"kind": _kind(row), **row.model_dump(mode="json")}, ensure_ascii=False) for row in rows)
        write_atomically(self.path, "".join(f"{text}\n" for text in texts))
        self._size = -1
        names = ", ".join(_name(row) for row, before in zip(restored, places, strict=True) if row and before is None)
        if names:
            return f"{said}. Restored from the run's events: {names}."
        return f"{said}. The run goes on after {_name(rows[-1]) if rows else 'nothing'}, what comes before the damage."

    def read(self) -> list[Row]:
        """All rows in the order written. A last line without its newline was cut off by a kill and does not count.

        Raises:
            BadInput: a whole line is not a row; names file and line.
        """
        with self._lock:
            size = self.path.stat().st_size if self.path.exists() else 0
            if size != self._size:
                lines = whole_lines(self.path)
                self._rows = [_parsed(line, f"{self.path}, line {number}") for number, line in enumerate(lines, 1)]
                self._size = size
            return self._rows


def outcome_of(rows: Sequence[Row]) -> Outcome | None:
    """The outcome that stands: the last one, unless the run was opened again after it."""
    last = next((row for row in reversed(rows) if isinstance(row, Outcome) or _reopens(row)), None)
    return last if isinstance(last, Outcome) else None


def _reopens(row: Row) -> bool:
    return isinstance(row, Extension) and row.reopened


def _kind(row: Row) -> str:
    return type(row).__name__.lower()


def _key(row: Row) -> tuple[str, int]:
    return _kind(row), 0 if isinstance(row, Outcome) else row.number


def _name(row: Row) -> str:
    return f"round {row.number}" if isinstance(row, Round) else f"the {_kind(row)}"


def _restored(places: Sequence[Row | None], known: Sequence[Row]) -> list[Row | None]:
    """The rows at their places; where one is damaged (None), the next of the known rows that no place has."""
    lost = iter([row for place, row in enumerate(known) if row not in places and row not in known[:place]])
    return [row or next(lost, None) for row in places]


def _is_sound(rows: Sequence[Row]) -> bool:
    """Whether these can be the beginning of a ledger: no row is missing among them."""
    rounds = [row.number for row in rows if isinstance(row, Round)]
    extensions = [row.number for row in rows if isinstance(row, Extension)]
    counted = all(numbers == list(range(1, len(numbers) + 1)) for numbers in (rounds, extensions))
    return counted and all(isinstance(row, Baseline) == (place == 0) for place, row in enumerate(rows))


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

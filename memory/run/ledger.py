"""ledger.jsonl: one typed row a line, each written once, never changed."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from threading import RLock
from typing import Literal, TypeVar

from agent.errors import BadInput
from agent.records.base import Record
from agent.records.limits import Extension, Limits
from agent.records.rounds import Baseline, Outcome, Round
from memory.storage.damage import copy_aside
from memory.storage.disk import append_line, whole_lines, write_atomically

TAKE_OUT = "Take the line out"
Row = Baseline | Round | Outcome | Extension
V = TypeVar("V")
TYPES: dict[str, type[Row]] = {"baseline": Baseline, "round": Round, "outcome": Outcome, "extension": Extension}


class RowFile:
    """The rows of one run, kept parsed for as long as they stand in the file; its size tells whether to look again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._size = 0
        self._rows: list[Row] = []
        self._last, self._start = b"", 0  # the last row's line, and the bytes before it: what follows is read alone
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

    def extend(self, limits: Limits, by: Literal["user", "queue"]) -> Extension:
        """Writes that these limits hold from now on. A run that has ended is opened again by it."""
        with self._lock:
            rows = self.read()
            number = 1 + sum(isinstance(row, Extension) for row in rows)
            row = Extension(number=number, limits=limits, reopened=outcome_of(rows) is not None, by=by)
            self._write(row)
            return row

    def _write(self, row: Row) -> None:
        fields = {"kind": _kind(row), **row.model_dump(mode="json")}
        line = json.dumps(fields, ensure_ascii=False)
        append_line(self.path, line, sync=True)
        self._rows = [*self._rows, row]  # another thread may be reading the old list
        self._last, self._size = line.encode(), self.path.stat().st_size
        self._start = self._size - len(self._last) - 1

    def mend(self, known: Iterable[Row]) -> str:
        """Restores damaged lines from rows that are known from elsewhere; the last one is cut off if it is not.

        Returns:
            What was done, in a sentence; "" where no line is damaged, or one in the middle that nothing can restore.
        """
        with self._lock:
            return self._mended(known)

    def can_be_mended(self, known: Iterable[Row]) -> bool:
        """Whether `mend` would restore what is damaged, or cut it off."""
        with self._lock:
            return self._whole(known) is not None

    def _whole(self, known: Iterable[Row]) -> tuple[list[Row], list[Row]] | None:
        """Of a damaged ledger the rows that can be read, and all that stand once it is mended; else None."""
        found, damaged = list[Row](), False
        for line in whole_lines(self.path):
            try:
                found.append(_parsed(line, ""))
            except BadInput:
                if _is_json(line):
                    return None  # of another version
                damaged = True
        rows = _in_order(found, known)
        return (found, rows) if damaged and all(row in rows for row in found) else None

    def _mended(self, known: Iterable[Row]) -> str:
        both = self._whole(known)
        if both is None:
            return ""
        found, rows = both
        said = copy_aside(self.path, self.path.parent)
        lines = (json.dumps({"kind": _kind(row), **row.model_dump(mode="json")}, ensure_ascii=False) for row in rows)
        write_atomically(self.path, "".join(f"{line}\n" for line in lines))
        self._size, self._rows = -1, []
        restored = [_name(row) for row in rows if row not in found]
        if restored:
            return f"{said}. Restored from the run's events: {', '.join(restored)}."
        return f"{said}. The run goes on after {_name(rows[-1]) if rows else 'nothing'}, what comes before the damage."

    def known(self, told: Iterable[Row]) -> list[Row]:
        """All rows; of a damaged ledger, those that are known from elsewhere. Changes nothing."""
        try:
            return self.read()
        except BadInput:
            return _in_order([], told)

    def read(self) -> list[Row]:
        """All rows in the order written. A last line without its newline was cut off by a kill and does not count.

        Raises:
            BadInput: a whole line is not a row; names file and line.
        """
        with self._lock:
            size = self.path.stat().st_size if self.path.exists() else 0
            if size != self._size:
                self._read_on()
                self._size = size
            return self._rows

    def _read_on(self) -> None:
        """Reads what another process has added; the whole file, where it is no more what was read before."""
        known, start = self._rows, self._start
        lines = whole_lines(self.path, start) if known else []
        if lines[:1] != [self._last]:
            known, start, lines = [], 0, whole_lines(self.path)
        new = enumerate(lines[1:] if known else lines, len(known) + 1)
        rows = [shared(_parsed(line, f"{self.path}, line {number}")) for number, line in new]
        self._start = start + sum(len(line) + 1 for line in lines[:-1])
        self._last = lines[-1] if lines else b""
        self._rows = [*known, *rows]


NAMES: dict[frozenset[str], set[str]] = {}


def shared(value: V) -> V:
    """The same record; the sets of names that pydantic keeps in it and in all its parts stand in memory once.

    They are a third of what a row takes: 17 kB of 45.
    """
    if isinstance(value, Record):
        names = value.model_fields_set
        object.__setattr__(value, "__pydantic_fields_set__", NAMES.setdefault(frozenset(names), names))
    parts = vars(value).values() if isinstance(value, Record) else value if isinstance(value, tuple) else ()
    for part in parts:
        shared(part)
    return value


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


def _in_order(found: Sequence[Row], known: Iterable[Row]) -> list[Row]:
    """The ledger as it was, up to the first row that is missing. `known` is in the order of what happened.

    A row that was told of twice, before a kill and after it, may say another spend the second time: the first counts.
    """
    told: dict[tuple[str, int], Row] = {}
    for row in known:
        told.setdefault(_place(row), row)
    places = list(told)
    lost = [place for place in places if place not in set(map(_place, found))]
    rows = list[Row]()
    for row in found:
        while lost and _comes_before(told[lost[0]], row, places):
            rows.append(told[lost.pop(0)])
        rows.append(row)
    rows += [told[place] for place in lost]
    whole = next((place for place, row in enumerate(rows) if not _follows(row, rows[:place])), len(rows))
    return rows[:whole]


def _place(row: Row) -> tuple[str, int]:
    """As `_key`, for rows of all the ends of a run."""
    return _kind(row), row.seen if isinstance(row, Outcome) else row.number


def _comes_before(lost: Row, row: Row, places: Sequence[tuple[str, int]]) -> bool:
    if _place(row) in places:
        return places.index(_place(lost)) < places.index(_place(row))
    if isinstance(row, Baseline | Round):
        return isinstance(lost, Baseline | Round) and lost.number < row.number
    return isinstance(row, Outcome) and not _reopens(lost)


def _follows(row: Row, before: Sequence[Row]) -> bool:
    """Whether no row is missing between these and the next."""
    ended = outcome_of(before) is not None
    if isinstance(row, Extension):
        return row.number == 1 + sum(isinstance(other, Extension) for other in before) and row.reopened == ended
    if isinstance(row, Outcome):
        return not ended
    return not ended and row.number == sum(isinstance(other, Baseline | Round) for other in before)


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
            f"{place}: not a row of a ledger ({error}). {TAKE_OUT}, or put the file back from a copy."
        ) from error

"""events.jsonl: what happened in a run, a typed record a line, each with its time."""

import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, TypeVar

from agent.records.base import Record
from agent.records.events import EVENT, Event
from memory.storage.disk import append_line, lines_from, whole_lines

E = TypeVar("E", bound=Record)


class TimedEvent(NamedTuple):
    """An event, and when it happened (ISO 8601, UTC)."""

    time: str
    event: Event


class EventLog(NamedTuple):
    """The events of a run in the order written. `left_out` counts lines that are damaged, or of an unknown kind."""

    entries: tuple[TimedEvent, ...]
    left_out: int

    def of(self, kind: type[E]) -> list[E]:
        """The events of one kind, such as `Note`."""
        return [entry.event for entry in self.entries if isinstance(entry.event, kind)]


class EventFile:
    """The events of one run. It is a log for people and faces; nothing is resumed from it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, event: Event) -> None:
        """Adds an event that happened now. Not synced: a machine that loses power may lose the last ones.

        Raises:
            NesyLoraError: the disk is full.
        """
        fields = {"time": datetime.now(UTC).isoformat(), **event.model_dump(mode="json")}
        append_line(self.path, json.dumps(fields, ensure_ascii=False), sync=False)

    def read(self) -> EventLog:
        """All events; a last line that a kill cut off does not count as one."""
        return _log(whole_lines(self.path))

    def read_from(self, offset: int, most: int = -1) -> tuple[EventLog, int]:
        """The events behind so many bytes of the file, and how many bytes they end at, as `lines_from`."""
        lines, behind = lines_from(self.path, offset, most)
        return _log(lines), behind


def _log(lines: Sequence[bytes]) -> EventLog:
    entries = []
    for line in lines:
        # No JSON, no time, or no event that this version knows: the line is counted as unreadable.
        with suppress(ValueError, LookupError, AttributeError, TypeError, RecursionError):
            fields = json.loads(line)
            time = str(fields.pop("time"))
            entries.append(TimedEvent(time, EVENT.validate_python(fields)))
    return EventLog(tuple(entries), len(lines) - len(entries))

"""What happened in a run, as entries that scroll by beside it."""

from datetime import datetime
from typing import NamedTuple

from markupsafe import Markup

from agent.records.events import Event, RoundStarted, WorkProgressed
from memory.run.events import TimedEvent
from memory.run.folder import RunFolder
from ui.page import rendering

LATEST = 200_000  # bytes of the log that the page begins with
MOST = 40  # entries that it begins with
AT_ONCE = 1 << 20  # bytes that are read at a time


class Entry(NamedTuple):
    """An event to be shown; `clock` is the time of day here."""

    event: Event
    time: str
    clock: str


def latest_entries(run: RunFolder) -> tuple[list[Entry], int]:
    """The last entries, and the byte offset in events.jsonl behind them."""
    offset = -LATEST
    entries: list[Entry] = []
    while True:
        found, behind = entries_after(run, offset)
        entries += found
        if behind == offset:
            return entries[-MOST:], max(0, behind)  # below 0, there is no log yet
        offset = behind


def entries_after(run: RunFolder, offset: int) -> tuple[list[Entry], int]:
    """The entries behind a byte offset, and the offset behind them; with many more, only the first of them."""
    log, behind = run.events_from(offset, AT_ONCE)
    return [entry for timed in log.entries if (entry := _entry(timed))], behind


def feed(entries: list[Entry]) -> Markup:
    """The entries as list items."""
    return rendering.text("feed.html.j2", entries=entries)


def _entry(timed: TimedEvent) -> Entry | None:
    if isinstance(timed.event, RoundStarted | WorkProgressed):
        return None
    return Entry(timed.event, timed.time, _clock(timed.time))


def _clock(time: str) -> str:
    try:
        return f"{datetime.fromisoformat(time).astimezone():%H:%M}"
    except ValueError:
        return ""

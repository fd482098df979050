"""What happened in a run, as entries that scroll by beside it, with what was said to it."""

from collections.abc import Sequence
from datetime import datetime
from heapq import merge
from typing import NamedTuple

from markupsafe import Markup

from agent.records.events import Event, RoundStarted, WorkProgressed
from memory.run.events import TimedEvent
from memory.run.folder import RunFolder
from ui.page import rendering
from ui.page.run.turns import Turn

LATEST = 200_000  # bytes of the log that the page begins with
MOST = 40  # entries that it begins with, and turns
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


def together(entries: Sequence[Entry | Turn], turns: Sequence[Entry | Turn]) -> list[Entry | Turn]:
    """What happened and what was said, by time; neither changes its own order, even if the clock was set back."""
    return list(merge(entries, turns, key=_time))


def feed(run: RunFolder, items: Sequence[Entry | Turn], asked: str) -> Markup:
    """The items as list items.

    Args:
        asked: what the conversation asks now, and a button answers.
    """
    return rendering.text("feed.html.j2", run=run, items=items, asked=asked)


def _entry(timed: TimedEvent) -> Entry | None:
    if isinstance(timed.event, RoundStarted | WorkProgressed):
        return None
    return Entry(timed.event, timed.time, _clock(timed.time))


def _time(item: Entry | Turn) -> str:
    return item.time


def _clock(time: str) -> str:
    try:
        return f"{datetime.fromisoformat(time).astimezone():%H:%M}"
    except ValueError:
        return ""

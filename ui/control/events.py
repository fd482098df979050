"""Events as lines of JSON, for scripts: those of events.jsonl, and how far long work is."""

import json
import time
from datetime import UTC, datetime

from agent.records.events import Event, WorkProgressed

EVERY = 1.0  # seconds between two lines about the same work


class JsonEvents:
    """A listener that prints each event to standard output, as events.jsonl has it. See `agent.records.events`."""

    def __init__(self) -> None:
        self._what, self._said = "", 0.0

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if what != self._what or done == total or now - self._said >= EVERY:
            self._what, self._said = what, now
            self.event(WorkProgressed(what=what, done=done, total=total, note=note))

    def event(self, event: Event) -> None:
        print_event(event, datetime.now(UTC).isoformat())


def print_event(event: Event, time: str) -> None:
    """One line."""
    print(json.dumps({"time": time, **event.model_dump(mode="json")}, ensure_ascii=False), flush=True)

"""What changes in a run, as server-sent events: read from its folder and asked of whoever works on it.

Each message holds parts of the page, ready to be put in. Its id says how far the reader is: the byte offset in
events.jsonl, the number of rows of the ledger, and the byte offset in talk.jsonl. A browser that comes back sends the
last id that it got, to this server or to the next one, and gets what it has missed.
"""

import re
import threading
from collections.abc import AsyncIterator, Callable
from typing import Annotated, NamedTuple, TypeVar

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Header, Query, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent
from markupsafe import Markup

from agent.errors import BadInput, Busy
from graphs.control.client import resting
from graphs.control.steering import RunStatus, Steering
from memory.run.folder import RunFolder
from ui.page.place import Here, Place, Run
from ui.page.rendering import partial, text
from ui.page.run.feed import entries_after, feed, together
from ui.page.run.overview import live_panel, sections_between, summary
from ui.page.run.question import question_card
from ui.page.run.talking import asked_now
from ui.page.run.turns import turns_from

router = APIRouter(tags=["parts"])
T = TypeVar("T")
WAIT = 0.15  # seconds between two looks, and those that a status is waited for: an event is seen within them
LEAST = 0.1  # seconds between two messages: more often, nobody sees it
MOST_ROUNDS = 6  # put in at once; who missed more finds them behind the button
MOST_READERS = anyio.CapacityLimiter(64)  # threads that wait for runs, so that pages are not kept waiting


class Position(NamedTuple):
    """How far a reader is."""

    offset: int
    rows: int
    talk: int = 0

    @classmethod
    def of(cls, text: str | None) -> "Position | None":
        """None where it cannot be read."""
        found = re.fullmatch(r"(\d{1,15})-(\d{1,9})(?:-(\d{1,15}))?", text or "")  # two: of a page from before
        return cls(int(found[1]), int(found[2]), int(found[3] or 0)) if found else None

    def __str__(self) -> str:
        return f"{self.offset}-{self.rows}-{self.talk}"


@router.get("/runs/{name}/events", summary="What changes, as server-sent events", response_class=EventSourceResponse)
async def follow(
    run: Run,
    place: Here,
    request: Request,
    position: Annotated[str, Query(alias="from")] = "0-0-0",
    last: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
) -> AsyncIterator[ServerSentEvent]:
    """Messages as long as the browser listens and the server lives; see this module for their ids."""
    ending: threading.Event = request.app.state.ending
    reader = Reader(run, place, Position.of(last) or Position.of(position) or Position(0, 0))
    while not ending.is_set():
        content = await reader.next()
        if content:
            yield ServerSentEvent(raw_data=content, id=str(reader.position))
            await anyio.sleep(LEAST)


class Reader:
    """One browser that follows one run. What it holds is of one size, however long it reads."""

    def __init__(self, run: RunFolder, place: Place, position: Position) -> None:
        self.position = position
        self._run, self._place = run, place
        self._steering: Steering | None = None
        self._version = -1
        self._status: RunStatus | None = None
        self._sent: RunStatus | None = None
        self._shown: dict[str, int] = {}  # hashes of what each part of the page was filled with last

    async def next(self) -> str:
        """The parts that changed, after at most `WAIT` seconds; empty if none did."""
        if not await self._in_thread(self._wait):
            await anyio.sleep(WAIT)
        return await self._in_thread(self._parts)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await run_sync(work, limiter=MOST_READERS, abandon_on_cancel=True)

    def _wait(self) -> bool:
        """Get the status, as soon as it changes where somebody works on the run; whether that was waited for."""
        try:
            self._status = None
            self._steering = self._steering or self._place.steers.attached(self._run)
            if self._steering is not None:
                self._status = self._steering.status(self._version, WAIT)
                self._version = self._status.version
                if self._status.condition not in ("stopped", "finished"):
                    return True
        except (Busy, BadInput):  # its process has just ended, or does not answer
            self._status = None
        self._steering, self._version = None, -1  # look for another one next time
        self._status = self._status or resting(self._run)
        return False

    def _parts(self) -> str:
        """Whatever differs from what this browser was sent."""
        assert self._status is not None
        run, status, parts = self._run, self._status, []
        entries, offset = entries_after(run, self.position.offset)
        turns, talk = turns_from(run, self.position.talk)
        rows = len(run.rounds())
        if status != self._sent:
            self._sent = status
            parts.append(self._changed("#live", live_panel(run, status)))
            parts.append(self._changed("#question", question_card(run, status)))
        if entries or turns:
            items = feed(run, together(entries, turns), asked_now(run, self._place))
            parts.append(partial("#feed", items, "beforeend"))
        if rows > self.position.rows:
            parts.append(self._new_rounds(rows))
        if entries or rows != self.position.rows:
            parts.append(self._changed("#summary", summary(run, status)))
        self.position = Position(offset, rows, talk)
        return "".join(parts)

    def _new_rounds(self, rows: int) -> Markup:
        start = max(self.position.rows, rows - MOST_ROUNDS)
        sections = sections_between(self._run, self._run.rounds(), start, rows)[::-1]
        return partial("#rounds", text("sections.html.j2", run=self._run, sections=sections), "afterbegin")

    def _changed(self, target: str, content: Markup) -> Markup:
        if self._shown.get(target) == hash(content):
            return Markup()
        self._shown[target] = hash(content)
        return partial(target, content)

"""What is shown and told while a queue is worked on."""

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Self

from rich.text import Text

from agent.config.notify import Notify
from agent.errors import NesyLoraError
from agent.records.queue import (
    LimitsChanged,
    QueueBegun,
    QueueEnded,
    QueueRow,
    TaskAdded,
    TaskEnded,
    TaskSkipped,
    TaskSpent,
    TaskStarted,
    TaskStopped,
)
from agent.records.rounds import Spend
from graphs.control.steering import RunStatus
from memory.queue import QueueFolder, QueueState
from memory.run.folder import RunFolder
from ui import wording
from ui.control.events import print_event
from ui.queue.page import write_page
from ui.queue.words import became
from ui.telling.notify import Notice, tell
from ui.terminal.live import LiveView


class QuietQueue:
    """Writes the page of a queue, and tells whom it is to tell. Satisfies `graphs.queue.foreman.Watcher`.

    Args:
        stopping: called when a signal has come.
    """

    def __init__(self, queue: QueueFolder, stopping: Callable[[], None] = lambda: None) -> None:
        self._queue = queue
        self.stopping = stopping

    def row(self, row: QueueRow, state: QueueState) -> None:
        """Something has happened."""
        with suppress(NesyLoraError):  # the disk is full: the page comes with the next row
            write_page(self._queue)
        if state.notify and (notice := notice_of(row, state, self._queue)):
            tell(Notify.of(state.notify), notice)

    def run(self, run: RunFolder, status: RunStatus) -> None:
        """How far the run under way is."""


class QueueView(QuietQueue):
    """Shows a queue and the run under way, besides.

    Args:
        json: print rows and events as lines of JSON, and nothing else.
    """

    def __init__(self, queue: QueueFolder, json: bool, stopping: Callable[[], None]) -> None:
        super().__init__(queue, stopping)
        self._view = None if json else LiveView(stamps=True)
        self._offsets: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._view:
            self._view.__exit__(kind, error, trace)

    def row(self, row: QueueRow, state: QueueState) -> None:
        if self._view is None:
            print(row.model_dump_json(), flush=True)
        elif said := said_of(row, state):
            self._view.console.print(Text(f"{datetime.now():%H:%M} {said}", style="bold"), soft_wrap=True)
        super().row(row, state)

    def run(self, run: RunFolder, status: RunStatus) -> None:
        log, self._offsets[run.name] = run.events_from(self._offsets.get(run.name, 0))
        for entry in log.entries:
            if self._view:
                self._view.event(entry.event)
            else:
                print_event(entry.event, entry.time)
        if self._view and status.step and status.step.total:
            self._view(status.step.what, status.step.done, status.step.total, status.step.note)


def said_of(row: QueueRow, state: QueueState) -> str:
    """A row as a line."""
    match row:
        case TaskStarted():
            gone = f" (anew: the folder of run {row.after} is gone; what it had used still counts)" if row.after else ""
            return f"task {row.number} of {len(state.items)}: run {row.run}{gone}"
        case TaskStopped():
            then = {"again": "It is tried again.", "later": "It is put off until the others are done."}[row.then]
            return f"{_name(row.number, state)} has stopped: {wording.printable(row.reason)} {then}"
        case TaskEnded():
            item = next(item for item in state.items if item.added.number == row.number)
            return f"{item.added.name}: {became(item._replace(ended=row))}"
        case QueueEnded():
            return f"The queue has ended: {row.reason} ({wording.cost(row.spend) or 'nothing spent'})"
        case QueueBegun() | LimitsChanged() | TaskAdded() | TaskSkipped() | TaskSpent():
            return ""


def notice_of(row: QueueRow, state: QueueState, queue: QueueFolder) -> Notice | None:
    """What others hear about a row; None: nothing."""
    text = said_of(row, state)
    match row:
        case TaskStopped() | TaskEnded():
            item = next(item for item in state.items if item.added.number == row.number)
            ended = row if isinstance(row, TaskEnded) else None
            report = queue.root / item.run / "report.html"  # there is none of a run that never began
            return Notice(
                event="end" if ended and ended.state == "finished" else "trouble",
                of="task", name=item.run, task=item.added.name, text=text,
                reached=ended.reached if ended else False,
                before=ended.before if ended else None, after=ended.after if ended else None,
                spend=ended.spend if ended else Spend(),
                page=str(report if ended and item.run and report.exists() else queue.page),
            )  # fmt: skip
        case QueueEnded():
            ends = [item.ended for item in state.kept]
            return Notice(
                event="end", of="queue", name=queue.name, text=text, spend=row.spend, page=str(queue.page),
                reached=not state.skipped and all(end is not None and end.reached for end in ends),
            )  # fmt: skip
        case _:
            return None


def _name(number: int, state: QueueState) -> str:
    return next(item.added.name for item in state.items if item.added.number == number)

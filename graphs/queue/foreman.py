"""Works through a queue: a process of its own for each task, so that the end of one is not the end of all."""

import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Protocol

from agent.config.task import TaskConfig
from agent.errors import BadInput, NesyLoraError
from agent.records.events import LimitsSet, Note
from agent.records.queue import QueueEnded, QueueRow, TaskSpent, TaskStarted, TaskStopped
from agent.records.rounds import Spend
from graphs.approval import APPROVE
from graphs.context import new_run
from graphs.control.client import GO_ON, Remote, live, settled, start_worker
from graphs.control.steering import RunStatus, Steering
from graphs.queue.asking import asked, end_process, status_of, until_free
from graphs.queue.becoming import ended, undone
from graphs.queue.pulse import Pulse
from graphs.queue.shares import (
    Left,
    allowed,
    as_settings,
    lacking,
    left_of,
    limits_within,
    share_of,
    spend_of,
    spent,
)
from memory.queue import Item, QueueFolder, QueueState, now
from memory.run.folder import RunFolder

WAITS = (1.0, 10.0, 60.0, 300.0)  # seconds before a run that has stopped is tried again, while it does not get on


class Watcher(Protocol):
    """A face that watches a queue."""

    def row(self, row: QueueRow, state: QueueState) -> None:
        """Something has happened; it stands in queue.jsonl."""

    def run(self, run: RunFolder, status: RunStatus) -> None:
        """How far the run under way is. Called again and again."""

    def stopping(self) -> None:
        """A signal has come, and the run under way is told to let go."""


class Foreman:
    """Works on the tasks of a queue, until none is left or its budget is used up.

    Args:
        waits: seconds before a run that has stopped is tried again, one after the other, as long as its ledger does not
            grow. After the last, it is put off until the others have had their turn; then it has failed.
    """

    def __init__(self, queue: QueueFolder, watcher: Watcher, waits: Sequence[float] = WAITS) -> None:
        self._queue = queue
        self._watcher = watcher
        self._waits = waits
        self._held = queue.read().limits  # those that the run under way was given its own by
        self._noted = ("", False, 0)  # the run, its baseline, and its rounds, whose spend stands in the queue

    def work(self) -> QueueEnded:
        """To the end of the queue, which is locked meanwhile. A process that works on a run already is taken over.

        Raises:
            Busy: another process works on the queue.
            KeyboardInterrupt: a signal has come. The run under way has let go, after its batch.
        """
        with ExitStack() as kept:
            kept.enter_context(self._queue.locked())
            while True:
                state = self._queue.read()
                item, share, why = self._next(state)
                if item and share:
                    self._task(item, share)
                    continue
                end = self._end(why)  # which is told, and that takes a while
                with self._queue.alone():  # whoever adds a task from here on finds that nobody works on the queue
                    if len(self._queue.read().items) == len(state.items):
                        kept.close()
                        return end

    def _next(self, state: QueueState) -> tuple[Item | None, Left | None, str]:
        """The next task, with what it may use; or why there is none."""
        why = []
        self._held = state.limits
        left = left_of(state.limits, spend_of(self._queue, state), now())
        for item in state.open:
            share = share_of(left, state.behind(item.added.number))
            if not (lack := lacking(item, share)):
                return item, share, ""
            why.append(lack)
        return None, None, " ".join(filter(None, [*why, undone(state)])) or "All tasks are done."

    # --- one task --------------------------------------------------------------------------------------

    def _task(self, item: Item, share: Left) -> None:
        """Until it has ended, failed, or is put off."""
        number, tried, known = item.added.number, 0, -1
        while True:
            try:
                run = self._begun(item, share)
                trouble = self._worked(run, item)
            except BadInput as error:
                self._add(ended(number, None, str(error)))
                return
            except NesyLoraError as error:  # the disk is full, or a process has the run that cannot be reached
                trouble = str(error)
            item, share = self._as_it_stands(item)
            run = RunFolder(self._queue.root / item.run)
            if not trouble:
                self._add(ended(number, run))
                return
            rows = len(run.known_rows()) if run.path.exists() else 0
            tried, known = (0 if rows > known else tried + 1), max(known, rows)
            if tried >= len(self._waits):
                if item.put_off:
                    self._add(ended(number, run, trouble))
                else:
                    self._add(TaskStopped(time=now(), number=number, reason=trouble, then="later"))
                return
            self._add(TaskStopped(time=now(), number=number, reason=trouble, then="again"))
            time.sleep(self._waits[tried])
            item, share = self._as_it_stands(item)
            if item.ended or lacking(item, share):
                return  # taken out; or it goes on when the queue is given more

    def _begun(self, item: Item, share: Left) -> RunFolder:
        """The task's run, with the limits that its share allows.

        Raises:
            BadInput: the task cannot be used any more, or its run cannot be read.
        """
        task, path = item.added, self._queue.root / item.run
        if item.run and (path / "run.json").is_file():
            run = RunFolder.open(path)
            if remote := settled(run):
                with suppress(BadInput):  # it has ended just now
                    self._limit(run, item, share, remote)
            else:
                with run.locked():
                    run.mend(lambda text: run.event(Note(text=text)))
                self._limit(run, item, share)
            self._add(TaskStarted(time=now(), number=task.number, run=run.name))
            return run
        gone = item.run if item.used.get(item.run, Spend()) != Spend() else ""  # somebody has removed its folder
        name = self._new_name(task.name) if gone or not item.run else item.run
        limits = limits_within(task.limits, share, Spend(), task.estimate)
        # first: no run that nobody knows of
        self._add(TaskStarted(time=now(), number=task.number, run=name, after=gone))
        changes = [*task.overrides, *as_settings(task.limits, limits)]
        return new_run(Path(task.task), changes, self._queue.root, name)

    def _limit(
        self, run: RunFolder, item: Item, share: Left, remote: Remote | None = None, pulse: Pulse | None = None
    ) -> None:
        """Let other limits hold, where the queue has less or more for the run than when it began.

        Args:
            remote: the process that works on the run already.
            pulse: of that process; None: it is taken from now on.
        """
        if run.outcome():
            return
        began = _config(run).limits
        wanted = allowed(run, item.added, share, began)
        if wanted is None:
            return
        if remote:
            present = run.limits() or began
            changes = {name: value for name, value in wanted if value != getattr(present, name)}
            asked(run, lambda: remote.share(changes), self._due, pulse or Pulse(run))
        else:
            with run.locked():
                run.event(LimitsSet(row=run.extend(wanted, by="queue")))

    def _worked(self, run: RunFolder, item: Item) -> str:
        """Work on the run. Returns why it stopped before its end; empty: it has ended.

        Raises:
            BadInput: the task cannot be used.
            NesyLoraError: no process could be started, or reached.
        """
        if run.outcome() and run.reported:
            return ""
        try:
            last = self._followed(run, item, settled(run) or start_worker(run))
        except KeyboardInterrupt:
            self._watcher.stopping()
            if remote := live(run):
                with suppress(NesyLoraError):
                    remote.leave()
            until_free(run)
            self._note(run, item)
            raise
        if not run.path.exists():  # the run takes itself away where its task cannot be used
            raise BadInput(last or f"The task cannot be used: nesylora run {item.added.task} says why.")
        if run.outcome():
            return ""
        self._note(run, item)
        return last or "It was stopped from outside."

    def _followed(self, run: RunFolder, item: Item, steering: Steering) -> str:
        """Until no process works on the run any more. Returns its last trouble."""
        pulse, ending = Pulse(run), False
        status = status_of(run, steering, -1, self._due, pulse)
        while status.condition not in ("finished", "stopped"):
            self._watcher.run(run, status)
            self._meanwhile(run, item, status, pulse)
            if status.question:  # a user had it ask; nobody is there to answer
                with suppress(NesyLoraError):
                    steering.answer(APPROVE, status.question.number)
            if self._due() and not ending:
                with suppress(NesyLoraError):  # it is told again
                    steering.finish()
                    ending = True
            if status.condition == "paused":
                pulse.rest()
            elif not pulse.beats():
                end_process(run)
            status = status_of(run, steering, status.version, self._due, pulse)
        self._watcher.run(run, status)
        if status.supervised:
            with suppress(NesyLoraError):
                steering.leave()
        until_free(run)
        return pulse.lost or status.trouble.partition(f" {GO_ON}")[0]  # which is for people

    def _meanwhile(self, run: RunFolder, item: Item, status: RunStatus, pulse: Pulse) -> None:
        """Note what each round has used up; and let limits that a user has set for the queue hold for the run, too."""
        if self._noted != (far := (run.name, status.reward is not None, status.rounds)):
            self._noted = far
            self._note(run, item)
        limits = self._queue.read().limits
        if limits != self._held and (remote := live(run)):
            with suppress(NesyLoraError):  # it is told again
                self._limit(run, *self._as_it_stands(item), remote, pulse)
                self._held = limits

    def _due(self) -> bool:
        """Whether the time of the queue is over."""
        until = self._queue.read().limits.until
        return until is not None and now() >= until

    # --- what is written -------------------------------------------------------------------------------

    def _end(self, why: str) -> QueueEnded:
        row = QueueEnded(time=now(), reason=why, spend=spend_of(self._queue, self._queue.read()))
        self._add(row)
        return row

    def _add(self, row: QueueRow) -> None:
        """Write a row, and show it. A disk that is full is waited for."""
        for wait in (*self._waits, None):
            try:
                self._queue.append(lambda _: row)
                break
            except NesyLoraError:
                if wait is None:
                    raise
                time.sleep(wait)
        self._watcher.row(row, self._queue.read())

    def _note(self, run: RunFolder, item: Item) -> None:
        """Note what the run has used up: it counts even if somebody removes its folder."""
        row = TaskSpent(time=now(), number=item.added.number, run=run.name, spend=spent(run))
        if row.spend != Spend():
            with suppress(NesyLoraError):  # the disk is full: it is noted with the next round
                self._queue.append(lambda _: row)
                self._watcher.row(row, self._queue.read())

    def _as_it_stands(self, item: Item) -> tuple[Item, Left]:
        """The task with all rows by now, and what it may use by now."""
        state = self._queue.read()
        found = next(other for other in state.items if other.added.number == item.added.number)
        left = left_of(state.limits, spend_of(self._queue, state), now())
        return found, share_of(left, state.behind(item.added.number))

    def _new_name(self, task: str) -> str:
        """A name that no run has, nor any that this queue has begun."""
        stem, number = f"{task}-{now().astimezone():%Y%m%d-%H%M%S}", 1
        name, begun = stem, {start.run for item in self._queue.read().items for start in item.started}
        while name in begun or (self._queue.root / name).exists():
            number += 1
            name = f"{stem}-{number}"
        return name


def _config(run: RunFolder) -> TaskConfig:
    from eval.tasks.task import load_config

    return load_config(run.task_file)

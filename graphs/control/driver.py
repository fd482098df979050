"""A run worked on in a thread of this process, while others look on and steer it."""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from functools import cached_property, partial

from agent.config.task import TaskConfig
from agent.errors import BadInput, BrokenOff, Cancelled, NesyLoraError
from agent.protocols import Listener
from agent.records.actions import Action, Rollback, Stop
from agent.records.events import Event, LimitsSet, Note, RunStopped
from agent.records.looks import Finding, Look
from graphs.approval import APPROVE, Question, instead, read
from graphs.context import Report
from graphs.control.extension import extended
from graphs.control.steering import Condition, RunStatus, Step
from graphs.control.watching import Watch, status_of_folder
from graphs.looking import Looking
from graphs.session import Session, open_session
from memory.run.folder import RunFolder

BEFORE_THE_END = ("observe", "plan", "approve", "finish")
"""Nodes in which a round may be about to end the run by a limit that has just been extended."""

Job = Callable[[], None]


class Driver:
    """A run, worked on in a thread. Satisfies `graphs.control.steering.Steering`; made by `drive`.

    Its methods may be called from any thread.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._services = session.services
        self._folder = session.services.folder
        self._supervised = session.services.supervised
        self._changed = threading.Condition()
        self._version = int(time.time() * 1000)  # beyond that of the process before
        self._condition: Condition = "working"
        self._asked = time.monotonic()  # when somebody last asked for the status
        self._step: Step | None = None
        self._question: Question | None = None
        self._trouble = ""
        self.error: BaseException | None = None
        self._next: Job | None = self._go
        self._looks: deque[Job] = deque()
        self._paused = self._breaks = self._leaving = self._replans = False
        self._cancelled = 0  # the round whose action is cancelled
        self._approved = 0  # rounds that go through without a question
        self._queued: Action | None = None  # in place of the next plan
        self._thread = threading.Thread(target=self._work, name="run", daemon=True)
        self._watch = Watch(self._services.listener, self._changes, self._progressed)
        self._services.listener = self._watch
        self._services.brake = self._brake

    # --- the process's side ----------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the run has ended, was left, or was stopped by an error; or so long. Whether it is over.

        Raises:
            Whatever stopped the run.
        """
        with self._changed:
            over = self._changed.wait_for(lambda: self._condition in ("finished", "stopped"), seconds)
            if self.error is not None:
                raise self.error
            return over

    def is_idle(self, seconds: float) -> bool:
        """Whether it does not work, and nobody has asked for so long what it does."""
        with self._changed:
            return self._condition != "working" and time.monotonic() - self._asked >= seconds

    @property
    def condition(self) -> Condition:
        """As in `status`, without asking."""
        return self._condition

    def close(self) -> None:
        """Break the step under way off, and wait for that."""
        self.leave()
        if self._thread.is_alive():
            self._thread.join()

    # --- what others may do ----------------------------------------------------------------------------

    def status(self, after: int = -1, seconds: float = 0.0) -> RunStatus:
        with self._changed:
            self._changed.wait_for(lambda: self._version > after, seconds)
            self._asked = time.monotonic()
            known = status_of_folder(self._folder, self._condition)
            return known.model_copy(
                update={
                    "version": self._version,
                    "pid": os.getpid(),
                    "supervised": self._supervised,
                    "step": self._step,
                    "question": self._question,
                    "spend": self._services.spend if self._services.under_way.works else known.spend,
                    "trouble": self._trouble,
                }
            )

    def answer(self, answer: Mapping[str, object], number: int | None = None) -> RunStatus:
        with self._changed:
            question = self._question
            if question is None:
                raise BadInput(f"Run {self._folder.name} waits for no answer now: {self._doing()}.")
            if number is not None and number != question.number:
                raise BadInput(
                    f"The question of round {number} has been answered already; now round {question.number} waits: "
                    f"{question.decision.move}."
                )
            meant, fault = read(answer, question.decision.move, len(self._folder.rounds()))
            if meant is None:
                raise BadInput(fault)
            self._order(partial(self._go, dict(answer)))
        return self.status()

    def act(self, action: Action) -> RunStatus:
        with self._changed:
            self._still_open("act")
            if isinstance(action, Rollback):
                _, fault = read(_answer(action), action, len(self._folder.rounds()))
                if fault:
                    raise BadInput(fault)
            if self._question:
                return self.answer(_answer(action))
            self._queued, self._services.supervised = action, True
            self._go_on()
        return self.status()

    def go_on(self, rounds: int | None = None) -> RunStatus:
        with self._changed:
            if self._condition == "finished":
                raise BadInput(f"Run {self._folder.name} has finished. {EXTEND}")
            if rounds is not None and rounds < 1:
                raise BadInput(f"It can go on for 1 round or more, not for {rounds}.")
            if self._question and rounds is None:
                raise BadInput(
                    f"Run {self._folder.name} waits for an answer about round {self._question.number} "
                    f"({self._question.decision.move}). Answer it, or say for how many rounds it is to go on unasked."
                )
            if rounds is not None and not self._supervised:
                raise BadInput("This run asks nobody: its rounds are limited by its budget, which can be extended.")
            self._approved = rounds or self._approved
            if self._question is None:
                self._go_on()
            elif self._passes(self._question):
                self._order(partial(self._go, APPROVE))
            else:
                self._approved = 0
                raise BadInput(
                    f"What is planned is the end of run {self._folder.name}, which opens the test rows: "
                    f"{self._question.decision.reason} Answer that yourself, or extend the run."
                )
        return self.status()

    def pause(self, now: bool = False) -> RunStatus:
        with self._changed:
            self._still_open("pause")
            if self._condition == "working":
                self._paused, self._breaks = True, now
                self._changes()
        return self.status()

    def cancel_step(self) -> RunStatus:
        with self._changed:
            self._still_open("cancel")
            under_way = self._services.under_way
            if self._question or not under_way.cancellable:
                raise BadInput(f"No action is under way that could be cancelled: {self._doing()}.")
            self._folder.cancel(under_way.round)
            self._cancelled = under_way.round
            self._changes()
        return self.status()

    def extend(self, **limits: float | None) -> RunStatus:
        with self._changed:
            row = self._folder.extend(extended(self._config, self._folder.limits() or self._config.limits, limits))
            self._tell(LimitsSet(row=row))
            at_its_end = self._question is not None and isinstance(self._question.decision.move, Stop)
            if row.reopened or at_its_end:
                self._order(self._go_on_from_the_ledger)
            elif self._question is None:
                self._replans = self._services.under_way.node in BEFORE_THE_END
            self._changes()
        return self.status()

    def finish(self) -> RunStatus:
        return self.status() if self._condition == "finished" else self.act(Stop())

    def leave(self) -> RunStatus:
        with self._changed:
            self._leaving = True
            self._changes()
        return self.status()

    def look(self, look: Look) -> Finding:
        found: Future[Finding] = Future()
        with self._changed:
            if self._condition in ("working", "stopped"):
                raise BadInput(f"Nothing can be looked at now: {self._doing()}. Pause the run first.")
            self._looks.append(partial(self._look, look, found))
            self._changes()
        return found.result()

    # --- the thread ------------------------------------------------------------------------------------

    def _work(self) -> None:
        while job := self._awaited():
            job()
        with self._changed:
            for look in self._looks:
                look()  # they find that the run is left
            if self._condition != "finished":
                self._condition = "stopped"
                reason = self._trouble or "The user stopped it."
                self._tell(RunStopped(reason=reason, failed=bool(self._trouble)))
            self._question = self._step = None
            self._changes()

    def _awaited(self) -> Job | None:
        """What is to be done next, once there is something; None: the run is left."""
        with self._changed:
            self._changed.wait_for(lambda: self._leaving or self._looks or (self._next and not self._paused))
            if self._leaving:
                return None
            if self._looks:
                return self._looks.popleft()
            job, self._next = self._next, None
            self._condition, self._question, self._trouble, self.error = "working", None, "", None
            self._changes()
            return job

    def _go(self, answer: Mapping[str, object] | None = None) -> None:
        try:
            question = self._session.go(answer)
        except BrokenOff:
            self._broken_off()
        except BaseException as error:  # for whoever waits for the end, in another thread
            self._failed(error)
        else:
            self._arrived(question)

    def _go_on_from_the_ledger(self) -> None:
        self._session.restart()
        self._go()

    def _broken_off(self) -> None:
        with self._changed:
            self._next = self._go_on_from_the_ledger if self._replans else self._go
            self._replans = self._breaks = False
            if self._paused:
                self._condition = "paused"
            self._step = None
            self._changes()
        if self._paused and not self._leaving:
            self._tell(Note(text="Paused by the user."))

    def _failed(self, error: BaseException) -> None:
        with self._changed:
            self._condition, self._trouble = "stopped", str(error) or type(error).__name__
            self.error = error
            self._next, self._paused = self._go, True  # once more, if the user goes on
            self._step = None
            self._changes()

    def _arrived(self, question: Question | None) -> None:
        """At the end, or at a question: which may be answered already."""
        with self._changed:
            self._step, self._breaks = None, False
            if question is None:
                self._condition, self._queued = "finished", None
                if self._replans:  # the last test row was answered while the run was extended
                    self._replans = False
                    row = self._folder.extend(self._folder.limits() or self._config.limits)
                    self._next = self._go_on_from_the_ledger if row.reopened else None
            elif self._queued and not question.fault:
                action, self._queued = self._queued, None
                self._next = partial(self._go, _answer(action))
            elif not self._supervised:
                self._trouble = question.fault
                self._services.supervised = False  # it was asked for the sake of the user's own action
                self._next = partial(self._go, APPROVE)
            elif self._passes(question):
                self._next = partial(self._go, APPROVE)
            else:
                self._condition, self._question, self._approved, self._paused = "waiting", question, 0, False
            self._changes()

    def _passes(self, question: Question) -> bool:
        """Whether a question needs no answer, since rounds were approved beforehand. The end always needs one."""
        if self._approved < 1 or isinstance(question.decision.move, Stop):
            return False
        self._approved -= 1
        return True

    def _look(self, look: Look, found: "Future[Finding]") -> None:
        if self._leaving:
            found.set_exception(NesyLoraError(f"Run {self._folder.name} is being left."))
            return
        session, services = self._session, self._services
        try:
            state = session.seen
            with services.meter.between_steps(state["spend"], services.spec.config.budget.minutes):
                found.set_result(Looking(state, services).look(look))
        except BaseException as error:  # for whoever asked, in another thread
            found.set_exception(error)
        with self._changed:
            self._step = None
            self._changes()

    def _brake(self, before: bool) -> None:
        """Stops the node under way where the user wants it; see `graphs.services.brake.Brake`."""
        under_way = self._services.under_way
        if self._cancelled == under_way.round and under_way.cancellable and under_way.works:
            raise Cancelled
        if before and under_way.node == "approve":
            return  # an answer that was given must be read; the node after it stops at once
        stale = self._replans and under_way.node in BEFORE_THE_END
        if self._leaving or self._breaks or stale or (before and self._paused):
            raise BrokenOff

    # --- helpers of both sides -------------------------------------------------------------------------

    @cached_property
    def _config(self) -> TaskConfig:
        """The task as the run began."""
        from eval.tasks.task import load_config

        return load_config(self._folder.task_file)

    def _order(self, job: Job) -> None:
        """Let this be done next."""
        self._next, self._question = job, None
        self._go_on()

    def _go_on(self) -> None:
        self._paused = self._breaks = False
        if self._next:
            self._condition = "working"
        self._changes()

    def _changes(self) -> None:
        with self._changed:
            self._version += 1
            self._changed.notify_all()

    def _progressed(self, step: Step) -> None:
        with self._changed:
            self._step = step
            self._changes()

    def _still_open(self, to: str) -> None:
        if self._condition == "finished":
            raise BadInput(f"Run {self._folder.name} has finished, so there is nothing to {to}. {EXTEND}")

    def _doing(self) -> str:
        what = f" ({self._step.what})" if self._step else ""
        return {
            "working": f"it is at the step {self._services.under_way.node or 'of its beginning'}{what}",
            "waiting": "it waits for an answer",
            "paused": "it is paused",
            "finished": "it has finished",
            "stopped": f"it has stopped: {self._trouble or 'it was left'}",
        }[self._condition]

    def _tell(self, event: Event) -> None:
        """Note what happened between the steps, and show it."""
        self._folder.event(event)
        self._watch.event(event)


EXTEND = "Extend it to go on, such as by rounds."


def _answer(action: Action) -> dict[str, object]:
    return instead(action.action, **action.model_dump(mode="json", exclude={"action"}))


@contextmanager
def drive(
    folder: RunFolder,
    *,
    supervised: bool = False,
    listener: Listener | None = None,
    report: Report | None = None,
) -> Iterator[Driver]:
    """The run, worked on in a thread of this process and reachable for others of this user, until the block ends.

    Raises:
        Busy, BadInput: as `graphs.session.open_session`.
    """
    from graphs.control.socket import served

    with open_session(folder, supervised=supervised, listener=listener, report=report) as session:
        driver = Driver(session)
        with served(driver, folder):
            driver.start()
            try:
                yield driver
            finally:
                driver.close()

"""A run worked on in a thread of this process, while others look on and steer it."""

import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Literal

from agent.errors import BadInput, NesyLoraError
from agent.protocols import Listener
from agent.records.actions import Action, Rollback, Stop
from agent.records.events import LimitsSet
from agent.records.looks import Finding, Look
from graphs.approval import APPROVE, Approve, Reject, as_answer, read
from graphs.context import Report
from graphs.control.extension import extended, standing
from graphs.control.steering import RunStatus
from graphs.control.thread import BEFORE_THE_END, RunThread
from graphs.control.watching import status_of_folder
from graphs.session import open_session
from memory.run.folder import RunFolder


class Driver(RunThread):
    """A run, worked on in a thread. Satisfies `graphs.control.steering.Steering`; made by `drive`.

    Its methods may be called from any thread.
    """

    def status(self, after: int = -1, seconds: float = 0.0) -> RunStatus:
        with self._changed:
            self._changed.wait_for(lambda: self._version > after or self._let_go, seconds)
            self._asked = time.monotonic()
            known = status_of_folder(self._folder, self._condition)
            spend = self._services.spend if self._services.under_way.works else known.spend
            self._used += spend.beyond(self._used)  # never less than was shown before
            return known.model_copy(
                update={
                    "version": self._version,
                    "pid": os.getpid(),
                    "supervised": self._supervised,
                    "pausing": self._paused and self._condition == "working",
                    "step": self._doing_now(),
                    "question": self._question,
                    "spend": self._used,
                    "trouble": self._trouble
                    or (self._services.waits if self._condition not in ("stopped", "finished") else ""),
                }
            )

    def answer(self, answer: Mapping[str, object], number: int | None = None) -> RunStatus:
        with self._changed:
            self._still_open("answer")
            question = self._question
            if question is None:
                raise BadInput(f"Run {self._folder.name} waits for no answer now: {self._doing()}.")
            if number is not None and number != question.number:
                raise BadInput(
                    f"The question of round {number} has been answered already; now round {question.number} waits: "
                    f"{question.decision.move}."
                )
            meant, fault = read(answer, question.decision.move, len(self._folder.rounds()))
            if meant is not None and not isinstance(meant, Approve | Reject):
                fault = self._beyond_budget(meant, question.number)
            if fault:
                raise BadInput(fault)
            self._order(partial(self._go, dict(answer)))
        return self.status()

    def act(self, action: Action) -> RunStatus:
        with self._changed:
            self._still_open("act")
            if isinstance(action, Rollback):
                _, fault = read(as_answer(action), action, len(self._folder.rounds()))
                if fault:
                    raise BadInput(fault)
            if self._question:
                return self.answer(as_answer(action))
            if fault := self._beyond_budget(action, self._number()):
                raise BadInput(fault)
            self._queued, self._services.supervised = action, True
            self._go_on()
        return self.status()

    def go_on(self, rounds: int | None = None) -> RunStatus:
        with self._changed:
            self._still_open("go on with")
            if rounds is not None and rounds < 1:
                raise BadInput(f"It can go on for 1 round or more, not for {rounds}.")
            if self._question and rounds is None:
                raise BadInput(
                    f"Run {self._folder.name} waits for an answer about round {self._question.number} "
                    f"({self._question.decision.move}). Answer it, or say for how many rounds it is to go on unasked."
                )
            if rounds is not None and not self._supervised:
                raise BadInput(
                    f"Run {self._folder.name} asks nobody, so there are no rounds to be approved. Without a number of "
                    "rounds it just goes on (nesylora ctl resume), as far as its budget; that can be extended "
                    "(nesylora ctl extend --rounds N)."
                )
            self._approved = rounds or self._approved
            if self._question is None:
                self._go_on()
            elif self._took_approved_round(self._question):
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
            unasked, self._approved = self._approved, 0  # whoever cancels wants to be asked about what comes next
            if self._cut_off and self._condition == "paused":
                self._folder.cancel(self._cut_off)
                self._go_on()
                return self.status()
            under_way = self._services.under_way
            if self._question or not under_way.cancellable:
                asked = " The rounds that were to go on unasked are asked about again." if unasked else ""
                raise BadInput(f"No action is under way that could be cancelled: {self._doing()}.{asked}")
            self._folder.cancel(under_way.round)
            self._cancelled = under_way.round
            self._changes()
        return self.status()

    def extend(self, **limits: float | None) -> RunStatus:
        return self._extend(limits, "user")

    def share(self, limits: Mapping[str, float | None]) -> RunStatus:
        """Set limits as its queue has them for it. Unlike `extend`, this opens no run again.

        Raises:
            BadInput: it has ended, or see `graphs.control.extension.extended`.
        """
        with self._changed:
            self._still_open("share")
            return self._extend(limits, "queue")

    def _extend(self, limits: Mapping[str, float | None], by: Literal["user", "queue"]) -> RunStatus:
        with self._changed:
            present = standing(self._folder, self._config)
            row = self._folder.extend(extended(self._config, present, limits), by)
            question, most = self._question, row.limits.rounds
            otherwise = question and (isinstance(question.decision.move, Stop) or question.number > most)
            if row.reopened or otherwise:
                self._order(self._go_on_from_the_ledger)
            elif question is None:
                self._replans = self._services.under_way.node in BEFORE_THE_END
            self._changes()
        self._tell(LimitsSet(row=row))
        return self.status()

    def finish(self) -> RunStatus:
        return self.status() if self._condition == "finished" else self.act(Stop())

    def leave(self) -> RunStatus:
        with self._changed:
            self._leaving = True
            self._changes()
        return self.status()

    def close(self) -> None:
        """Break the step under way off, and wait for that."""
        self.leave()
        if self._thread.is_alive():
            self._thread.join()

    def look(self, look: Look) -> Finding:
        found: Future[Finding] = Future()
        with self._changed:
            if self._condition in ("working", "stopped"):
                raise BadInput(f"Nothing can be looked at now: {self._doing()}. Pause the run first.")
            self._looks.append(partial(self._look, look, found))
            self._changes()
        return found.result()

    @property
    def _let_go(self) -> bool:
        """Whether nothing will change any more: the process ends, which is not to wait for who waits for news."""
        return self._leaving and self._condition in ("stopped", "finished")

    def _still_open(self, to: str) -> None:
        if self._leaving:
            raise NesyLoraError(
                f"The process lets go of run {self._folder.name} just now, so there is nothing to {to}."
            )
        if self._condition == "finished" or (to == "share" and self._folder.outcome()):
            raise BadInput(
                f"Run {self._folder.name} has finished, so there is nothing to {to}. Extend it to go on, such as by "
                "rounds."
            )


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
    from graphs.control.socket import served, taken

    with (
        open_session(folder, supervised=supervised, listener=listener, report=report) as session,
        taken(folder) as mine,
    ):
        if not session.finished:
            _ = session.services.spec  # what is wrong with the task is said before anybody is asked to wait
        driver = Driver(session)
        with served(driver, folder, mine):
            driver.start()
            try:
                yield driver
            finally:
                driver.close()

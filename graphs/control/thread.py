"""The thread that works on a run: what it does next, where it stops, and what it arrives at."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import cached_property, partial

from agent.config.task import TaskConfig
from agent.counting import plural
from agent.errors import BrokenOff, Cancelled, NesyLoraError
from agent.records.actions import Action, Rollback, Stop
from agent.records.events import Event, Note, RunStopped
from agent.records.looks import Finding, Look
from agent.records.rounds import Spend
from graphs.approval import APPROVE, Question, as_answer
from graphs.control.extension import standing
from graphs.control.steering import Condition, Step
from graphs.control.watching import Watch
from graphs.looking import Looking
from graphs.session import Session

BEFORE_THE_END = ("observe", "plan", "approve", "finish")
"""Nodes in which a round may be about to end the run by a limit that has just been extended."""

ABOUT = {
    "baseline": "scoring the seed prompt",
    "observe": "looking at failing rows",
    "plan": "planning",
    "approve": "planning",
    "train_lora": "training LoRA",
    "edit_prompt": "editing the prompt",
    "rollback": "going back",
    "judge": "judging",
    "remember": "noting the round",
    "finish": "opening the test rows",
}
"""What each node does, where no progress is known."""

LEVERS = ("train_lora", "edit_prompt", "rollback")
"""Nodes that a user has approved, and may not want any more after the process has ended in one."""

Job = Callable[[], None]


class RunThread:
    """A run under way in a thread: what is done next, what is under way, and where it is to stop.

    `graphs.control.driver.Driver` steers it. All that other threads change is changed under `_changed`.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._services = session.services
        self._folder = session.services.folder
        self._supervised = session.services.supervised
        self._changed = threading.Condition()
        self._version = int(time.time() * 1000)  # beyond that of the process before
        self._condition: Condition = "working"
        self._used = Spend()  # the most that was said to be used up
        self._asked = time.monotonic()  # when somebody last asked for the status
        self._step: Step | None = None
        self._question: Question | None = None
        self._trouble = ""
        self.error: BaseException | None = None
        self._next: Job | None = self._go
        self._looks: deque[Job] = deque()
        self._paused = self._breaks = self._leaving = self._replans = False
        self._cancelled = 0  # the round whose action is cancelled
        self._cut_off = 0  # the round whose action was under way when the process before ended, until work begins
        self._approved = 0  # rounds that go through without a question
        self._queued: Action | None = None  # in place of the next plan
        self._thread = threading.Thread(target=self._work, name="run", daemon=True)
        self._watch = Watch(self._services.listener, self._changes, self._progressed)
        self._services.listener = self._watch
        self._services.brake = self._brake

    # --- the process's side ----------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to work; in supervised use not with an action that was cut off: the user is asked first."""
        rounds, node = self._folder.charges.last
        if self._supervised and node in LEVERS and rounds == len(self._folder.rounds()) and not self._folder.outcome():
            self._paused, self._condition, self._cut_off = True, "paused", rounds + 1
            self._trouble = (
                f"The action of round {rounds + 1} ({node}) was cut off when the process that worked on it ended. It "
                "can be gone on with, or cancelled."
            )
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
        """Whether it does not work, and was left, or nobody has asked for so long what it does."""
        with self._changed:
            return self._condition != "working" and (self._leaving or time.monotonic() - self._asked >= seconds)

    @property
    def condition(self) -> Condition:
        """As in `status`, without asking."""
        return self._condition

    # --- the thread ------------------------------------------------------------------------------------

    def _work(self) -> None:
        while job := self._awaited():
            job()
        with self._changed:
            if self.error is None:  # what was wrong when it was left did not end it
                self._trouble = ""
        try:
            if self._condition != "finished":  # first: who sees that it has stopped reads no more events
                self._tell(RunStopped(reason=self._trouble or "The user stopped it.", failed=self.error is not None))
        finally:
            with self._changed:
                for look in self._looks:
                    look()  # they find that the run is left
                self._question = self._step = None
                if self._condition != "finished":
                    self._condition = "stopped"
                self._changes()

    def _awaited(self) -> Job | None:
        """What is to be done next, once there is something; None: the run is left."""
        with self._changed:
            self._changed.wait_for(lambda: self._leaving or self._looks or (self._next and not self._paused))
            if self._leaving:
                return None
            if self._looks:
                return self._looks.popleft()
            job, self._next, self._cut_off = self._next, None, 0
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
        dropped = ""
        with self._changed:
            self._step, self._breaks = None, False
            if question is None:
                self._condition, self._queued = "finished", None
                if self._replans:  # the last test row was answered while the run was extended
                    self._replans = False
                    row = self._folder.extend(self._folder.limits() or self._config.limits)
                    self._next = self._go_on_from_the_ledger if row.reopened else None
            elif (action := self._ordered(question)) and not (dropped := self._beyond_budget(action, question.number)):
                self._next = partial(self._go, as_answer(action))
            elif not self._supervised:
                self._trouble = question.fault
                self._services.supervised = False  # it was asked for the sake of the user's own action
                self._next = partial(self._go, APPROVE)
            elif self._took_approved_round(question):
                self._next = partial(self._go, APPROVE)
            else:
                self._condition, self._question, self._approved, self._paused = "waiting", question, 0, False
            self._changes()
        if dropped:
            self._tell(Note(text=dropped))

    def _ordered(self, question: Question) -> Action | None:
        """The action that was asked for in place of this plan, once; None where there is none."""
        if question.fault:
            return None
        action, self._queued = self._queued, None
        return action

    def _beyond_budget(self, action: Action, number: int) -> str:
        """Why this action cannot be the one of the round of this number; "" where the budget holds it, or it costs
        nothing."""
        most = standing(self._folder, self._config).rounds
        if isinstance(action, Stop | Rollback) or number <= most:
            return ""
        return (
            f"The budget has {plural(most, 'round')}, and this would be round {number}: {action.action} was not done. "
            f"Raise it first: /set rounds={number} in a conversation, or nesylora ctl extend --rounds {number}."
        )

    def _number(self) -> int:
        """Of the round in which an action that is asked for now would be done."""
        if self._cut_off:
            return self._cut_off + 1
        done, under_way = len(self._folder.rounds()), self._services.under_way
        has_begun = under_way.node in (*LEVERS, "judge", "remember")
        return (max(done, under_way.round) if has_begun else done) + 1

    def _took_approved_round(self, question: Question) -> bool:
        """Spend one of the rounds that were approved beforehand on this question, so that it needs no answer.

        Returns:
            False: none is left, or this is the end of the run, which is always asked about.
        """
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
        except BrokenOff:
            found.set_exception(NesyLoraError(f"Run {self._folder.name} is being left."))
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

    def _doing_now(self) -> Step | None:
        """Long work, as far as it has come; else what the node is about."""
        if self._condition != "working" or (self._step and self._step.done < self._step.total):
            return self._step
        return Step(what=ABOUT.get(self._services.under_way.node, "beginning"))

    def _doing(self) -> str:
        now = self._doing_now()
        return {
            "working": f"it is {now.what if now else 'at work'}",
            "waiting": "it waits for an answer",
            "paused": "it is paused",
            "finished": "it has finished",
            "stopped": f"it has stopped: {self._trouble or 'it was left'}",
        }[self._condition]

    def _tell(self, event: Event) -> None:
        """Note what happened between the steps, and show it."""
        self._folder.event(event)
        self._watch.event(event)

"""One conversation about one run: hears what a user says, has it done, and answers in lines."""

import threading
from collections.abc import Callable
from typing import NamedTuple, Protocol

from agent.errors import BadInput, LlmUnavailable, NesyLoraError
from agent.records.actions import Stop
from graphs.approval import APPROVE, Question
from graphs.control.steering import RunStatus, Steering
from graphs.conversation import commands
from graphs.conversation.phrases import understood
from memory.run.folder import RunFolder
from ui import wording
from ui.talk import answers, plans
from ui.talk.inquiries import Inquiries
from ui.talk.lines import Line, Say, line
from ui.talk.orders import Orders

YES_OR_NO = "yes or no?"
"""What a user is asked where the conversation asks something of its own."""


class Asked(NamedTuple):
    """A question of the conversation's own, which yes or no answers; a command that acts takes its place."""

    text: str
    yes: Callable[[], None]
    no: Callable[[], None]


class Listening(Protocol):
    """An LLM that understands what no phrase says."""

    def hear(self, text: str, talk: "Talk") -> None: ...

    def resume(self, talk: "Talk") -> None: ...


class Talk:
    """The conversation, for any face. It keeps nothing that the run does not have, but for a question of its own.

    Args:
        run: what is steered.
        folder: its ledger is what answers quote.
        say: shows a line.
        by_worker: `/run` leaves its rounds to the run's own process, which then asks before none of them: the one here
            may end earlier, or does not see the run change.
    """

    def __init__(self, run: Steering, folder: RunFolder, say: Say, by_worker: bool = False) -> None:
        self.run = run
        self.folder = folder
        self.say = say
        self.by_worker = by_worker
        self._llm: Listening | None = None
        self._shown: Question | None = None  # the plan that the user has seen last
        self._asked: Asked | None = None
        self._over, self._trouble = False, ""  # what the user knows: that the run has finished, why it has stopped
        self._rounds = 0  # that may go on without the user, edits only
        self._lock = threading.RLock()  # a face may hear in one thread, and see the run change in another
        self._do: dict[str, Callable[[str], None]] = {
            "/plan": lambda _: self._plan(), "/approve": lambda _: self._approve(), "/run": self._run,
            "/undo": lambda _: self._undo(), "/stop": lambda _: self.stop(), "/go": lambda _: self._go(),
            "/finish": lambda _: self._finish(), "/help": lambda _: self.tell(*map(line, commands.HELP.splitlines())),
        }  # fmt: skip
        self._orders = Orders(run, folder)
        self._answer = Inquiries(run, folder).commands | self._orders.commands

    def listen(self, llm: Listening) -> None:
        """Hear plain language from now on; what the LLM had asked before is asked again."""
        self._llm = llm
        llm.resume(self)

    @property
    def waits(self) -> str:
        """What the user is asked, in a few words."""
        if self._asked:
            return YES_OR_NO
        return f"your answer on the plan of round {self._shown.number}" if self._shown else "your answer"

    # --- what comes in ---

    def hear(self, text: str) -> bool:
        """Do what a user says, or ask back. False: they leave."""
        text = text.strip()
        if not text:
            return True
        command = understood(text)
        if command and command.partition(" ")[0].lower() == "/quit":
            return False
        try:
            self._heard(text, command)
        except NesyLoraError as error:
            self.tell(line(str(error), "fault"))
        return True

    def _heard(self, text: str, command: str | None) -> None:
        asked = self._asked
        if asked and command and command.split()[0] in ("/approve", "/reject", "/stop"):
            self._asked = None
            (asked.yes if command.startswith("/approve") else asked.no)()
        elif command:
            self._command(command, said=not text.startswith("/"))
        elif self._llm:
            self._hear_llm(self._llm, text)
        elif asked:
            self.tell(line("Please answer yes or no, or give a command (/help)."), self._open(asked))
        else:
            self._ask_back(text)

    def _hear_llm(self, llm: Listening, text: str) -> None:
        asked = self._asked
        try:
            llm.hear(text, self)
        except LlmUnavailable as error:
            self.tell(line(f"The LLM could not be asked: {error}. Commands and short sentences still work.", "fault"))
            self._ask_back(text)
        if asked and asked is self._asked:
            self.tell(self._open(asked))

    def do(self, command: str, say: Say | None = None) -> None:
        """Do one command.

        Args:
            say: takes what it answers, in place of the face.

        Raises:
            NesyLoraError: it cannot be followed.
        """
        face, self.say = self.say, say or self.say
        try:
            self._command(command, said=False)
        finally:
            self.say = face

    def _command(self, text: str, said: bool) -> None:
        command, rest = commands.parsed(text)
        asked = self._asked
        if command.acts:
            self._asked, self._rounds = None, 0
        if command.name == "/finish" and said:  # plain words such as "done" may mean less
            self._confirm_end()
            return
        try:
            if answer := self._answer.get(command.name):
                self.tell(*answer(rest))
            else:
                self._do[command.name](rest)
        except NesyLoraError:
            self._asked = asked  # nothing was done, so it still stands
            raise
        if asked and asked is self._asked:
            self.tell(self._open(asked))

    def _ask_back(self, text: str) -> None:
        command = commands.nearest(text)
        question = self.run.status().question
        if command is None and question:
            planned = f"Round {question.number}, {plans.what(question.decision.move).partition('.')[0]}"
            self.tell(line(f"I do not understand that. {planned}: yes, no, or what instead? (/help)", "ask"))
        elif command is None:
            self.tell(line("I do not understand that. /help lists what I do; /try TEXT asks the model."))
        else:
            self.ask(f"I do not understand that whole. Did you mean {command}?", lambda: self.do(command))

    def ask(self, text: str, yes: Callable[[], None], no: Callable[[], None] | None = None) -> None:
        """Ask something that yes or no answers."""
        self._asked = Asked(text, yes, no or (lambda: self.tell(line("Nothing was done."))))
        self.tell(self._open(self._asked))

    @staticmethod
    def _open(asked: Asked) -> Line:
        return line(f"{asked.text} {plans.YES_OR_NO}".strip(), "ask")

    # --- what the run does ---

    def changed(self, now: RunStatus) -> None:
        """The run has gone on: a new plan is shown, or done where rounds were granted; its end is told."""
        with self._lock:
            if now.condition == "finished":
                self._rounds, self._shown, self._asked = 0, None, None
                if not self._over:
                    self.tell(line(answers.OVER))
            elif now.question and now.question != self._shown:
                self._next(now.question)
            elif now.condition == "stopped" and now.trouble and now.trouble != self._trouble:
                self.tell(line(f"The run has stopped: {now.trouble}", "fault"))
            elif now.condition == "paused" and now.trouble and not self._asked:
                self.ask(f"{now.trouble} Go on with it?", self._run_on, self._not_again)
            self._over, self._trouble = now.condition == "finished", now.trouble

    def _run_on(self) -> None:
        self.run.go_on()

    def _not_again(self) -> None:
        self.run.cancel_step()
        self.tell(line("Cancelled. Nothing of the step is kept."))

    def _next(self, question: Question) -> None:
        move = question.decision.move
        if not self._rounds or isinstance(move, Stop) or question.fault:
            self._rounds = 0
            self._show(question)
        elif plans.costly(move):
            self._shown = question
            left, self._rounds = self._rounds, 0
            self.tell(*list(plans.plan(question))[:-1])
            self.ask("", lambda: self._granted(question, left))
        else:
            self._granted(question, self._rounds)

    def _granted(self, question: Question, left: int) -> None:
        self._rounds, self._shown = left - 1, question
        self.run.answer(APPROVE, question.number)

    def stop(self) -> None:
        """Break off the step under way; or say that there is none."""
        if self.run.status().condition == "working":
            self.run.cancel_step()
            self.tell(line("Cancelled. Nothing of the step is kept."))
        else:
            self.tell(line("Nothing is under way. /finish ends the run, /quit leaves it."))

    # --- the plan ---

    def _plan(self) -> None:
        now = self.run.status()
        if now.question:
            self._show(now.question)
        elif now.condition == "finished" and (end := self.folder.outcome()):
            self.tell(*answers.outcome(end))
        else:
            self.tell(*answers.status(now))

    def _show(self, question: Question) -> None:
        self._shown = question
        self.tell(*plans.plan(question))

    def _approve(self) -> None:
        question = self._orders.waiting()
        if isinstance(question.decision.move, Stop):
            self._confirm_end()
        else:
            self.run.answer(APPROVE, question.number)

    def _confirm_end(self) -> None:
        tests = self._shown.cost.test_answers // 2 if self._shown and not isinstance(self._shown.cost, str) else 0
        text = plans.what(Stop(), tests=tests)
        self.ask(f"That will {text}.", self._finish)

    def _undo(self) -> None:
        if self.run.status().condition == "working":
            self.stop()
        else:
            self.tell(*self._orders.back())

    def _finish(self) -> None:
        if self.run.status().condition == "finished":
            raise BadInput("The run has finished already.")
        self.run.finish()

    # --- limits, and rounds without asking ---

    def _run(self, rest: str) -> None:
        more, rest = rest.startswith("+"), rest.lstrip("+") or "1"
        rounds, now = commands.count(rest, "/run", least=1), self.run.status()
        finished = now.condition == "finished"
        missing = rounds if finished else now.rounds + rounds - now.limits.rounds
        if more and missing > 0:
            self.run.extend(rounds=now.limits.rounds + missing)
            self.tell(line(f"The budget is now {now.limits.rounds + missing} rounds."))
        elif finished:
            self._orders.waiting()
        if self.by_worker:
            self.run.go_on(rounds)
            self.tell(line(f"Up to {wording.plural(rounds, 'round')} are done without asking."))
            return
        with self._lock:
            self._rounds, self._shown = rounds, None
            now = self.run.status()
            if now.question:
                self._next(now.question)

    def _go(self) -> None:
        now = self.run.status()
        if now.question:
            self._approve()
        elif now.condition in ("paused", "stopped"):
            self.run.go_on()
        else:
            self._orders.waiting()

    def tell(self, *said: Line) -> None:
        """Show lines to the user."""
        for text in said:
            self.say(text)

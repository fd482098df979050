"""One conversation about one run: hears what a user says, has it done, and answers in lines."""

import threading
from collections.abc import Callable, Iterable, Iterator

from agent.errors import BadInput, NesyLoraError
from agent.records.actions import Stop
from graphs.approval import APPROVE, Question
from graphs.control.steering import RunStatus, Steering
from graphs.conversation import commands
from graphs.conversation.phrases import understood
from memory.run.folder import RunFolder
from ui import wording
from ui.talk import answers, manual, plans
from ui.talk.asking import Asked, Asking
from ui.talk.inquiries import Inquiries
from ui.talk.lines import Line, Say, line
from ui.talk.orders import Orders, Unseen

YES_OR_NO = "yes or no?"
"""What a user is asked where the conversation asks something of its own."""


class Talk(Asking):
    """The conversation, for any face. It keeps nothing that the run does not have, but for a question of its own.

    Args:
        run: what is steered.
        folder: its ledger is what answers quote.
        say: shows a line.
        by_worker: `/run` leaves its rounds to the run's own process, which then asks before none of them: the one here
            may end earlier, or does not see the run change.
    """

    def __init__(self, run: Steering, folder: RunFolder, say: Say, by_worker: bool = False) -> None:
        super().__init__(run, folder, say, by_worker)
        self._shown: Question | None = None  # the plan that the user has seen last
        self._over, self._trouble = False, ""  # what the user knows: that the run has finished, why it has stopped
        self._rounds = 0  # that may go on without the user, edits only
        self._lock = threading.RLock()  # a face may hear in one thread, and see the run change in another
        self._orders = Orders(run, folder, lambda: self._shown, self.ask)
        self._do: dict[str, Callable[[str], Iterable[Line]]] = {
            "/plan": lambda _: self._plan(), "/approve": lambda _: self._approve(), "/run": self._run,
            "/undo": lambda _: self._undo(), "/stop": lambda _: self.stop(), "/go": lambda _: self._go(),
            "/finish": lambda _: self._finish(), "/help": manual.about,
            **Inquiries(run, folder).commands, **self._orders.commands,
        }  # fmt: skip

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
            self._drop_stale()
            self._heard(text, command)
            self._drop_stale()
        except Unseen as error:
            self.tell(line(str(error), "fault"), *self._show(error.question))
        except NesyLoraError as error:
            self.tell(line(str(error), "fault"))
        return True

    def saw(self, mark: str) -> None:
        """The face has shown the plan of this mark (`ui.talk.plans.mark`), and no other."""
        question = self.run.status().question
        self._shown = question if question and plans.mark(question) == mark else None

    @property
    def seen(self) -> str:
        """The mark of the plan that was shown last; empty if none was."""
        return plans.mark(self._shown) if self._shown else ""

    def _heard(self, text: str, command: str | None) -> None:
        asked = self._asked
        if asked and command and command.split()[0] in ("/approve", "/reject", "/stop"):
            self._answered(asked, yes=command.startswith("/approve"))
        elif command:
            for answer in self._command(command, said=not text.startswith("/")):
                self.tell(answer)
        elif self._llm:
            self._hear_llm(self._llm, text)
        elif asked:
            self.tell(line("Please answer yes or no, or give a command (/help)."), self._open(asked))
        else:
            self.tell(self._asked_back(text))

    def do(self, command: str) -> Iterator[Line]:
        return self._command(command, said=False)

    def _command(self, text: str, said: bool) -> Iterator[Line]:
        command, rest = commands.parsed(text)
        asked = self._asked
        if command.acts:
            self._asked, self._rounds = None, 0
        elif asked and asked.guesses:
            self._asked = None
        if command.name == "/finish" and said:  # plain words such as "done" may mean less
            yield self._end_asked()
            return
        try:
            yield from self._do[command.name](rest)
        except NesyLoraError:
            self._asked = None if asked and asked.guesses else asked  # nothing was done, so it still stands
            raise
        if asked and asked is self._asked:
            yield self._open(asked)

    def _asked_back(self, text: str) -> Line:
        command = commands.nearest(text)
        question = self.run.status().question
        if command is None and question:
            planned = f"Round {question.number}, {plans.in_short(question.decision.move)}"
            return line(f"I do not understand that. {planned}: yes, no, or what instead? (/help)", "ask")
        if command is None:
            return line("I do not understand that. /help lists what I do; /try TEXT asks the model.")
        self._asked = Asked(
            f"I do not understand that whole. Did you mean {command.rstrip('?')}?",
            lambda: self.do(command),
            guesses=True,
        )
        return self._open(self._asked)

    # --- what the run does ---

    def changed(self, now: RunStatus) -> None:
        """The run has gone on: a new plan is shown, or done where rounds were granted; its end is told."""
        with self._lock:
            if now.condition == "finished":
                self._rounds, self._shown, self._asked = 0, None, None
                if not self._over:
                    self.tell(line(answers.OVER))
            elif now.question and now.question != self._shown:
                asked = self._asked
                self.tell(*self._next(now.question))
                if asked and asked is self._asked:  # what was asked last is what a yes answers
                    self.tell(self._open(asked))
            elif now.condition == "stopped" and now.trouble and now.trouble != self._trouble:
                self.tell(line(f"The run has stopped: {now.trouble}", "fault"))
            elif now.condition == "paused" and now.trouble and not self._asked:
                self.tell(self.ask(f"{now.trouble} Go on with it?", self._gone_on, self._cancelled))
            self._over, self._trouble = now.condition == "finished", now.trouble

    def _gone_on(self) -> list[Line]:
        self.run.go_on()
        return []

    def _cancelled(self) -> list[Line]:
        self.run.cancel_step()
        return [line("Cancelled. Nothing of the step is kept.")]

    def _next(self, question: Question) -> list[Line]:
        move = question.decision.move
        if not self._rounds or isinstance(move, Stop) or question.fault:
            self._rounds = 0
            return self._show(question)
        if plans.costly(move):
            self._shown = question
            left, self._rounds = self._rounds, 0
            return [*list(plans.plan(question))[:-1], self.ask("", lambda: self._granted(question, left))]
        return self._granted(question, self._rounds)

    def _granted(self, question: Question, left: int) -> list[Line]:
        self._rounds, self._shown = left - 1, question
        self.run.answer(APPROVE, question.number)
        return []

    def stop(self) -> list[Line]:
        """Break off the step under way, and ask before each round again; or say that there is none."""
        self._rounds = 0
        if self.run.status().condition == "working":
            return self._cancelled()
        return [line("Nothing is under way. /finish ends the run, /quit leaves it.")]

    # --- the plan ---

    def _plan(self) -> Iterable[Line]:
        now = self.run.status()
        if now.question:
            return self._show(now.question)
        if now.condition == "finished" and (end := self.folder.outcome()):
            return answers.outcome(end)
        return answers.status(now)

    def _show(self, question: Question) -> list[Line]:
        self._shown = question
        return list(plans.plan(question))

    def _approve(self) -> list[Line]:
        question = self._orders.waiting()
        if isinstance(question.decision.move, Stop):
            return [self._end_asked()]
        self.run.answer(APPROVE, question.number)
        return []

    def _end_asked(self) -> Line:
        tests = self._shown.cost.test_answers // 2 if self._shown and not isinstance(self._shown.cost, str) else 0
        better = answers.better_before(self.folder.rounds(), self.folder.baseline())
        return self.ask(f"That will {plans.what(Stop(), tests=tests)}.{better}", self._finish)

    def _undo(self) -> Iterable[Line]:
        return self.stop() if self.run.status().condition == "working" else self._orders.back()

    def _finish(self) -> list[Line]:
        if self.run.status().condition == "finished":
            raise BadInput("The run has finished already.")
        self.run.finish()
        return []

    # --- limits, and rounds without asking ---

    def _run(self, rest: str) -> Iterator[Line]:
        more, rest = rest.startswith("+"), rest.lstrip("+") or "1"
        rounds, now = commands.count(rest, "/run", least=1), self.run.status()
        finished = now.condition == "finished"
        missing = rounds if finished else now.rounds + rounds - now.limits.rounds
        if more and missing > 0:
            self.run.extend(rounds=now.limits.rounds + missing)
            yield line(f"The budget is now {now.limits.rounds + missing} rounds.")
        elif finished:
            self._orders.waiting()
        if self.by_worker:
            self.run.go_on(rounds)
            yield line(f"Up to {wording.plural(rounds, 'round')} are done without asking.")
            return
        with self._lock:
            self._rounds, self._shown = rounds, None
            now = self.run.status()
            said = self._next(now.question) if now.question else []
        yield from said

    def _go(self) -> list[Line]:
        now = self.run.status()
        if now.question:
            return self._approve()
        if now.condition not in ("paused", "stopped"):
            self._orders.waiting()
        return self._gone_on()

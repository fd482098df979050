"""A steered run without a process: tests set what it does, and see what it was asked."""

import threading
from collections.abc import Mapping

from agent.errors import BadInput
from agent.records.actions import Action
from agent.records.looks import Finding, Look, PromptTried, TryPrompt
from graphs.control.client import resting
from graphs.control.steering import RunStatus
from memory.run.folder import RunFolder


class Steered:
    """Satisfies `Steering`."""

    def __init__(self, run: RunFolder) -> None:
        self.asked: list[tuple[str, object]] = []
        self._status = resting(run)
        self._changed = threading.Condition()

    def becomes(self, **fields: object) -> RunStatus:
        """The status changes, and who waits for it is told."""
        with self._changed:
            self._status = self._status.model_copy(update={**fields, "version": self._status.version + 1})
            self._changed.notify_all()
            return self._status

    def status(self, after: int = -1, seconds: float = 0.0) -> RunStatus:
        with self._changed:
            if self._status.version <= after:
                self._changed.wait_for(lambda: self._status.version > after, seconds)
            return self._status

    def answer(self, answer: Mapping[str, object], number: int | None = None) -> RunStatus:
        question = self._status.question
        if question is None or number not in (None, question.number):
            raise BadInput("Another question is open by now.")
        return self._note("answer", answer, condition="working", question=None)

    def act(self, action: Action) -> RunStatus:
        return self._note("act", action, condition="working", question=None)

    def go_on(self, rounds: int | None = None) -> RunStatus:
        return self._note("go_on", rounds, condition="working")

    def pause(self, now: bool = False) -> RunStatus:
        return self._note("pause", now, condition="paused")

    def cancel_step(self) -> RunStatus:
        return self._note("cancel_step", None)

    def extend(self, **limits: float | None) -> RunStatus:
        return self._note("extend", limits)

    def finish(self) -> RunStatus:
        return self._note("finish", None, condition="finished")

    def leave(self) -> RunStatus:
        return self._note("leave", None, condition="stopped")

    def look(self, look: Look) -> Finding:
        self.asked.append(("look", look))
        assert isinstance(look, TryPrompt)
        return PromptTried(question=look.question, answer="ANSWER: Heskzan", beside=("I see.",) * len(look.beside))

    def _note(self, what: str, given: object, **fields: object) -> RunStatus:
        self.asked.append((what, given))
        return self.becomes(**fields)


class Doubles:
    """Satisfies `graphs.control.anybody.Steers`: one steered run for each name that is put in."""

    def __init__(self) -> None:
        self.working: dict[str, Steered] = {}
        self.supervised: bool | None = None

    def attached(self, run: RunFolder) -> Steered | None:
        return self.working.get(run.name)

    def steered(self, run: RunFolder, supervised: bool) -> Steered:
        self.supervised = supervised
        return self.working.setdefault(run.name, Steered(run))

"""The commands of a conversation that steer the run at once, and answer with what holds then."""

from collections.abc import Callable, Iterable

from agent.errors import BadInput, NesyLoraError
from agent.policy.planner_tools import elsewhere
from agent.records.actions import Action, EditPrompt, Rollback, Stop, TrainLora
from agent.records.limits import Limits
from graphs.approval import Question, Reject, instead, read
from graphs.control.steering import Steering
from graphs.conversation import commands
from memory.run.folder import RunFolder
from ui.status_wording import progress
from ui.talk import answers
from ui.talk.lines import Line, line
from ui.talk.plans import in_short, what
from ui.wording import number, plural


class Unseen(BadInput):
    """Another plan waits than the one that was shown: no word was about it. `question` asks about it."""

    def __init__(self, question: Question) -> None:
        planned = in_short(question.decision.move)
        super().__init__(f"Nothing was done: another plan waits by now, of round {question.number}: {planned}.")
        self.question = question


class Orders:
    """What is done in place of a plan, and what limits it. All raise BadInput where they cannot be followed.

    Args:
        shown: the plan that the user has seen last.
        ask: asks something that yes or no answers: the line that does.
    """

    def __init__(
        self,
        run: Steering,
        folder: RunFolder,
        shown: Callable[[], Question | None],
        ask: Callable[[str, Callable[[], Iterable[Line]]], Line],
    ) -> None:
        self._run = run
        self._shown = shown
        self._ask = ask
        self._folder = folder
        self.commands: dict[str, Callable[[str], Iterable[Line]]] = {
            "/reject": self._reject, "/edit": self._edit, "/train": self._train, "/rollback": self._rollback,
            "/set": self._set, "/pause": self._pause,
        }  # fmt: skip

    def waiting(self) -> Question:
        """The open question, which the user has seen.

        Raises:
            Unseen: they have seen another, or none.
            BadInput: there is none, with the way out.
        """
        now = self._run.status()
        if now.question:
            if now.question != self._shown():
                raise Unseen(now.question)
            return now.question
        if now.condition == "finished":
            raise BadInput("The run has finished. /set rounds=+2 goes on with it; its test rows then count as seen.")
        if now.condition == "working":
            raise BadInput(f"The run is at work ({progress(now.step) if now.step else 'a step'}). /stop breaks it off.")
        raise BadInput("Nobody works on the run now. Resume it first, or say /go.")

    def back(self) -> Iterable[Line]:
        """To the pair before the last change that was kept."""
        rounds, first = self._folder.rounds(), self._folder.baseline()
        other = max(elsewhere(rounds), default=None)
        if other is None or first is None:
            raise BadInput("There is nothing to take back: the pair is the one that the run began with.")
        before = rounds[other - 1].reward if other else first.reward
        where = f"the pair after round {other}" if other else "the baseline"
        undone = f"Taken back: round {other + 1} ({what(rounds[other].decision.move)})."
        told = (
            line(f"{undone} Back to {where}: reward {number(rounds[-1].reward)} → {number(before)}."),
            line(
                f"  The ledger has it as a round of its own, number {len(rounds) + 1}, which counts towards the "
                "budget. Undo once more brings the change back.",
                "dim",
            ),
        )
        return self._instead("rollback", *told, to_round=other)

    def _reject(self, why: str) -> list[Line]:
        question = self.waiting()
        if isinstance(question.decision.move, Stop):
            raise BadInput("Nothing else is proposed; /edit and /train ask for an action of your own, /quit leaves.")
        self._run.answer({"decisions": [Reject(message=why).model_dump()]}, question.number)
        return []

    def _edit(self, words: str) -> list[Line]:
        if words and all("=" in word for word in words.split()):
            return self._instead("edit_prompt", **commands.settings(words, "/edit parts=system,demos"))
        return self._instead("edit_prompt", **({"instruction": words} if words else {}))

    def _train(self, rest: str) -> list[Line]:
        return self._instead("train_lora", **commands.settings(rest, "/train epochs=4"))

    def _rollback(self, rest: str) -> list[Line]:
        to_round, rounds = commands.count(rest, "/rollback"), len(self._folder.rounds())
        if to_round >= rounds:
            most = f"/rollback takes 0 to {rounds - 1}" if rounds else "there is nothing to go back from"
            raise BadInput(f"There have been {rounds} rounds; {most}.")
        return self._instead("rollback", to_round=to_round)

    def _instead(self, action: str, *told: Line, **settings: object) -> list[Line]:
        """In place of the plan; of a run that does not wait, in place of the next one.

        Args:
            told: what is said once it is under way.
        """
        now, rounds, answer = self._run.status(), len(self._folder.rounds()), instead(action, **settings)
        if now.question or now.condition not in ("working", "paused") or not rounds:
            question = self.waiting()
            meant = _read(answer, question.decision.move, rounds, question.training)
            if question.number > now.limits.rounds and not isinstance(meant, Rollback):
                used = f"The budget of {plural(now.limits.rounds, 'round')} is used up. One more, to {what(meant)}:"
                return [self._ask(used, lambda: self._one_more(meant, question))]
            self._run.answer(answer, question.number)
            return [*told]
        if now.trouble:
            raise BadInput(f"{now.trouble} Say yes or no first.")
        self._run.act(_read(answer, Stop(), rounds))
        return [*told, line("That comes next, in place of what is planned. /stop breaks off what is under way.")]

    def _one_more(self, action: Action, question: Question) -> list[Line]:
        """A round more than the budget had, for this action. Raises Unseen where another plan waits by now."""
        if (now := self._run.status()).question != question:
            raise Unseen(now.question) if now.question else BadInput("That round has begun: nothing was done.")
        if now.limits.rounds < question.number:
            now = self._run.extend(rounds=question.number)
        raised = f"The budget is now {plural(now.limits.rounds, 'round')}."
        try:
            self._run.act(action)
        except NesyLoraError as error:
            raise BadInput(f"{error} {raised}") from None
        return [line(raised)]

    def _set(self, rest: str) -> Iterable[Line]:
        now, given = self._run.status(), commands.settings(rest, "/set target=0.9 rounds=+2")
        limits = {name: _limit(name, str(value), now.limits) for name, value in given.items()}
        return answers.status(self._run.extend(**limits))

    def _pause(self, _: str) -> list[Line]:
        now = self._run.pause()
        return [line("Paused after the step under way. /go goes on." if now.condition == "working" else "Paused.")]


def _read(answer: dict[str, object], planned: Action, rounds: int, training: TrainLora | None = None) -> Action:
    """The action that is to be done; see `graphs.approval.read`. Raises BadInput where it cannot be."""
    meant, fault = read(answer, planned, rounds, training)
    if not isinstance(meant, TrainLora | EditPrompt | Rollback):
        raise BadInput(f"That cannot be done: {fault}. Nothing was done.")
    return meant


def _limit(name: str, value: str, now: Limits) -> float | None:
    """A limit as `Steering.extend` takes it; "+2" is two more than now, "none" lifts it.

    Raises:
        BadInput: there is no such limit, or this is no value of it.
    """
    if name not in Limits.model_fields:
        raise BadInput(f"There is no limit {name}; there are {', '.join(Limits.model_fields)}. Nothing was done.")
    if value == "none" and name not in ("rounds", "target"):
        return None
    try:
        given = float(value.rstrip("%"))
    except ValueError:
        raise BadInput(f"{name} takes a number, as in: /set {name}=2. Nothing was done.") from None
    given = given / 100 if value.endswith("%") else given
    if value.startswith("+"):
        present = getattr(now, name)
        if present is None:
            raise BadInput(
                f"{name} has no limit now, so that there is nothing to add to; /set {name}={value[1:]} sets one. "
                "Nothing was done."
            )
        given += present
    return int(given) if given.is_integer() else given

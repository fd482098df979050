"""The commands of a conversation that only look: what they find, in lines."""

from collections.abc import Callable, Iterator

from agent.errors import BadInput
from agent.records.looks import ClassifyFailures, Compare, Evaluate, PromptTried, SearchPrompts, TryPrompt
from graphs.control.steering import Steering
from graphs.conversation import commands
from memory.run.folder import RunFolder
from ui.talk import answers, plans
from ui.talk.lines import Line


class Inquiries:
    """Answers from a run's ledger, and from its model; all raise BadInput where there is no answer."""

    def __init__(self, run: Steering, folder: RunFolder) -> None:
        self._run = run
        self._folder = folder
        self.commands: dict[str, Callable[[str], Iterator[Line]]] = {
            "/why": self._why, "/diff": self._diff, "/prompt": self._prompt, "/try": self._try, "/status": self._status,
            "/failures": self._failures, "/compare": self._compare, "/search": self._search,
        }  # fmt: skip

    def _status(self, _: str) -> Iterator[Line]:
        return answers.status(self._run.status())

    def _why(self, rest: str) -> Iterator[Line]:
        """A round; without a number the last one, and the plan that waits for an answer."""
        rounds, question = self._folder.rounds(), self._run.status().question
        number = commands.count(rest, "/why") if rest else len(rounds)
        if number > len(rounds) or (rest and number == 0):
            raise BadInput(f"There is no round {number}: there have been {len(rounds)}.")
        if number:
            yield from answers.why(rounds[number - 1])
        elif question is None:
            raise BadInput("No round has been done yet; /plan shows the first.")
        if question and not rest:
            yield from plans.grounds(question)

    def _diff(self, _: str) -> Iterator[Line]:
        first = self._folder.baseline()
        if first is None:
            raise BadInput("Nothing has been scored yet.")
        return answers.diff(self._folder.prompt(first.seed.prompt), self._folder.prompt(self._prompt_now()))

    def _prompt(self, _: str) -> Iterator[Line]:
        return answers.prompt(self._folder.prompt(self._prompt_now()))

    def _prompt_now(self) -> str:
        """The id of the prompt of the pair that stands now."""
        rounds, first = self._folder.rounds(), self._folder.baseline()
        if rounds:
            return rounds[-1].best.prompt
        if first is None:
            raise BadInput("Nothing has been scored yet.")
        return first.best.prompt

    def _try(self, question: str) -> Iterator[Line]:
        return answers.tried(try_pairs(self._run, self._folder, question))

    def _failures(self, _: str) -> Iterator[Line]:
        yield from answers.found(self._run.look(ClassifyFailures()))
        yield from answers.found(self._run.look(Evaluate()))

    def _compare(self, rest: str) -> Iterator[Line]:
        numbers = rest.split()
        if len(numbers) != 2:
            raise BadInput("/compare takes two rounds, as in: /compare 0 2")
        first, second = (commands.count(number, "/compare") for number in numbers)
        return answers.found(self._run.look(Compare(first=first, second=second)))

    def _search(self, about: str) -> Iterator[Line]:
        return answers.found(self._run.look(SearchPrompts(about=about[:300])))


def try_pairs(run: Steering, folder: RunFolder, question: str) -> list[tuple[str, str]]:
    """Names and answers: of the bare base under the seed prompt, of the best pair of all rounds where that is another,
    and of the pair that stands now."""
    rounds = folder.rounds()
    best = max(rounds, key=lambda row: row.reward, default=None)
    other = [best.number] if best and best.best != rounds[-1].best else []
    found = run.look(TryPrompt(question=question, beside=(0, *other)))
    assert isinstance(found, PromptTried)
    now = "current" if other or not rounds else "current and best"
    names = ["base, seed prompt", *(f"best (round {number})" for number in other)]
    names.append(f"{now} (round {len(rounds)})" if rounds else now)
    return list(zip(names, [*found.beside, found.answer], strict=True))

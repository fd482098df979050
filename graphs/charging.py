"""What measurements take, kept with them: a process that finds them after a kill still charges for them."""

from collections.abc import Callable

from agent.records import Candidate, Measured, Split
from agent.rounds import Spend
from memory.ledger import RunFolder


class Charging:
    """Satisfies `eval.runner.EvaluationStore` with a run folder.

    Args:
        used: a reading of all that has been used up.
        step: the node under way; empty between nodes, when nothing is charged to the run.
    """

    def __init__(self, folder: RunFolder, used: Callable[[], Spend], step: Callable[[], str]) -> None:
        self._folder = folder
        self._used = used
        self._step = step
        self._asked = Spend()

    def load(self, candidate: Candidate, split: Split) -> Measured:
        """What is known of the candidate. From here on counts what it takes to measure the rest."""
        self._asked = self._used()
        return self._folder.load(candidate, split)

    def save(self, measured: Measured) -> None:
        """Keeps it, with what was used up since it was asked for."""
        if step := self._step():
            took = self._used() - self._asked
            self._folder.charge(step, took.model_copy(update={"llm_tokens": 0, "usd": 0.0}))  # those are in calls.jsonl
        self._folder.save(measured)

"""Measurements on their way into the run folder, with what the step under way has used up so far."""

from collections.abc import Callable

from agent.records import Candidate, Measured, Split
from memory.ledger import RunFolder


class Charging:
    """Satisfies `eval.runner.EvaluationStore` with a run folder.

    Args:
        charge: notes what the step under way has used up; called before a measurement is kept, so that a process that
            finds it after a kill still counts what it took.
    """

    def __init__(self, folder: RunFolder, charge: Callable[[], None]) -> None:
        self._folder = folder
        self._charge = charge

    def load(self, candidate: Candidate, split: Split) -> Measured:
        return self._folder.load(candidate, split)

    def save(self, measured: Measured) -> None:
        self._charge()
        self._folder.save(measured)

"""What a step uses up: counted, and noted in the run folder while the step is under way."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agent.records.evaluation import Measurements
from agent.records.examples import Candidate, Split
from agent.records.rounds import Spend
from memory.run.artefacts import Artefacts
from memory.run.charges import ChargeFile


class Meter:
    """Counts what the step under way has used up, in processes that were killed in it, too.

    Args:
        charges: where spend is noted, for the process that goes on after a kill.
        llm_spend: what the LLM has cost the whole run so far.
    """

    def __init__(self, charges: ChargeFile, llm_spend: Callable[[], Spend]) -> None:
        self.deadline: float | None = None  # a reading of time.monotonic(): the end of the run's minutes
        self._charges = charges
        self._llm_spend = llm_spend
        self._step = ""  # empty between steps: nothing is charged then
        self._began = Spend()
        self._added = Spend()
        self._between = Spend()  # used between two steps, for the next one

    def begin(self, step: str, before: Spend, minutes: float | None) -> None:
        """Begin to count a step, and set the deadline for all that waits in it.

        Args:
            step: the node and its round: the same after a kill.
            before: what the steps before have counted. What killed processes used up in this step is counted, too, and
                what they paid the LLM.
            minutes: the run's budget; None: no limit.
        """
        earlier = self._charges.begin(step) + self._between
        self._set_deadline(minutes, before.seconds + earlier.seconds)
        began = self.used().model_copy(update={"llm_tokens": before.llm_tokens, "usd": before.usd})
        self._step, self._began, self._between = step, began - earlier, Spend()

    def end(self) -> None:
        """The step is over, or was broken off: what is used up from here on, a user's time say, is no step's."""
        self._step = ""

    @contextmanager
    def between_steps(self, before: Spend, minutes: float | None) -> Iterator[None]:
        """Count work that is no step's own, such as an agent's looks. The next step of this process is charged for it.

        Args:
            before, minutes: as for `begin`.
        """
        self._set_deadline(minutes, before.seconds + self._between.seconds)
        began = self.used()
        try:
            yield
        finally:
            used = self.used() - began
            self._between += used.model_copy(update={"llm_tokens": 0, "usd": 0.0})  # those are in calls.jsonl

    def _set_deadline(self, minutes: float | None, seconds_used: float) -> None:
        self.deadline = None if minutes is None else time.monotonic() + minutes * 60 - seconds_used

    def add(self, spend: Spend) -> None:
        """Count what a call has used up, as the call goes on; the next `charge` notes it."""
        self._added += spend

    def charge(self) -> None:
        """Note what the step under way has used up: were the process killed now, the next one would count it."""
        if self._step:
            own = self.spent.model_copy(update={"llm_tokens": 0, "usd": 0.0})  # those are in calls.jsonl
            self._charges.charge(self._step, own)

    def borrow(self, spend: Spend) -> None:
        """Count work that another process or run did, and that is taken over as if it were done in this step."""
        self.add(spend)
        self.charge()

    def used(self) -> Spend:
        """What has been used up: a reading to subtract an earlier one from."""
        return Spend(seconds=time.monotonic()) + self._added + self._llm_spend()

    @property
    def spent(self) -> Spend:
        """What the step under way has used up so far, and the run's spend does not have yet."""
        return self.used() - self._began

    @property
    def counted(self) -> Spend:
        """What the step used up before the run began anew from its ledger: the run's spend has that already."""
        return self._charges.counted(self._step)


class ChargedStore:
    """Satisfies `eval.runner.EvaluationStore` with a run folder.

    Args:
        charge: notes what the step under way has used up; called before a measurement is kept, so that a process that
            finds it after a kill still counts what it took.
    """

    def __init__(self, folder: Artefacts, charge: Callable[[], None]) -> None:
        self._folder = folder
        self._charge = charge

    def load(self, candidate: Candidate, split: Split) -> Measurements:
        return self._folder.load(candidate, split)

    def save(self, measured: Measurements) -> None:
        self._charge()
        self._folder.save(measured)

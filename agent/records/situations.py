"""A situation that a planner may be asked about, and what each lever then really brought."""

from typing import Literal

from pydantic import Field

from agent.records.actions import Action, TrainLora
from agent.records.base import Record
from agent.records.looks import FailingRow
from agent.records.rounds import Round
from agent.records.signal import Diagnosis, Signal

Pull = Literal["edit", "original", "refined", "none"]
AS_GOOD = 0.05  # reward; of some thirty rows, one or two
AS_CHEAP = 2.0  # times the forward tokens of the cheapest that is as good


class Situation(Record):
    """What stood before a round of a real run, and the validation reward after it, lever by lever."""

    name: str
    task: dict[str, object] = Field(description="the task's settings, as far as they are not the defaults")
    signal: Signal
    diagnosis: Diagnosis
    history: tuple[Round, ...] = ()
    failures: tuple[FailingRow, ...] = ()
    outcomes: dict[Pull, float] = Field(description="joint reward on the validation rows after the round")
    costs: dict[Pull, int] = Field({}, description="forward tokens of the round")

    @property
    def best(self) -> tuple[Pull, ...]:
        """What brought as much as any, but for a row or two, and at most twice the cost of the cheapest of those."""
        most = max(self.outcomes.values())
        good = {pull: self.costs.get(pull, 0) for pull, reward in self.outcomes.items() if reward >= most - AS_GOOD}
        return tuple(pull for pull, cost in good.items() if cost <= AS_CHEAP * min(good.values()))


def pull_of(action: Action) -> Pull:
    """What an action comes down to. A rollback, like a stop, leaves the pair that stands."""
    match action:
        case TrainLora(rows="original"):
            return "original"
        case TrainLora():
            return "refined"
        case _:
            return "edit" if action.action == "edit_prompt" else "none"

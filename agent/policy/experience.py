"""What a round teaches later runs: what was seen, what was done, what it brought and what it took."""

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from agent.records.actions import Action, EditPrompt, TrainLora
from agent.records.base import Record
from agent.records.rounds import Round
from agent.records.signal import Need, Signal
from agent.signal.outlook import BOTH_MEASURES, gain_per_need, realised_gain


class Experience(Record):
    """One round of one run. `gain` is in merit, `cost` in forward tokens (`Spend.forward_tokens`)."""

    run: str
    number: int = Field(description="of the round in its run")
    task: str
    model: str
    signal: Signal = Field(description="before the round, with both outlooks")
    shares: dict[Need, float] = Field(description="of all validation rows that have just this need, as diagnosed")
    move: Annotated[TrainLora | EditPrompt, Field(discriminator="action")]
    gain: float = Field(description="what the run gained by the round: 0 where it was taken back")
    cost: int
    kept: bool
    planner: str = Field("", description="the LLM that chose it, where one did")
    instead_of: Action | None = Field(None, description="what the rules would have done, where an LLM chose")
    origin: str = Field("", description="the folder of its run, where rounds of several stand together")

    @property
    def key(self) -> tuple[str, str, int]:
        """A round teaches once, however often it was written down. Names of runs only differ within one folder."""
        return self.origin, self.run, self.number

    @property
    def mendable(self) -> float:
        """Merit that the lever could have mended."""
        gains = gain_per_need(self.move, self.signal)
        return sum(gain * self.shares.get(need, 0.0) for need, gain in gains.items())

    @property
    def not_mendable(self) -> float:
        """Merit of the failing rows, at one factor each, that is not thought to be this lever's to mend."""
        return max(0.0, BOTH_MEASURES * sum(self.shares.values()) - self.mendable)


def experience(row: Round, run: str, task: str, model: str) -> Experience | None:
    """What a round of the ledger teaches; None for a rollback, which pulls no lever, and for a cancelled action."""
    decision = row.decision
    action = decision.move
    if not isinstance(action, TrainLora | EditPrompt) or row.trial.cancelled:
        return None
    planner, would = (decision.standing, decision.alternative) if decision.by == "planner" else (None, None)
    return Experience(
        run=run, number=row.number, task=task, model=model, signal=row.signal, shares=row.diagnosis.shares, move=action,
        gain=realised_gain(row), cost=row.trial.spend.forward_tokens, kept=row.verdict.kept,
        planner=planner.llm if planner else "", instead_of=would.action if would else None,
    )  # fmt: skip


def distinct(lines: Iterable[Experience]) -> tuple[Experience, ...]:
    """Each round once, in an order of their own: whoever learns from them learns the same from any order."""
    return tuple(sorted({line.key: line for line in lines}.values(), key=lambda line: line.key))

"""What a report tells of the external LLM: usage by role, money over rounds, planner against rules, remade rows."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from agent.records.rounds import Baseline, Outcome, Remaking, Role, Round, Usage
from ui.report.charts import Bill
from ui.wording import plural


class Server(BaseModel):
    """What a report needs of a task's `llm`: the model's name, for all and of a role's own."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: str | None = None
    planner: "Server | None" = None
    editor: "Server | None" = None
    judge: "Server | None" = None

    def model_of(self, role: Role) -> str | None:
        own: Server | None = getattr(self, role)
        return (own and own.model) or self.model


class Side(NamedTuple):
    """Rounds of one kind, to be set beside those of another. `gain` is the mean of their trials' joint rewards."""

    label: str
    rounds: int
    kept: int
    gain: float


def planned(rounds: Sequence[Round]) -> list[Side]:
    """The planner's rounds: those in which the rules would have pulled the same lever, and the others."""
    own = [row for row in rounds if row.decision.by == "planner"]
    labels = {True: "the same lever as the rules", False: "another lever", None: "not known what the rules would have"}
    sides = [side(label, [row for row in own if row.decision.agrees is way]) for way, label in labels.items()]
    return [one for one in sides if one]


def agreement(rounds: Sequence[Round]) -> str:
    """How often planner and rules agreed, and how often the rules had to stand in."""
    by = [row.decision.by for row in rounds]
    own, rules = by.count("planner"), plural(by.count("rules"), "round")
    if not own:
        return f"The planner decided nothing: in {rules} the rules stood in for it."
    agreed = sum(row.decision.by == "planner" and row.decision.agrees is True for row in rounds)
    said = (
        f"The planner decided {plural(own, 'round')}; in {agreed} of them the rules would have pulled the same lever."
    )
    return f"{said} In {rules} the rules stood in for it." if "rules" in by else said


def side(label: str, rounds: Sequence[Round]) -> Side | None:
    """None without rounds."""
    if not rounds:
        return None
    kept = sum(row.verdict.kept for row in rounds)
    return Side(label, len(rounds), kept, fmean(row.verdict.gain for row in rounds))


def remade(rounds: Sequence[Round]) -> Remaking | None:
    """The remaking of all rounds together; None where no rewrite was asked for. Rewards are means over those tried."""
    made = [row.trial.remaking for row in rounds if row.trial.remaking and row.trial.remaking.asked]
    if not made:
        return None
    tried = sum(one.tried for one in made)
    return Remaking(
        asked=sum(one.asked for one in made),
        tried=tried,
        kept=sum(one.kept for one in made),
        recalled=sum(one.recalled for one in made),
        before=sum(one.before * one.tried for one in made) / max(1, tried),
        after=sum(one.after * one.tried for one in made) / max(1, tried),
    )


def bills(baseline: Baseline | None, rounds: Sequence[Round], outcome: Outcome | None) -> list[Bill]:
    """What each round cost by role, and what start and end did if they cost anything; empty where nothing was paid."""
    steps = [Bill(label, usd) for label, usd in _steps(baseline, rounds, outcome)]
    steps = [step for step in steps if step.label.isdecimal() or any(step.usd.values())]
    return steps if any(usd for step in steps for usd in step.usd.values()) else []


def _steps(
    baseline: Baseline | None, rounds: Sequence[Round], outcome: Outcome | None
) -> Iterator[tuple[str, dict[str, float]]]:
    """The ledger counts up, so a step is the difference to the row before."""
    before: Mapping[Role, Usage] = {}
    for label, row in [("start", baseline), *((str(row.number), row) for row in rounds), ("end", outcome)]:
        if row is not None:
            yield label, {role: used.usd - before.get(role, Usage()).usd for role, used in row.usage.items()}
            before = row.usage

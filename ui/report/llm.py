"""The external LLM in a report: money over rounds, planner against rules, remade rows."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from agent.records.rounds import Baseline, Outcome, Remaking, Role, Round, Usage
from agent.records.training import Training
from ui.report.charts import Bill
from ui.wording import plural


class RoundGroup(NamedTuple):
    """Rounds of one kind, shown beside those of another. `gain` is the mean gain of their trials in joint reward."""

    label: str
    rounds: int
    kept: int
    gain: float


class LlmSection(NamedTuple):
    """Planner against rules, and remade rows.

    planner_rounds: those in which the rules would have taken the same lever, and the others.
    remaking: of all rounds together; None where no rewrite was asked for.
    rewritten_share: of the rows that the LoRA rounds shown in full trained on.
    lora_rounds: of those rounds, the ones with rewritten rows, and the others.
    """

    agreement: str
    planner_rounds: list[RoundGroup]
    remaking: Remaking | None
    rewritten_share: float
    lora_rounds: list[RoundGroup]


def read_llm_section(rounds: Sequence[Round], trainings: Sequence[tuple[Round, Training]]) -> LlmSection:
    """The section over all rounds, and the trainings of those shown in full."""
    kinds = {"with rewritten rows": True, "without": False}
    groups = [
        round_group(label, [row for row, training in trainings if bool(training.rewritten) is rewritten])
        for label, rewritten in kinds.items()
    ]
    row_count = sum(training.row_count for _, training in trainings)
    return LlmSection(
        agreement=agreement(rounds),
        planner_rounds=planner_rounds(rounds),
        remaking=total_remaking(rounds),
        rewritten_share=sum(training.rewritten for _, training in trainings) / row_count if row_count else 0.0,
        lora_rounds=[group for group in groups if group],
    )


def planner_rounds(rounds: Sequence[Round]) -> list[RoundGroup]:
    """The planner's rounds: those in which the rules would have used the same lever, and the others."""
    own = [row for row in rounds if row.decision.by == "planner"]
    labels = {True: "the same lever as the rules", False: "another lever", None: "not known what the rules would have"}
    groups = [
        round_group(label, [row for row in own if row.decision.agrees is agrees]) for agrees, label in labels.items()
    ]
    return [group for group in groups if group]


def agreement(rounds: Sequence[Round]) -> str:
    """How often planner and rules agreed, and how often the rules had to stand in."""
    by = [row.decision.by for row in rounds]
    own, rules = by.count("planner"), plural(by.count("rules"), "round")
    if not own:
        return f"The planner decided nothing: in {rules} the rules stood in for it."
    agreed = sum(row.decision.by == "planner" and row.decision.agrees is True for row in rounds)
    sentence = (
        f"The planner decided {plural(own, 'round')}; in {agreed} of them the rules would have used the same lever."
    )
    return f"{sentence} In {rules} the rules stood in for it." if "rules" in by else sentence


def round_group(label: str, rounds: Sequence[Round]) -> RoundGroup | None:
    """None without rounds."""
    if not rounds:
        return None
    kept = sum(row.verdict.kept for row in rounds)
    return RoundGroup(label, len(rounds), kept, fmean(row.verdict.gain for row in rounds))


def total_remaking(rounds: Sequence[Round]) -> Remaking | None:
    """The remaking of all rounds together; None where no rewrite was asked for. Rewards are means over those tried."""
    remakings = [row.trial.remaking for row in rounds if row.trial.remaking and row.trial.remaking.asked]
    if not remakings:
        return None
    tried = sum(remaking.tried for remaking in remakings)
    return Remaking(
        asked=sum(remaking.asked for remaking in remakings),
        tried=tried,
        kept=sum(remaking.kept for remaking in remakings),
        recalled=sum(remaking.recalled for remaking in remakings),
        before=sum(remaking.before * remaking.tried for remaking in remakings) / max(1, tried),
        after=sum(remaking.after * remaking.tried for remaking in remakings) / max(1, tried),
    )


def bills(baseline: Baseline | None, rounds: Sequence[Round], outcome: Outcome | None) -> list[Bill]:
    """What each round cost by role; start and end, too, if they cost anything. Empty where nothing was paid."""
    steps = []
    before: Mapping[Role, Usage] = {}  # the ledger counts up, so a step is the difference to the row before
    for label, row in [("start", baseline), *((str(row.number), row) for row in rounds), ("end", outcome)]:
        if row is not None:
            usd: dict[str, float] = {role: used.usd - before.get(role, Usage()).usd for role, used in row.usage.items()}
            steps.append(Bill(label, usd))
            before = row.usage
    steps = [step for step in steps if step.label.isdecimal() or any(step.usd.values())]
    return steps if any(usd for step in steps for usd in step.usd.values()) else []

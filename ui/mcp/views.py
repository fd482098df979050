"""What the tools answer: a run as an agent needs it, in a sentence and as a record."""

from typing import Any

from pydantic import Field

from agent.records.actions import Action, Stop, named
from agent.records.base import Record
from agent.records.examples import Prompt
from agent.records.limits import Limits
from agent.records.rounds import Round, RoundSummary, SplitResult
from graphs.approval import Question
from graphs.control.steering import Condition, RunStatus, Step
from graphs.workbench import summary
from memory.run.folder import RunFolder
from ui import wording
from ui.decision_wording import alternative, decider, reason
from ui.status_wording import progress, standing


class Planned(Record):
    """What would be done next if `continue_run` says yes: an action with its settings, why, and what it costs."""

    round: int
    action: str
    settings: dict[str, Any]
    reason: str
    cost: str
    final: bool = Field(description="whether it ends the run and opens the test rows")


class Tested(Record):
    """Mean reward on the sealed test rows, with its 95 % interval."""

    reward: float
    low: float
    high: float
    rows: int


class RunView(Record):
    """A run now. Rewards are joint rewards (content x style), from 0 to 1, on validation rows."""

    run: str
    condition: Condition
    rounds: int
    seed_reward: float | None
    reward: float | None = Field(description="of the best pair of prompt and adapter")
    limits: Limits
    step: Step | None = None
    planned: Planned | None = None
    new_rounds: tuple[RoundSummary, ...] = Field((), description="rounds that ended during this call")
    test_before: Tested | None = Field(None, description="the seed prompt on the test rows; after the end only")
    test_after: Tested | None = Field(None, description="the best pair on the test rows; after the end only")
    trouble: str = ""
    next: str = Field(description="what can be done now")


class RunLine(Record):
    """A run in a list."""

    run: str
    condition: str
    rounds: int
    seed_reward: float | None
    reward: float | None
    trouble: str = ""


class RunList(Record):
    """The newest first."""

    runs: tuple[RunLine, ...]


class Explained(Record):
    """A round in words, and the numbers that its decision rests on."""

    round: int
    text: str
    numbers: dict[str, float]


class ReportPaths(Record):
    """Files of a run, and its best prompt. `adapter` is a peft folder; null: the bare model is best."""

    html: str
    markdown: str
    prompt: Prompt
    adapter: str | None


class DraftView(Record):
    """A drafted task. `written`: its task.yaml, if it was written."""

    name: str
    columns: dict[str, str]
    counts: dict[str, int]
    content: tuple[dict[str, Any], ...]
    style: tuple[dict[str, Any], ...]
    system: str
    target: float
    why: dict[str, str]
    warnings: tuple[str, ...]
    tried: tuple[dict[str, Any], ...]
    yaml: str
    written: str


def view(folder: RunFolder, status: RunStatus, since: int) -> RunView:
    """The run as it stands.

    Args:
        since: rounds there were when the call began.
    """
    rounds, outcome = folder.rounds(), folder.outcome()
    target = status.limits.target or 1.0
    new = tuple(summary(row, target, max(0, status.limits.rounds - row.number)) for row in rounds[since:])
    return RunView(
        run=status.run,
        condition=status.condition,
        rounds=status.rounds,
        seed_reward=status.seed_reward,
        reward=status.reward,
        limits=status.limits,
        step=status.step,
        planned=planned(status.question) if status.question else None,
        new_rounds=new,
        test_before=_tested(outcome.baseline_test) if outcome else None,
        test_after=_tested(outcome.best_test) if outcome else None,
        trouble=status.trouble,
        next=_next(status),
    )


def planned(question: Question) -> Planned:
    move = question.decision.move
    return Planned(
        round=question.number,
        action=move.action,
        settings=move.model_dump(mode="json", exclude={"action"}),
        reason=reason(question.decision),
        cost=wording.action_cost(question.cost),
        final=isinstance(move, Stop),
    )


def training(action: Action, question: Question | None) -> str:
    """A training that a person is asked about: whole where it is in place of a plan, else as it was asked for."""
    if question is None:
        asked = ", ".join(f"{setting} {value}" for setting, value in named(action).items()) or "no settings"
        return f"train_lora with {asked}; what is not named is as planned then, or as the rules have it."
    cost = f" Cost: {wording.action_cost(question.cost)}." if question.decision.move == action else ""
    return f"{action}.{cost}"


def in_words(now: RunView) -> str:
    """The run in a few lines."""
    lines = [f"{standing(now)}."]
    for row in now.new_rounds:
        kept = "kept" if row.kept else "taken back"
        lines.append(f"Round {row.number}, {row.action}: {row.note} {kept}: {row.reason}")
    if now.step:
        lines.append(f"Now: {progress(now.step)}.")
    if now.planned:
        end = " This ends the run." if now.planned.final else ""
        lines.append(f"Planned: {now.planned.action} {now.planned.settings}. {now.planned.reason}{end}")
        lines.append(f"Cost: {now.planned.cost}.")
    if now.test_before and now.test_after:
        tests = f"{now.test_before.reward:.2f} → {now.test_after.reward:.2f}"
        lines.append(
            f"On {now.test_after.rows} test rows: {tests} [{now.test_after.low:.2f}, {now.test_after.high:.2f}]."
        )
    if now.trouble:
        lines.append(f"Trouble: {now.trouble}")
    return "\n".join([*lines, now.next])


def explained(row: Round) -> Explained:
    verdict = row.verdict
    lines = [
        f"Round {row.number}: {row.decision.move}",
        f"Decided by {decider(row.decision)}: {reason(row.decision)}",
        *([f"Instead of: {would}"] if (would := alternative(row.decision)) else []),
        f"Done: {row.trial.note}",
        f"{wording.kept(row).capitalize()}: {verdict.reason}",
        f"On the rows that decided: {verdict.before:.3f} → {verdict.after:.3f}, p {wording.evidence(verdict)}",
        f"Cost: {wording.cost(row.trial.spend)}",
    ]
    return Explained(round=row.number, text="\n".join(lines), numbers=row.decision.numbers)


def _tested(result: SplitResult) -> Tested:
    return Tested(reward=result.reward, low=result.low, high=result.high, rows=result.rows)


def _next(status: RunStatus) -> str:
    match status.condition:
        case "working" if not status.pid:
            return "Nothing can be done here: wait for whoever has it."
        case "working":
            return "It works; ask `status` with `wait`."
        case "waiting":
            return "Next: continue_run for what is planned, or train_lora, edit_prompt, rollback, finish."
        case "finished":
            return "The run has ended; `report` says where the report is, `extend` opens it again."
        case "paused":
            return "It is paused: continue_run goes on."
        case _:
            return "No process works on it: any action goes on with it."

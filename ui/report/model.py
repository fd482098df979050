"""The facts of a report, read from a run folder: what both templates are filled with."""

from collections.abc import Mapping
from typing import NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from agent.config.policies import OBSERVING
from agent.config.task import Budget
from agent.errors import BadInput
from agent.records.evaluation import ExampleScore
from agent.records.examples import Candidate, Example, Prompt, Split
from agent.records.rounds import Baseline, Outcome, Remaking, Role, Round, Spend, Usage
from memory.run.folder import RunFolder
from ui.report.llm import Server, Side, agreement, planned, remade, side
from ui.report.sections import LONG, Chapter, Training, read_chapters

MOST_PAIRS = 12


class Brief(BaseModel):
    """What a report needs of a task.yaml."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    model: str
    policy: str
    target: float
    budget: Budget
    planner: str = "none"
    llm: Server | None = None

    @property
    def plans(self) -> bool:
        """As TaskConfig has it: what does not observe asks no planner."""
        return self.planner == "llm" and self.policy in OBSERVING


class Pair(NamedTuple):
    """One row's output before (seed prompt) and after (best pair), with the row itself where it is known."""

    before: ExampleScore
    after: ExampleScore
    row: Example | None

    @property
    def changed(self) -> float:
        """How far reward and merit moved; a little for other words of equal worth."""
        moved = abs(self.after.reward - self.before.reward) + abs(self.after.merit - self.before.merit)
        return moved + 1e-6 * (self.after.output != self.before.output)


class Page(NamedTuple):
    """All facts of a report. `standing` are the best pair's scores on validation rows."""

    run: RunFolder
    task: Brief
    baseline: Baseline | None
    rounds: list[Round]
    outcome: Outcome | None
    chapters: list[Chapter]
    prompt: Prompt | None
    split: Split
    pairs: list[Pair]
    standing: list[ExampleScore]

    @property
    def told(self) -> list[Round]:
        """The rounds that are told in full."""
        return [chapter.row for chapter in self.chapters]

    @property
    def trainings(self) -> list[tuple[Round, Training]]:
        """Of the rounds that are told in full."""
        return [(chapter.row, chapter.training) for chapter in self.chapters if chapter.training]

    @property
    def long(self) -> bool:
        return len(self.rounds) > LONG

    @property
    def best(self) -> Candidate | None:
        """The pair that stands, as far as the run has come."""
        row = self._last
        return row.best if row else None

    @property
    def reward(self) -> float | None:
        """The validation reward of the best pair."""
        row = self.rounds[-1] if self.rounds else self.baseline
        return row.reward if row else None

    @property
    def spend(self) -> Spend:
        row = self._last
        return row.spend if row else Spend()

    @property
    def usage(self) -> dict[Role, Usage]:
        """What the external LLM was asked so far, by role; empty where it was not, or an old ledger does not say."""
        return self._last.usage if self._last else {}

    @property
    def total(self) -> Usage:
        return sum(self.usage.values(), Usage())

    @property
    def deciders(self) -> list[str]:
        """Who decided the rounds so far; before the first, who will."""
        names = {"rules": "the rules", "learned": "the learned switch", "planner": "the planner", "user": "the user"}
        policy = names.get(self.task.policy, f"the policy {self.task.policy}")
        return list(dict.fromkeys(names.get(row.decision.by, policy) for row in self.rounds)) or [policy]

    @property
    def alone(self) -> str:
        """Who decided, where no LLM was asked."""
        return f"No external LLM: decided by {' and '.join(self.deciders)}."

    @property
    def planned(self) -> list[Side]:
        return planned(self.rounds)

    @property
    def agreement(self) -> str:
        return agreement(self.rounds)

    @property
    def remade(self) -> Remaking | None:
        return remade(self.rounds)

    @property
    def share(self) -> float:
        """Of the rows that the LoRA rounds told in full trained on: how many were rewritten."""
        rows = sum(training.row_count for _, training in self.trainings)
        return sum(training.rewritten for _, training in self.trainings) / rows if rows else 0.0

    @property
    def taught(self) -> list[Side]:
        """LoRA rounds told in full: those that trained on rewritten rows, and the others."""
        kinds = {"with rewritten rows": True, "without": False}
        sides = [
            side(label, [row for row, training in self.trainings if bool(training.rewritten) is some])
            for label, some in kinds.items()
        ]
        return [one for one in sides if one]

    @property
    def reached(self) -> bool:
        return self.reward is not None and self.reward >= self.task.target

    @property
    def out_of_window(self) -> list[str]:
        """Sentences about rows that the model could not answer for their length."""
        fitting, said = self.run.fitting(), []
        if fitting and fitting.too_long:
            fate = "were left out of the run" if fitting.left_out else "count as wrong"
            said.append(
                f"Too long for the model's window of {fitting.window} tokens under the seed prompt, so that they "
                f"{fate}: {len(fitting.too_long)} validation and test rows ({', '.join(fitting.too_long[:MOST_PAIRS])}"
                f"{', …' if len(fitting.too_long) > MOST_PAIRS else ''})."
            )
        if self.outcome and (lost := self.outcome.best_test.too_long):
            said.append(
                f"Under the best pair's prompt, {lost} test rows do not fit into the window and count as wrong."
            )
        return said

    @property
    def _last(self) -> Baseline | Round | Outcome | None:
        return self.outcome or (self.rounds[-1] if self.rounds else self.baseline)


def read_page(run: RunFolder, rows: Mapping[str, Example]) -> Page:
    """Reads what the ledger and the artefacts say; a missing evaluation or training log leaves its place empty.

    Raises:
        BadInput: the task.yaml or a prompt of the run cannot be read.
    """
    baseline, rounds, outcome = run.baseline(), run.rounds(), run.outcome()
    split: Split = "test" if outcome else "validation"
    page = Page(
        run=run,
        task=_brief(run),
        baseline=baseline,
        rounds=rounds,
        outcome=outcome,
        chapters=read_chapters(run, baseline, rounds),
        prompt=None,
        split=split,
        pairs=[],
        standing=[],
    )
    if baseline is None or page.best is None:
        return page
    return page._replace(
        prompt=run.prompt(page.best.prompt),
        pairs=_pairs(run, baseline.seed, page.best, split, rows),
        # Of a row that was measured in several ways, the last.
        standing=list({score.example: score for score in run.load(page.best, "validation").scores.values()}.values()),
    )


def _brief(run: RunFolder) -> Brief:
    try:
        return Brief.model_validate(yaml.safe_load(run.task_file.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise BadInput(f"{run.task_file} cannot be read: {error}. Put it back from a copy.") from error


def _pairs(run: RunFolder, seed: Candidate, best: Candidate, split: Split, rows: Mapping[str, Example]) -> list[Pair]:
    """Rows that both pairs answered, those that changed most first."""
    answered = {score.example: score for score in run.load(seed, split).scores.values()}
    pairs = [
        Pair(answered[score.example], score, rows.get(score.example))
        for score in {score.example: score for score in run.load(best, split).scores.values()}.values()
        if score.example in answered
    ]
    return sorted(pairs, key=lambda pair: -pair.changed)[:MOST_PAIRS]

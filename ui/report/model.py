"""The report model: the facts of a report, read from a run folder, that both templates are filled with."""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import NamedTuple

from agent.config.task import TaskConfig
from agent.records.evaluation import ExampleScore
from agent.records.examples import Candidate, Example, Prompt, Split
from agent.records.rounds import Baseline, Outcome, Role, Round, Spend, Usage
from agent.records.training import Training
from eval.tasks.task import load_config
from memory.run.folder import RunFolder
from ui import wording
from ui.report.llm import LlmSection, read_llm_section
from ui.report.sections import LONG, RoundSection, read_sections

MOST_PAIRS = 12


class OutputPair(NamedTuple):
    """One row's output before (seed prompt) and after (best pair), with the row itself where it is known."""

    before: ExampleScore
    after: ExampleScore
    row: Example | None

    @property
    def changed(self) -> float:
        """How far reward and merit moved; a little where only the words changed."""
        moved = abs(self.after.reward - self.before.reward) + abs(self.after.merit - self.before.merit)
        return moved + 1e-6 * (self.after.output != self.before.output)


class Report(NamedTuple):
    """All facts of a report.

    trainings: of the rounds shown in full.
    best_scores: of the best pair, on the validation rows.
    """

    run: RunFolder
    task: TaskConfig
    baseline: Baseline | None
    rounds: list[Round]
    outcome: Outcome | None
    sections: list[RoundSection]
    trainings: list[tuple[Round, Training]]
    llm: LlmSection
    prompt: Prompt | None
    split: Split
    pairs: list[OutputPair]
    best_scores: list[ExampleScore]

    @property
    def detailed(self) -> list[Round]:
        """The rounds that are shown in full."""
        return [section.row for section in self.sections]

    @property
    def long(self) -> bool:
        return len(self.rounds) > LONG

    @property
    def best(self) -> Candidate | None:
        """The best pair so far."""
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

    def model_of(self, role: Role) -> str:
        """What was asked in a role."""
        if role == "engine":
            return self.task.model
        return self.task.llm.of(role).model if self.task.llm else wording.NOT_KNOWN

    @property
    def asked_llm(self) -> bool:
        """Whether the external LLM was asked."""
        return any(role != "engine" for role in self.usage) if self.usage else bool(self.spend.llm_tokens)

    @property
    def total(self) -> Usage:
        return sum(self.usage.values(), Usage())

    @property
    def deciders(self) -> list[str]:
        """Who decided the rounds so far; before the first, who will."""
        names = {
            "rules": "the rules",
            "learned": "the learned switch",
            "paper": "the paper's switch",
            "planner": "the planner",
            "user": "the user",
        }
        policy = names.get(self.task.policy, f"the policy {self.task.policy}")
        return list(dict.fromkeys(names.get(row.decision.by, policy) for row in self.rounds)) or [policy]

    @property
    def alone(self) -> str:
        """Who decided, where no LLM was asked."""
        return f"No external LLM: decided by {' and '.join(self.deciders)}."

    @property
    def verdict(self) -> str:
        """What came of it, in a few words."""
        if self.baseline is None:
            return "not begun"
        if self.outcome is None:
            return "not finished"
        if self.reached:
            return "target reached"
        return "nothing gained" if self.best in self.baseline.brought else "improved, below the target"

    @property
    def reached(self) -> bool:
        return self.reward is not None and self.reward >= self.task.target

    @property
    def out_of_window(self) -> list[str]:
        """Sentences about rows that are too long for the model."""
        fitting, sentences = self.run.fitting(), []
        if fitting and fitting.too_long:
            fate = "were left out of the run" if fitting.left_out else "count as wrong"
            sentences.append(
                f"Too long for the model's window of {fitting.window} tokens under the seed prompt, so that they "
                f"{fate}: {len(fitting.too_long)} validation and test rows ({', '.join(fitting.too_long[:MOST_PAIRS])}"
                f"{', …' if len(fitting.too_long) > MOST_PAIRS else ''})."
            )
        if self.outcome and (lost := self.outcome.best_test.too_long):
            sentences.append(
                f"Under the best pair's prompt, {lost} test rows do not fit into the window and count as wrong."
            )
        return sentences

    @property
    def sealing(self) -> str:
        """Whether the test rows were seen before the result that stands, in a sentence."""
        before = [wording.number(outcome.best_test.reward) for outcome in self.run.outcomes()]
        if self.outcome:
            before = before[:-1]
        if not before:
            return "The test rows were opened once, at the end." if self.outcome else "The test rows are still sealed."
        seen = f"The test rows were seen before, when the best pair earned {', then '.join(before)}"
        if self.outcome:
            return f"{seen}. The run was extended after that, so this result is no blind one any more."
        return f"{seen}. The run was extended after that, and its next result will say so."

    @property
    def _last(self) -> Baseline | Round | Outcome | None:
        return self.outcome or (self.rounds[-1] if self.rounds else self.baseline)


def read_report(run: RunFolder, rows: Mapping[str, Example]) -> Report:
    """Read what the ledger and the artefacts say; a missing evaluation or training log leaves its place empty.

    Raises:
        BadInput: the task.yaml or a prompt of the run cannot be read.
    """
    baseline, rounds, outcome = run.baseline(), run.rounds(), run.outcome()
    split: Split = "test" if outcome else "validation"
    sections = read_sections(run, baseline, rounds)
    trainings = [(section.row, section.training) for section in sections if section.training]
    report = Report(
        run=run,
        task=load_config(run.task_file).limited(run.limits()),
        baseline=baseline,
        rounds=rounds,
        outcome=outcome,
        sections=sections,
        trainings=trainings,
        llm=read_llm_section(rounds, trainings),
        prompt=None,
        split=split,
        pairs=[],
        best_scores=[],
    )
    if baseline is None or report.best is None:
        return report
    # A row that was measured in several ways stands there several times; the last one counts.
    best_scores = {score.example: score for score in run.load(report.best, "validation").scores.values()}
    return report._replace(
        prompt=run.prompt(report.best.prompt),
        pairs=read_pairs(run, baseline.seed, report.best, split, rows),
        best_scores=list(best_scores.values()),
    )


def read_pairs(
    run: RunFolder, seed: Candidate, best: Candidate, split: Split, rows: Mapping[str, Example]
) -> list[OutputPair]:
    """Rows that both pairs answered, as `in_turn` has them."""
    answered = {score.example: score for score in run.load(seed, split).scores.values()}
    pairs = [
        OutputPair(answered[score.example], score, rows.get(score.example))
        for score in {score.example: score for score in run.load(best, split).scores.values()}.values()
        if score.example in answered
    ]
    return in_turn(pairs)


def in_turn(pairs: Sequence[OutputPair]) -> list[OutputPair]:
    """A row that changed most and one that is wrong now, in turn; not more than people look at."""
    changed = sorted(pairs, key=lambda pair: -pair.changed)
    wrong = [pair for pair in changed if pair.after.reward < 1]
    mixed = (pair for both in zip_longest(changed, wrong) for pair in both if pair)
    return list({pair.after.example: pair for pair in mixed}.values())[:MOST_PAIRS]

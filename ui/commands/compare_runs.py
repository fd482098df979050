"""`nesylora compare RUN RUN`: runs side by side, and, of the same task, whether one is better beyond chance."""

from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from agent.errors import BadInput
from agent.policy.learned import short
from agent.records.rounds import Baseline, Outcome, Round
from memory.run.folder import RunFolder
from ui import wording
from ui.report.diff import unified


class Finished(NamedTuple):
    """A run that has ended."""

    run: RunFolder
    first: Baseline
    rounds: list[Round]
    outcome: Outcome

    @property
    def kept(self) -> str:
        """The levers of the rounds that were kept, in order."""
        kept = [row.decision.move for row in self.rounds if row.verdict.kept]
        return " ".join(f"{wording.mark(move)} {wording.lever(move)}" for move in kept) or "none"

    @property
    def curve(self) -> str:
        """Validation reward, round after round, the latest."""
        return wording.sparkline([self.first.reward, *(row.reward for row in self.rounds)][-24:])

    @property
    def rewards(self) -> dict[str, float]:
        """Of the best pair, by test row."""
        scores = self.run.load(self.outcome.best, "test").scores.values()
        return {score.example: score.reward for score in scores}


def compare_runs(folders: Sequence[RunFolder]) -> int:
    """Print a column for each run, and a paired comparison of the last against the first.

    Raises:
        BadInput: one of them has not ended.
    """
    runs = [_finished(folder) for folder in folders]
    console = Console(highlight=False)
    table = Table("", *(escape(run.run.name) for run in runs))
    for label, cells in _lines(runs):
        table.add_row(label, *map(Text, cells))
    console.print(table)
    console.print(_difference(runs[0], runs[-1]), soft_wrap=True, markup=False)
    old, new = (run.run.prompt(run.outcome.best.prompt) for run in (runs[0], runs[-1]))
    if old != new:
        console.print(f"\nBest prompts, {runs[0].run.name} → {runs[-1].run.name}:", markup=False)
        console.print(wording.cut(unified(old, new), 4000), soft_wrap=True, markup=False)
    return 0


def _lines(runs: Sequence[Finished]) -> list[tuple[str, list[str]]]:
    outcomes = [run.outcome for run in runs]
    return [
        ("task", [run.run.about.task for run in runs]),
        ("test reward, seed prompt", [wording.interval(outcome.baseline_test) for outcome in outcomes]),
        ("test reward, best pair", [wording.interval(outcome.best_test) for outcome in outcomes]),
        ("content, style", [f"{o.best_test.content:.2f}, {o.best_test.style:.2f}" for o in outcomes]),
        ("validation, round by round", [run.curve for run in runs]),
        ("rounds", [str(len(run.rounds)) for run in runs]),
        ("kept", [run.kept for run in runs]),
        ("forward tokens", [short(outcome.spend.forward_tokens) for outcome in outcomes]),
        ("time", [wording.duration(outcome.spend.seconds) for outcome in outcomes]),
        ("money", [wording.money(outcome.spend.usd) for outcome in outcomes]),
        ("drift", [wording.number(outcome.drift_of_best) for outcome in outcomes]),
        ("stopped", [outcome.stopped for outcome in outcomes]),
    ]  # fmt: skip


def _difference(first: Finished, last: Finished) -> str:
    """The paired difference on the test rows, in a sentence."""
    if first.run.about.digest != last.run.about.digest:
        return "They are of other rows or scorers, so their rewards do not compare."
    from eval.stats import sign_flip

    before, after = first.rewards, last.rewards
    rows = [row for row in before if row in after]
    if not rows:
        return "Their test rows have no answers on disk to compare."
    gain = sum(after[row] - before[row] for row in rows) / len(rows)
    better, worse = (first, last) if gain < 0 else (last, first)
    p = sign_flip([(better.rewards[row] - worse.rewards[row]) for row in rows])
    chance = "beyond chance" if p <= 0.05 else "within chance"
    return (
        f"On {wording.plural(len(rows), 'test row')}, {better.run.name} is {wording.signed(abs(gain))} better than "
        f"{worse.run.name}, {chance} (p {wording.p_value(p)}, one-sided, paired)."
        if gain
        else f"On {wording.plural(len(rows), 'test row')} they earn the same."
    )


def _finished(folder: RunFolder) -> Finished:
    first, outcome = folder.baseline(), folder.outcome()
    if first is None or outcome is None:
        raise BadInput(f"Run {folder.name} has not ended, so its test rows are sealed. Go on with: nesylora resume")
    return Finished(folder, first, folder.rounds(), outcome)

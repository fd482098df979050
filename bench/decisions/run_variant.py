"""A run of a variant from its start, or from where it was interrupted, to its row."""

from collections.abc import Sequence
from pathlib import Path

from agent.protocols import Listener
from agent.records.rounds import Baseline, Round, Spend
from bench.decisions.suite import Reached, Result, Variant
from graphs.context import new_run
from graphs.session import open_session
from memory.run.folder import RunFolder
from ui.report.write import write_report

ALONE = ("recall.prompts=0", "experience=practice")
LETTERS = {"edit_prompt": "p", "train_lora": "w", "rollback": "b"}


def play(
    task: Path, overrides: Sequence[str], folder: Path, name: str, *, listener: Listener | None = None, pool: str = ""
) -> RunFolder:
    """The finished run of this name in `folder`. No run sees what another one remembered: it recalls nothing, and
    learns from practice, unless the overrides say otherwise.

    Args:
        pool: see `graphs.context.Context`.
    """
    path = folder / name
    opened = (path / "run.json").is_file()
    run = RunFolder.open(path) if opened else new_run(task, [*ALONE, *overrides], folder, name)
    if run.outcome() is None:
        with open_session(run, pool=pool, listener=listener, report=write_report) as session:
            session.go()
    return run


def result(run: RunFolder, variant: Variant, seed: int, target: float) -> Result:
    """The row of a finished run; `target` is its task's."""
    outcome, rounds = run.outcome(), run.rounds()
    assert outcome, "an unsupervised run ends with an outcome"
    scores = run.load(outcome.best, "test").scores.values()
    return Result(
        task=run.about.task, policy=variant.name, settings=variant.settings, seed=seed, run=run.name,
        rounds=len(rounds), kept_edits=_kept(rounds, "edit_prompt"), kept_lora=_kept(rounds, "train_lora"),
        spend=before_test(run), baseline=outcome.baseline_test, best=outcome.best_test,
        rewards={score.example: score.reward for score in scores}, target=target,
        reached=_reached(run, target), levers="".join(map(_lever, rounds)), stopped=outcome.stopped,
    )  # fmt: skip


def before_test(run: RunFolder) -> Spend:
    """What a run that has a baseline had used up before it opened the test rows."""
    return _rows(run)[-1].spend


def _kept(rounds: Sequence[Round], action: str) -> int:
    return sum(row.verdict.kept and row.decision.move.action == action for row in rounds)


def _reached(run: RunFolder, target: float) -> Reached | None:
    spend = next((row.spend for row in _rows(run) if row.reward >= target), None)
    return Reached(passes=spend.passes, seconds=spend.seconds) if spend else None


def _rows(run: RunFolder) -> list[Baseline | Round]:
    first = run.baseline()
    return [*([first] if first else []), *run.rounds()]


def _lever(row: Round) -> str:
    return LETTERS.get(row.decision.move.action, "") + ("✓" if row.verdict.kept else "✗")

"""A run of a variant, from its start or from where it was interrupted, to its row; and the oracle's search."""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

from agent.protocols import Listener
from agent.records.examples import Candidate
from agent.records.rounds import Baseline, Outcome, Round
from bench.decisions.folder import Group
from bench.decisions.results import ORACLE, Reached, Result, Variant
from graphs.context import new_run
from graphs.session import open_session
from memory.run.folder import RunFolder
from ui.report.write import write_report

ALONE = ("recall.prompts=0", "experience=practice")  # no run sees what another one remembered
LETTERS = {"edit_prompt": "p", "train_lora": "w", "rollback": "b"}
ORACLE_ACTIONS = "por"  # an edit, weights on rows as given, weights on refined rows


def run_variant(group: Group, variant: Variant, folder: Path, listener: Listener) -> Result:
    """Run one variant of a group, in the group's folder. The runs of a group share answers and adapters.

    Returns:
        Its row; that of the oracle is the row of the best run that its search found.

    Raises:
        NesyLoraError: the run failed.
    """

    def run(settings: Sequence[str], name: str) -> RunFolder:
        overrides = [*group.overrides, *settings, f"seed={group.seed}"]
        pool = str(folder / "pool")
        return finished_run(Path(group.task), overrides, folder, name, listener=listener, pool=pool)

    if variant.name == ORACLE:
        best = best_run(group.rounds, group.target, lambda steps: run((f"policy=steps {steps}",), f"steps-{steps}"))
        return result(best, variant, group.seed, group.target)
    return result(run(variant.settings, variant.folder), variant, group.seed, group.target)


def finished_run(
    task: Path, overrides: Sequence[str], folder: Path, name: str, *, listener: Listener | None = None, pool: str = ""
) -> RunFolder:
    """The run of this name in `folder`, run to its end; an interrupted one goes on, a finished one is only opened.

    It recalls nothing of other runs, and learns from practice only, unless the overrides say otherwise.

    Args:
        pool: folder of the answers and adapters that runs share, or empty; see `graphs.context.Context`.

    Raises:
        NesyLoraError: the run failed.
    """
    run = begun_run(task, overrides, folder, name)
    if run.outcome() is None:
        with open_session(run, pool=pool, listener=listener, report=write_report) as session:
            _ = session.services.backbone  # loaded before the clock starts: the first of several runs would pay for all
            session.go()
    return run


def begun_run(task: Path, overrides: Sequence[str], folder: Path, name: str) -> RunFolder:
    """The run of this name in `folder`, laid out if there is none yet; see `finished_run`."""
    path = folder / name
    opened = (path / "run.json").is_file()
    return RunFolder.open(path) if opened else new_run(task, [*ALONE, *overrides], folder, name)


def result(run: RunFolder, variant: Variant, seed: int, target: float) -> Result:
    """The row of a finished run.

    Args:
        target: the task's; `reached` is the first row of the ledger with this validation reward.
    """
    outcome, rounds, measured = _outcome(run), run.rounds(), _measured_rows(run)
    scores = run.load(outcome.best, "test").scores.values()
    reached = next((row.spend for row in measured if row.reward >= target), None)

    levers = [LETTERS.get(row.decision.move.action, "") + ("✓" if row.verdict.kept else "✗") for row in rounds]

    def kept(action: str) -> int:
        return sum(row.verdict.kept and row.decision.move.action == action for row in rounds)

    return Result(
        task=run.about.task, policy=variant.name, settings=variant.settings, seed=seed, run=run.name,
        rounds=len(rounds), kept_edits=kept("edit_prompt"), kept_lora=kept("train_lora"),
        spend=measured[-1].spend, baseline=outcome.baseline_test, best=outcome.best_test,
        rewards={score.example: score.reward for score in scores}, target=target,
        reached=Reached(passes=reached.forward_tokens, seconds=reached.seconds) if reached else None,
        levers="".join(levers), stopped=outcome.stopped,
        commonest=outcome.commonest.reward if outcome.commonest else None,
        most_alike=outcome.commonest.most if outcome.commonest else None, drift=outcome.drift_of_best,
    )  # fmt: skip


def best_run(rounds: int, target: float, run: Callable[[str], RunFolder]) -> RunFolder:
    """The oracle: the run with the actions that a greedy search ends with. What the search costs is not counted.

    At each depth every action is tried after those kept so far. Of the runs that changed the pair, the one with the
    highest validation reward is kept; ties go to merit, then to the cheaper run. This is no upper bound: the search
    looks one round ahead, and chooses by validation rows as policies do.

    Args:
        run: the finished run of these actions, one letter of `ORACLE_ACTIONS` a round (policy `steps …`).
    """
    steps, best = "", None
    while len(steps) < rounds:
        tried = {steps + action: run(steps + action) for action in ORACLE_ACTIONS}
        before = _pair(best) if best else None
        changed = {name: found for name, found in tried.items() if _pair(found) != (before or _baseline(found).best)}
        if not changed:
            return best or tried[steps + ORACLE_ACTIONS[0]]
        steps, best = max(changed.items(), key=lambda item: _worth(item[1]))
        if _reward(best) >= target:
            return best
    assert best is not None, "a task has at least one round"
    return best


def _worth(run: RunFolder) -> tuple[float, float, float]:
    """Compared in this order; rounded, so that sums in another order make no difference."""
    merits = [score.merit for score in run.load(_pair(run), "validation").scores.values()]
    return round(_reward(run), 9), round(fmean(merits), 9), -_measured_rows(run)[-1].spend.forward_tokens


def _reward(run: RunFolder) -> float:
    return _measured_rows(run)[-1].reward


def _measured_rows(run: RunFolder) -> list[Baseline | Round]:
    """Each has the best validation reward and the spend so far; the last one is from before the test rows."""
    return [_baseline(run), *run.rounds()]


def _pair(run: RunFolder) -> Candidate:
    return _outcome(run).best


def _baseline(run: RunFolder) -> Baseline:
    baseline = run.baseline()
    assert baseline is not None, "a finished run has a baseline"
    return baseline


def _outcome(run: RunFolder) -> Outcome:
    outcome = run.outcome()
    assert outcome is not None, "an unsupervised run ends with an outcome"
    return outcome

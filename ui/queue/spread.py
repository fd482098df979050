"""`nesylora run A B C --on ray`: several tasks at once, each within the limits of its own task.yaml."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from agent.records.rounds import Outcome
from graphs.context import checked, new_run
from graphs.workers.executors import Crew, Place, crew
from graphs.workers.spread import spread
from memory.run.folder import RunFolder
from ui import wording
from ui.control.work import IMPROVED, NOTHING, REACHED, exit_code

FAILED = 1


def run_spread(tasks: Sequence[Path], place: Place, root: Path, overrides: Sequence[str]) -> int:
    """Work on all tasks, as many at a time as there is room for. Returns the exit code, as of a queue.

    Args:
        tasks: each a task.yaml or its folder, or the folder of a run, which goes on.

    Raises:
        BadInput: one of them cannot be used. Nothing has begun then.
    """
    for task in tasks:
        if not _is_run(task):
            checked(task, overrides)
    runs = [RunFolder.open(task) if _is_run(task) else new_run(task, overrides, root) for task in tasks]
    console = Console(highlight=False)
    again = " ".join(["nesylora run --on", place.on, *(str(run.path) for run in runs)])
    try:
        with crew(place) as workers:
            failed = _followed(runs, workers, console)
    except KeyboardInterrupt:
        console.print(f"Stopped. Go on with: {again}", soft_wrap=True, markup=False)
        raise
    for run in runs:
        console.print(f"{run.name}: {failed.get(run.name) or _ended(run)}", soft_wrap=True, markup=False)
    if failed:
        console.print(f"What has failed goes on with: {again}", soft_wrap=True, markup=False)
        return FAILED
    codes = [exit_code(run) for run in runs]
    return REACHED if not any(codes) else IMPROVED if REACHED in codes or IMPROVED in codes else NOTHING


def _followed(runs: Sequence[RunFolder], workers: Crew, console: Console) -> dict[str, str]:
    """Prints each round that is done."""
    console.print(f"{wording.plural(len(runs), 'run')}, {workers.slots} at a time.")
    shown = {run.name: len(run.rounds()) for run in runs}

    def look(run: RunFolder) -> None:
        rows = run.rounds() if run.path.exists() else ()
        for row in rows[shown[run.name] :]:
            what = f"round {row.number}: {wording.lever(row.decision.move)}, {wording.kept(row)}"
            console.print(f"{run.name}  {what}; validation reward {row.reward:.2f}", soft_wrap=True, markup=False)
        shown[run.name] = max(shown[run.name], len(rows))

    return spread(runs, workers, look)


def _ended(run: RunFolder) -> str:
    outcome: Outcome | None = run.outcome()
    if outcome is None:
        return "stopped"
    before, after = outcome.baseline_test.reward, outcome.best_test.reward
    return f"{before:.2f} → {after:.2f} on test rows. {outcome.stopped} Report: {run.report_html}"


def _is_run(task: Path) -> bool:
    return (task / "run.json").is_file()

"""`nesylora run A B C --on ray`: several tasks at once, within their own limits, and within common ones."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from agent.errors import BadInput
from agent.records.queue import Estimate, NightLimits, TaskAdded
from agent.records.rounds import Outcome
from eval.tasks.task import load_config
from graphs.context import checked, new_run
from graphs.queue.common import CommonBudget
from graphs.queue.making import read_tasks
from graphs.workers.executors import HERE, Crew, Place, crew
from graphs.workers.spread import spread, spread_in_turn
from memory.queue import now
from memory.run.folder import RunFolder
from ui import wording
from ui.control.work import IMPROVED, NOTHING, REACHED, exit_code

FAILED = 1


def run_spread(tasks: Sequence[Path], place: Place, root: Path, overrides: Sequence[str], limits: NightLimits) -> int:
    """Work on all tasks, as many at a time as there is room for. Returns the exit code, as of a queue.

    Args:
        tasks: each a task.yaml or its folder, or the folder of a run, which goes on.
        limits: what they may use together, with what the runs among them have used before.

    Raises:
        BadInput: one of them cannot be used. Nothing has begun then.
    """
    rows = _rows(tasks, overrides, limits, root)
    runs = [RunFolder.open(task) if _is_run(task) else new_run(task, overrides, root) for task in tasks]
    console = Console(highlight=False)
    again = " ".join(["nesylora run", *_place_again(place), *_again(limits), *(str(run.path) for run in runs)])
    try:
        with crew(place) as workers:
            budget = CommonBudget(limits, runs, rows, workers.slots) if limits.set else None
            failed = _followed(runs, workers, console, budget)
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


def _rows(tasks: Sequence[Path], overrides: Sequence[str], limits: NightLimits, root: Path) -> list[TaskAdded]:
    """The tasks, checked. Where they share a budget, they are estimated; of runs that go on nothing is estimated."""
    new = [task for task in tasks if not _is_run(task)]
    if not limits.set:
        for task in new:
            checked(task, overrides)
        return []
    rows = iter(read_tasks(new, overrides, limits, root))
    return [_goes_on(task, limits) if _is_run(task) else next(rows) for task in tasks]


def _goes_on(path: Path, limits: NightLimits) -> TaskAdded:
    """A run as a task of which nothing is known but its limits."""
    run = RunFolder.open(path)
    config = load_config(run.task_file)
    if limits.usd is not None and config.unpriced:
        raise BadInput(f"{run.name}: money is limited, and the {config.unpriced} has no `llm.price` in its task.yaml")
    unknown = Estimate(
        start=0, lora=0, edit=0, end=0, trained=0, rounds=config.budget.rounds, asks_llm=bool(config.roles)
    )
    return TaskAdded(
        time=now(), number=1, name=run.name, task=str(run.task_file), limits=config.limits, estimate=unknown
    )


def _place_again(place: Place) -> list[str]:
    jobs = [] if place.jobs is None else ["--jobs", str(place.jobs)]
    return [*([] if place.on == HERE else ["--on", place.on]), *jobs]


def _again(limits: NightLimits) -> list[str]:
    """The limits as options."""
    words = []
    for name, value in limits:
        if value is not None:
            shown = value.astimezone().strftime("'%Y-%m-%d %H:%M'") if name == "until" else f"{value:g}"
            words += [f"--{name.replace('_', '-')}", shown]
    return words


def _followed(
    runs: Sequence[RunFolder], workers: Crew, console: Console, budget: CommonBudget | None
) -> dict[str, str]:
    """Prints each round that is done."""
    console.print(f"{wording.plural(len(runs), 'run')}, {workers.slots} at a time.")
    shown = {run.name: len(run.rounds()) for run in runs}

    def look(run: RunFolder) -> None:
        rows = run.rounds() if run.path.exists() else ()
        for row in rows[shown[run.name] :]:
            what = f"round {row.number}: {wording.lever(row.decision.move)}, {wording.kept(row)}"
            console.print(f"{run.name}  {what}; validation reward {row.reward:.2f}", soft_wrap=True, markup=False)
        shown[run.name] = max(shown[run.name], len(rows))

    return spread_in_turn(runs, workers, look, budget.begin) if budget else spread(runs, workers, look)


def _ended(run: RunFolder) -> str:
    outcome: Outcome | None = run.outcome()
    if outcome is None:
        return "stopped"
    before, after = outcome.baseline_test.reward, outcome.best_test.reward
    return f"{before:.2f} → {after:.2f} on test rows. {outcome.stopped} Report: {run.report_html}"


def _is_run(task: Path) -> bool:
    return (task / "run.json").is_file()

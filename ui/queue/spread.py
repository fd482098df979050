"""`nesylora run A B C --on ray`: several tasks at once, within their own limits, and within common ones."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from agent.errors import BadInput
from agent.records.queue import Estimate, NightLimits, TaskAdded
from agent.records.rounds import Outcome, Round
from eval.tasks.task import load_config
from graphs.context import new_run
from graphs.queue.common import CommonBudget
from graphs.queue.making import check_tasks, read_tasks
from graphs.workers.executors import HERE, Crew, Place, crew
from graphs.workers.spread import spread
from memory.queue import now
from memory.run.folder import RunFolder
from ui import wording
from ui.control import signals
from ui.control.work import IMPROVED, NOTHING, REACHED, exit_code
from ui.queue.words import say_that_tasks_are_read

FAILED = 1


def run_spread(tasks: Sequence[Path], place: Place, root: Path, overrides: Sequence[str], limits: NightLimits) -> int:
    """Work on all tasks, as many at a time as there is room for. Returns the exit code, as of a queue.

    Args:
        tasks: each a task.yaml or its folder, or the folder of a run, which goes on.
        limits: what they may use together, with what the runs among them have used before.

    Raises:
        BadInput: one of them cannot be used, or there is no such place. Nothing has begun then.
    """
    begun = {task: RunFolder.open(task) for task in tasks if _is_run(task)}
    _refuse_twice([run.path for run in map(begun.get, tasks) if run])
    rows = _rows(tasks, begun, overrides, limits, root, here=place.on == HERE)
    console = Console(highlight=False)
    runs = list[RunFolder]()
    try:
        with crew(place) as workers:  # first: where nothing can run, no run is laid out
            for task in tasks:
                runs.append(begun.get(task) or new_run(task, overrides, root))
            console.print(f"{wording.plural(len(runs), 'run')}, {workers.slots} at a time.")
            # Now, too: who is killed has no last words.
            console.print(f"After a kill, go on with: {_again(runs, place, limits)}", soft_wrap=True, markup=False)
            budget = CommonBudget(limits, runs, rows, workers.slots) if limits.set else None
            failed = _followed(runs, workers, console, budget)
    except KeyboardInterrupt as error:
        then = f"Go on with: {_again(runs, place, limits)}" if runs else "Nothing was begun."
        console.print(f"Stopped. {then}", soft_wrap=True, markup=False)
        return signals.exit_code(error)
    for run in runs:
        console.print(f"{_label(run, runs)}: {failed.get(run.path) or _ended(run)}", soft_wrap=True, markup=False)
    if failed:
        console.print(f"What has failed goes on with: {_again(runs, place, limits)}", soft_wrap=True, markup=False)
        return FAILED
    codes = [exit_code(run) for run in runs]
    return REACHED if not any(codes) else IMPROVED if REACHED in codes or IMPROVED in codes else NOTHING


def _rows(
    tasks: Sequence[Path],
    begun: Mapping[Path, RunFolder],
    overrides: Sequence[str],
    limits: NightLimits,
    root: Path,
    here: bool,
) -> list[TaskAdded]:
    """The tasks, checked. Where they share a budget, they are estimated; of runs that go on nothing is estimated."""
    new = [task for task in tasks if task not in begun]
    if not limits.set:
        check_tasks(new, overrides, limits, here)
        return []
    say_that_tasks_are_read(len(new))
    rows = iter(read_tasks(new, overrides, limits, root, here=here))
    return [_goes_on(begun[task], limits) if task in begun else next(rows) for task in tasks]


def _goes_on(run: RunFolder, limits: NightLimits) -> TaskAdded:
    """A run as a task of which nothing is known but its limits."""
    config = load_config(run.task_file)
    if limits.usd is not None and config.unpriced:
        raise BadInput(f"{run.name}: money is limited, which needs {config.unpriced} in its task.yaml")
    unknown = Estimate(  # it may need all there is, so it keeps an equal part
        start=0, lora=0, edit=0, end=0, trained=limits.train_tokens or 0, rounds=config.budget.rounds,
        asks_llm=config.pays,
    )  # fmt: skip
    return TaskAdded(
        time=now(), number=1, name=run.name, task=str(run.task_file), limits=config.limits, estimate=unknown
    )


def _refuse_twice(runs: Sequence[Path]) -> None:
    if twice := [run for run in dict.fromkeys(runs) if runs.count(run) > 1]:
        raise BadInput(f"{twice[0]} is named twice; only one process at a time can work on a run. Name it once.")


def _again(runs: Sequence[RunFolder], place: Place, limits: NightLimits) -> str:
    """The command that goes on with these runs, from any folder."""
    folders = (str(run.path) for run in runs)
    return shlex.join(["nesylora", "run", *folders, *place.options, *_options(limits)])


def _options(limits: NightLimits) -> list[str]:
    words = []
    for name, value in limits:
        if value is not None:
            shown = value.astimezone().strftime("%Y-%m-%d %H:%M") if name == "until" else str(value)
            words += [f"--{name.replace('_', '-')}", shown]
    return words


def _label(run: RunFolder, runs: Sequence[RunFolder]) -> str:
    """Its name; its folder, where another of them has the same name."""
    return run.name if [other.name for other in runs].count(run.name) == 1 else str(run.path)


def _followed(
    runs: Sequence[RunFolder], workers: Crew, console: Console, budget: CommonBudget | None
) -> dict[Path, str]:
    """Prints each round that is done."""
    shown = {run.path: len(_rounds(run)) for run in runs}

    def say(run: RunFolder, what: str) -> None:
        console.print(f"{_label(run, runs)}{what}", soft_wrap=True, markup=False)

    def look(run: RunFolder) -> None:
        rows = _rounds(run)
        for row in rows[shown[run.path] :]:
            what = f"round {row.number}: {wording.lever(row.decision.move)}, {wording.kept(row)}"
            say(run, f"  {what}; validation reward {row.reward:.2f}")
        shown[run.path] = max(shown[run.path], len(rows))

    def begin(run: RunFolder) -> str:
        """Its part is written into its ledger, which has to be whole for that."""
        own = RunFolder(run.path)
        with own.locked():
            own.mend(lambda said: say(run, f": {said}"))
        return budget.begin(run) if budget else ""

    return spread(runs, workers, look, begin if budget else None, budget.end if budget else None)


def _rounds(run: RunFolder) -> list[Round]:
    """Also of a damaged ledger, which the run's own process mends; and of one whose process took it away."""
    return [row for row in run.known_rows() if isinstance(row, Round)]


def _ended(run: RunFolder) -> str:
    outcome: Outcome | None = run.outcome()
    if outcome is None:
        return "stopped"
    before, after = outcome.baseline_test.reward, outcome.best_test.reward
    return f"{before:.2f} → {after:.2f} on test rows. {outcome.stopped} Report: {run.report_html}"


def _is_run(task: Path) -> bool:
    return (task / "run.json").is_file()

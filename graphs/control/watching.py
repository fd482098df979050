"""What is known of a run: from its folder alone, and from what its listener is told."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from agent.protocols import Listener
from agent.records.events import Event, WorkProgressed
from agent.records.limits import Limits
from agent.records.rounds import Baseline, Round, Spend
from agent.time_left import TimeLeft
from graphs.control.steering import Condition, RunStatus, Step
from memory.run.folder import RunFolder


class Watch:
    """A run's listener, which passes on what it is told.

    Args:
        inner: of the face in this process.
        changed: told of each event.
        progressed: told how far long work is.
    """

    def __init__(self, inner: Listener, changed: Callable[[], None], progressed: Callable[[Step], None]) -> None:
        self._inner = inner
        self._changed = changed
        self._progressed = progressed
        self._left = TimeLeft()

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        left = self._left.of(what, done, total)
        self._progressed(Step(what=what, done=done, total=total, note=note, seconds_left=left))
        self._inner(what, done, total, note)

    def event(self, event: Event) -> None:
        if not isinstance(event, WorkProgressed):
            self._changed()
        self._inner.event(event)


def status_of_folder(folder: RunFolder, condition: Condition | None = None) -> RunStatus:
    """What the folder says.

    Args:
        condition: where a process knows it; else the run is finished, or stopped.

    Raises:
        BadInput: the ledger is damaged.
    """
    first, rounds, outcome = folder.baseline(), folder.rounds(), folder.outcome()
    row = rounds[-1] if rounds else first
    return RunStatus(
        run=folder.name,
        folder=str(folder.path),
        condition=condition or ("finished" if outcome else "stopped"),
        rounds=len(rounds),
        seed_reward=first.seed_reward if first else None,
        reward=row.reward if row else None,
        limits=limits_of(folder),
        spend=outcome.spend if outcome else _spent(folder, row, len(rounds)),
    )


def _spent(folder: RunFolder, row: Baseline | Round | None, rounds: int) -> Spend:
    """What the ledger counts, and the steps since its last row: those that are over, and those that were broken off."""
    known = (row.spend if row else Spend()) + folder.charges.beyond(rounds if row else None)
    ends = folder.outcomes()  # of a run that was opened again
    return known + ends[-1].spend.beyond(known) if ends else known


def limits_of(folder: RunFolder) -> Limits:
    """Those that hold now."""
    return folder.limits() or _first_limits(folder.task_file, folder.task_file.stat().st_mtime_ns)


@lru_cache(maxsize=1024)
def _first_limits(task_file: Path, written: int) -> Limits:
    """Those that the run began with: its task.yaml does not change, unless the run is made anew under its name."""
    from eval.tasks.task import load_config

    return load_config(task_file).limits

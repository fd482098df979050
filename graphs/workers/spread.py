"""Runs, each in a process of its own, here or on a cluster. What each has done is seen by its folder."""

from collections.abc import Callable, Sequence

from graphs.workers.executors import Crew, followed
from memory.run.folder import RunFolder


def spread(runs: Sequence[RunFolder], crew: Crew, look: Callable[[RunFolder], None]) -> dict[str, str]:
    """Run each to its end; what has ended is left as it is. The run folders are on a disk that all machines share.

    Args:
        look: called again and again for each run that may be under way, and once more when its process has ended.

    Returns:
        What failed: the error, by the run's name.
    """
    by_name = {run.name: run for run in runs}
    return followed(
        {
            name: crew.command(["resume", str(run.path.resolve())], str(run.path.resolve() / "console.log"))
            for name, run in by_name.items()
            if not (run.outcome() and run.reported)
        },
        lambda name: look(by_name[name]),
    )

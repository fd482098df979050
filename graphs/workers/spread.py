"""Runs, each in a process of its own, here or on a cluster. What each has done is seen by its folder."""

from collections.abc import Callable, Sequence
from pathlib import Path

from graphs.workers.executors import Crew, followed
from memory.run.folder import RunFolder


def spread(runs: Sequence[RunFolder], crew: Crew, look: Callable[[RunFolder], None]) -> dict[Path, str]:
    """Run each to its end; what has ended is left as it is. The run folders are on a disk that all machines share.

    Args:
        look: called again and again for each run that may be under way, and once more when its process has ended.

    Returns:
        What failed: the error, by the run's folder.
    """
    by_path = {run.path: run for run in runs}  # runs in several folders may have one name
    return followed(
        {
            path: crew.command(["resume", str(path)], str(path / "console.log"))
            for path, run in by_path.items()
            if not (run.outcome() and run.reported)
        },
        lambda path: look(by_path[path]),
    )

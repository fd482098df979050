"""Runs, each in a process of its own, here or on a cluster. What each has done is seen by its folder."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

from agent.errors import Busy, NesyLoraError
from graphs.workers.command import HELD
from graphs.workers.executors import LOOK, Crew, taken_out
from memory.run.folder import RunFolder


def spread(
    runs: Sequence[RunFolder],
    crew: Crew,
    look: Callable[[RunFolder], None],
    begin: Callable[[RunFolder], str] | None = None,
    end: Callable[[RunFolder], None] | None = None,
) -> dict[Path, str]:
    """Run each to its end; what has ended is left as it is. The run folders are on a disk that all machines share.

    Args:
        end: called when a run's process has ended, or failed.
        look: called again and again for each run that may be under way, and once more when its process has ended. A
            file that it cannot read ends nothing: whoever works on the run may mend it.
        begin: called when a run's turn comes; says why it cannot be worked on, or nothing. With it, a run is given to
            the crew only once there is room for it. Where it raises Busy, others have their turn first, for a while:
            the process that has the run may be about to notice that it is alone.

    Returns:
        What failed: the error, by the run's folder.
    """
    waiting = [run for run in runs if not (run.outcome() and run.reported)]
    room = crew.slots if begin else len(waiting)
    # By folder: runs in several folders may have one name.
    by_folder = {run.path: run for run in waiting}
    under_way, failed = dict[Path, Future[str]](), dict[Path, str]()
    until = dict[Path, float]()  # of those that another process has
    while waiting or under_way:
        for run in waiting[: room - len(under_way)]:
            waiting.remove(run)
            try:
                why = begin(run) if begin else ""
            except NesyLoraError as error:
                present = time.monotonic()
                if isinstance(error, Busy) and present < until.setdefault(run.path, present + HELD):
                    waiting.append(run)
                    continue
                why = str(error)
            if why:
                failed[run.path] = why
            else:
                command = ["resume", str(run.path)]
                under_way[run.path] = crew.command(command, f"{run.path}/console.log")
        if not under_way:  # then nothing is waited for below
            time.sleep(LOOK)
        begun = [*under_way]
        failed |= taken_out(under_way, lambda folder: look(by_folder[folder]))
        if end:
            for folder in begun:
                if folder not in under_way:
                    end(by_folder[folder])
    return failed

"""Runs, each in a process of its own, here or on a cluster. What each has done is seen by its folder."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from pathlib import Path

from agent.errors import NesyLoraError
from graphs.workers.executors import LOOK, Crew, error_of
from memory.run.folder import RunFolder


def spread(
    runs: Sequence[RunFolder],
    crew: Crew,
    look: Callable[[RunFolder], None],
    begin: Callable[[RunFolder], str] | None = None,
) -> dict[Path, str]:
    """Run each to its end; what has ended is left as it is. The run folders are on a disk that all machines share.

    Args:
        look: called again and again for each run that may be under way, and once more when its process has ended. A
            file that it cannot read ends nothing: whoever works on the run may mend it.
        begin: called when a run's turn comes; says why it cannot be worked on, or nothing. With it, a run is given to
            the crew only once there is room for it.

    Returns:
        What failed: the error, by the run's folder.
    """
    waiting = [run for run in runs if not (run.outcome() and run.reported)]
    room = crew.slots if begin else len(waiting)
    # By folder: runs in several folders may have one name.
    under_way, failed = dict[Path, tuple[RunFolder, Future[str]]](), dict[Path, str]()
    while waiting or under_way:
        while waiting and len(under_way) < room:
            run = waiting.pop(0)
            if begin and (why := begin(run)):
                failed[run.path] = why
                continue
            path = str(run.path.resolve())
            under_way[run.path] = run, crew.command(["resume", path], f"{path}/console.log")
        done = wait([future for _, future in under_way.values()], timeout=LOOK).done
        for folder, (run, future) in list(under_way.items()):
            with suppress(NesyLoraError, OSError):
                look(run)
            if future in done:
                del under_way[folder]
                if error := error_of(future):
                    failed[folder] = error
    return failed

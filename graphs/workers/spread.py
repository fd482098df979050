"""Runs, each in a process of its own, here or on a cluster. What each has done is seen by its folder."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait

from graphs.workers.executors import LOOK, Crew, error_of, followed
from memory.run.folder import RunFolder


def spread_in_turn(
    runs: Sequence[RunFolder],
    crew: Crew,
    look: Callable[[RunFolder], None],
    begin: Callable[[RunFolder], str],
) -> dict[str, str]:
    """As `spread`, but a run is given to the crew only once there is room for it.

    Args:
        begin: called when its turn comes; says why it cannot be worked on, or nothing.
    """
    waiting = [run for run in runs if not (run.outcome() and run.reported)]
    under_way, failed = dict[str, tuple[RunFolder, Future[str]]](), dict[str, str]()
    while waiting or under_way:
        while waiting and len(under_way) < crew.slots:
            run = waiting.pop(0)
            if why := begin(run):
                failed[run.name] = why
                continue
            under_way[run.name] = run, _resumed(run, crew)
        done = wait([future for _, future in under_way.values()], timeout=LOOK).done
        for name, (run, future) in list(under_way.items()):
            look(run)
            if future in done:
                del under_way[name]
                if error := error_of(future):
                    failed[name] = error
    return failed


def spread(runs: Sequence[RunFolder], crew: Crew, look: Callable[[RunFolder], None]) -> dict[str, str]:
    """Run each to its end; what has ended is left as it is. The run folders are on a disk that all machines share.

    Args:
        look: called again and again for each run that may be under way, and once more when its process has ended.

    Returns:
        What failed: the error, by the run's name.
    """
    by_name = {run.name: run for run in runs}
    return followed(
        {name: _resumed(run, crew) for name, run in by_name.items() if not (run.outcome() and run.reported)},
        lambda name: look(by_name[name]),
    )


def _resumed(run: RunFolder, crew: Crew) -> "Future[str]":
    path = str(run.path.resolve())
    return crew.command(["resume", path], f"{path}/console.log")

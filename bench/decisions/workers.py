"""Groups of a benchmark in so many processes at a time, each watched through the rows that it writes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.decisions.group import Group, missing, read_rows
from bench.decisions.suite import Result

ROOT = Path(__file__).parents[2]
LOOK = 0.5  # seconds between looks at the rows
LEAVE = 20.0  # seconds in which an interrupted process may end by itself


class Working(NamedTuple):
    """A group that a process of its own works on, and how many of its rows have been told."""

    group: Group
    folder: Path
    process: subprocess.Popen[bytes]
    told: int


def work(groups: Mapping[Path, Group], jobs: int, tell: Callable[[Group, Result], None]) -> dict[str, str]:
    """Plays what is missing of these groups, by folder, and returns what failed: the error, by the group's name.

    An interrupt ends all processes first, and is then raised again.
    """
    waiting = [(folder, group) for folder, group in groups.items() if missing(group, folder)]
    working: list[Working] = []
    failed: dict[str, str] = {}
    try:
        while waiting or working:
            while waiting and len(working) < jobs:
                folder, group = waiting.pop(0)
                working.append(Working(group, folder, _start(folder, jobs), len(read_rows(folder))))
            time.sleep(LOOK)
            ended = {one.folder for one in working if one.process.poll() is not None}  # before their rows are read
            working = [_told(one, tell) for one in working]
            failed |= {one.group.folder: _error(one) for one in working if one.process.returncode}
            working = [one for one in working if one.folder not in ended]
    finally:
        _stop([one.process for one in working])
    return failed


def threads(jobs: int) -> int:
    """Of each process, so that together they have a core each."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // jobs)


def _start(folder: Path, jobs: int) -> subprocess.Popen[bytes]:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "nesylora", "bench", "group", str(folder), "--child"],
            env={"OMP_NUM_THREADS": str(threads(jobs)), **os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.PIPE,  # its end tells the child that this process is gone
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for this process, which tells the others
        )


def _told(one: Working, tell: Callable[[Group, Result], None]) -> Working:
    rows = read_rows(one.folder)
    for row in rows[one.told :]:
        tell(one.group, row)
    return one._replace(told=len(rows))


def _error(one: Working) -> str:
    """The last line that a failed process wrote."""
    code = one.process.returncode
    lines = (one.folder / "log.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    said = lines[-1] if code > 0 and lines else f"it was ended by signal {-code}"
    return f"{said} (log: {one.folder / 'log.txt'})"


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.send_signal(signal.SIGINT)
    until = time.monotonic() + LEAVE
    for process in processes:
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

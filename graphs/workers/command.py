"""One command of ours in a process of its own. Its files are its result, so it may be run again where it was lost."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from graphs.control.client import environment

LOOK = 0.2  # seconds between looks at the process
LEAVE = 30.0  # seconds in which an interrupted process may end by itself; after half of them it is interrupted again
RESULTS = (0, 4, 5)  # exit codes of a run that has ended, and of all else that has gone well
# It ends with the process that has started it, which may be a worker of Ray that was lost.
CHILD = "from tools.parent import end_with_parent; end_with_parent(); import nesylora; nesylora.main()"


def run_command(arguments: Sequence[str], log: str, threads: int, stopped: Callable[[], bool] | None = None) -> str:
    """Run `nesylora …` to its end. An exception, such as KeyboardInterrupt, interrupts it.

    Args:
        arguments: paths among them are absolute, and mean the same file on every machine.
        log: the file that its output is appended to.
        threads: of the processor.
        stopped: asked now and then whether the process is to be interrupted.

    Returns:
        What it failed with: its last line, and where the log is; empty: it has not.
    """
    with Path(log).open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", CHILD, *arguments],
            env={**environment(), "OMP_NUM_THREADS": str(threads)},
            stdin=subprocess.PIPE,  # it ends with this process, which the child notices
            stdout=out,
            stderr=out,
            start_new_session=True,  # Ctrl-C is for this process, which interrupts the other
        )
    try:
        while process.poll() is None:
            if stopped and stopped():
                raise KeyboardInterrupt
            time.sleep(LOOK)
    finally:
        _end(process)
    return "" if process.returncode in RESULTS else _error(process.returncode, Path(log))


def _end(process: "subprocess.Popen[bytes]") -> None:
    for _ in range(2):  # an interrupt that comes while Python frees an object is lost
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(LEAVE / 2)
    if process.poll() is None:
        process.kill()
        process.wait()
    assert process.stdin
    process.stdin.close()


def _error(code: int, log: Path) -> str:
    """The last line that a failed process wrote."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    message = lines[-1] if code > 0 and lines else f"it was ended by signal {-code}"
    return f"{message} (log: {log})"


def threads_each(jobs: int) -> int:
    """Threads of each process, so that so many processes together use each core of this machine once."""
    if named := os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]:
        return int(named)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // jobs)

"""One command of ours in a process of its own. Its files are its result, so it may be run again where it was lost."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from types import MappingProxyType

from agent.errors import Busy
from graphs.control.process import environment

LOOK = 0.2  # seconds between looks at the process
LEAVE = 30.0  # seconds in which an interrupted process may end by itself; after half of them it is interrupted again
RESULTS = (0, 4, 5)  # exit codes of a run that has ended, and of all else that has gone well
# Seconds in which somebody else may let go of what the command needs: a process that was just lost with its worker, or
# a machine that is gone, whose locks a file server keeps for about 90 seconds.
HELD = 120.0
PAUSE = 5.0  # seconds between tries meanwhile
DEVICES = "CUDA_VISIBLE_DEVICES"
# It ends with the process that has started it, which may be a worker of Ray that was lost.
CHILD = "from tools.parent import end_with_parent; end_with_parent(); import nesylora; nesylora.main()"


def run_command(
    arguments: Sequence[str],
    log: str,
    threads: int,
    stopped: Callable[[], bool] | None = None,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Run `nesylora …` to its end. An exception, such as KeyboardInterrupt, interrupts it.

    Where another process has what it needs, such as the run, that is waited for.

    Args:
        arguments: paths among them are absolute, and mean the same file on every machine.
        log: the file that its output is appended to.
        threads: of the processor.
        stopped: asked now and then whether the process is to be interrupted.
        variables: of its environment, beside those of this process.

    Returns:
        What it failed with: its last line, and where the log is; empty: it has not.
    """
    if not Path(log).parent.is_dir():
        where = f"{socket.gethostname()} has no folder {Path(log).parent}"
        return f"{where}: runs must be on a disk that all machines mount under one path (--runs)"
    variables = {**environment(), "OMP_NUM_THREADS": str(threads), **variables}
    until = time.monotonic() + HELD
    while (code := _code(arguments, log, variables, stopped)) == Busy.exit_code and time.monotonic() < until:
        _wait(PAUSE, stopped)
    return "" if code in RESULTS else _error(code, Path(log))


def _code(arguments: Sequence[str], log: str, variables: Mapping[str, str], stopped: Callable[[], bool] | None) -> int:
    """The exit code of a process that was let run to its end."""
    with Path(log).open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", CHILD, *arguments],
            env=variables,
            stdin=subprocess.PIPE,  # it ends with this process, which the child notices
            stdout=out,
            stderr=out,
            start_new_session=True,  # Ctrl-C is for this process, which interrupts the other
        )
    try:
        while process.poll() is None:
            _wait(LOOK, stopped)
    finally:
        _end(process)
    return process.returncode


def _wait(seconds: float, stopped: Callable[[], bool] | None) -> None:
    """Raises KeyboardInterrupt where the process is to be interrupted."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if stopped and stopped():
            raise KeyboardInterrupt
        time.sleep(min(LOOK, left))


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


def devices_each(jobs: int) -> list[dict[str, str]]:
    """What each of so many processes has in its environment, so that they divide the GPUs of this machine.

    Each has at least one GPU; where there are more processes than GPUs, some share one.
    """
    devices = _devices() if jobs > 1 else []
    if not devices:
        return [{} for _ in range(jobs)]
    shares = (devices[job::jobs] or [devices[job % len(devices)]] for job in range(jobs))
    return [{DEVICES: ",".join(share)} for share in shares]


def _devices() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if (named := os.environ.get(DEVICES)) is not None:
        return list(takewhile(lambda device: device not in ("", "-1"), map(str.strip, named.split(","))))
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]

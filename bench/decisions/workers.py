"""Groups of a benchmark, so many processes at a time. The parent watches each through the rows that it writes."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.decisions.folder import Group, load_group, missing, results_file, threads_each
from bench.decisions.results import Result, Variant, read, run_all
from bench.decisions.run_variant import run_variant
from memory.storage.lock import held
from ui.terminal.live import LiveView

ROOT = Path(__file__).parents[2]
LOOK = 0.5  # seconds between looks at the rows
LEAVE = 20.0  # seconds in which an interrupted process may end by itself
ORPHANS = 30.0  # seconds in which the processes of a benchmark that was killed notice it


class Worker(NamedTuple):
    """A group that a process of its own works on, and how many of its rows were reported."""

    group: Group
    folder: Path
    process: subprocess.Popen[bytes]
    reported: int


# --- the parent -----------------------------------------------------------------------------------


def work(groups: Mapping[Path, Group], jobs: int, report: Callable[[Group, Result], None]) -> dict[str, str]:
    """Run what is missing of these groups, each in a process of its own.

    Args:
        groups: by their folder.
        jobs: how many processes at a time.
        report: gets each new row.

    Returns:
        What failed: the error, by the group's name.

    Raises:
        KeyboardInterrupt: after all processes were ended.
    """
    waiting = [(folder, group) for folder, group in groups.items() if missing(group, folder)]
    workers: list[Worker] = []
    failed: dict[str, str] = {}
    try:
        while waiting or workers:
            while waiting and len(workers) < jobs:
                folder, group = waiting.pop(0)
                workers.append(Worker(group, folder, _start(folder, jobs), len(read(results_file(folder)))))
            time.sleep(LOOK)
            ended = {worker.folder for worker in workers if worker.process.poll() is not None}  # before rows are read
            workers = [_with_rows_reported(worker, report) for worker in workers]
            failed |= {worker.group.folder: _error(worker) for worker in workers if worker.process.returncode}
            workers = [worker for worker in workers if worker.folder not in ended]
    finally:
        _stop([worker.process for worker in workers])
    return failed


def _start(folder: Path, jobs: int) -> subprocess.Popen[bytes]:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "nesylora", "bench", "group", str(folder), "--child"],
            env={"OMP_NUM_THREADS": str(threads_each(jobs)), **os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.PIPE,  # it ends with this process, which the child notices
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for this process, which interrupts the others
        )


def _with_rows_reported(worker: Worker, report: Callable[[Group, Result], None]) -> Worker:
    rows = read(results_file(worker.folder))
    for row in rows[worker.reported :]:
        report(worker.group, row)
    return worker._replace(reported=len(rows))


def _error(worker: Worker) -> str:
    """The last line that a failed process wrote."""
    code, log = worker.process.returncode, worker.folder / "log.txt"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    message = lines[-1] if code > 0 and lines else f"it was ended by signal {-code}"
    return f"{message} (log: {log})"


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


# --- the child ------------------------------------------------------------------------------------


def run_group(folder: Path) -> int:
    """Run what is missing of a group. Its runs share answers and adapters; a shared one is charged all the same.

    Raises BadInput: there is no group here, or its file is damaged.
    """
    group = load_group(folder)
    with LiveView() as view, held(folder / "group", f"The group {folder.name}", wait=ORPHANS):

        def run(variant: Variant, _: int) -> Result:
            return run_variant(group, variant, folder, view)

        for _ in run_all(group.variants, [group.seed], run, results_file(folder)):
            gc.collect()  # a finished run and its services refer to each other; a variant may have another model
    return 0


def end_with_parent() -> None:
    """End this process as soon as the process at the other end of stdin is gone, however it ended."""

    def wait() -> None:
        os.read(0, 1)  # not sys.stdin: a thread that waits in it keeps the interpreter from its end
        os._exit(1)  # as a kill would; what is on disk goes on from there

    threading.Thread(target=wait, daemon=True).start()

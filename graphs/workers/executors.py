"""Where commands run: `--on`, `--jobs` and `--gpus-each`."""

import math
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TypeVar

from agent.errors import BadInput, NesyLoraError
from graphs.workers.command import devices_each, run_command, threads_each

LOOK = 0.5  # seconds between looks at what has been done
HERE = "here"
K = TypeVar("K")


@dataclass(frozen=True)
class Place:
    """Where commands run.

    Attributes:
        on: `here`: in processes of this machine; `ray`: on the cluster that RAY_ADDRESS names, or else on one that is
            started on this machine for as long as it takes; `ray://HOST:PORT`: on that one.
        jobs: how many at a time; None: one here, and on Ray as many as there is room for.
        gpus: that each takes on Ray, such as 0.5; None: one where there are any.
    """

    on: str = HERE
    jobs: int | None = None
    gpus: float | None = None

    def __post_init__(self) -> None:
        if self.on not in (HERE, "ray") and not self.on.startswith("ray://"):
            raise BadInput(f"--on {self.on}: take `ray`, or `ray://HOST:PORT`; without --on, all runs on this machine.")
        if self.jobs is not None and self.jobs < 1:
            raise BadInput("--jobs must be at least 1.")
        if self.gpus is not None and (self.on == HERE or not 0 <= self.gpus < math.inf):
            raise BadInput("--gpus-each is for --on ray, and not below 0.")
        if self.gpus is not None and self.gpus > 1 and not self.gpus.is_integer():
            raise BadInput(f"--gpus-each {self.gpus:g}: take a part of one GPU, such as 0.5, or whole ones.")

    @property
    def one_at_a_time(self) -> bool:
        return self.on == HERE and self.jobs in (None, 1)

    @property
    def options(self) -> list[str]:
        """As the command line takes them."""
        given = {"--on": None if self.on == HERE else self.on, "--jobs": self.jobs, "--gpus-each": self.gpus}
        return [part for name, value in given.items() if value is not None for part in (name, str(value))]


class Crew(Executor):
    """An executor that runs commands.

    Attributes:
        slots: how many it runs at a time, as far as is known.
        threads: of the processor, for each.
    """

    slots: int = 1
    threads: int = 1

    def command(self, arguments: list[str], log: str) -> "Future[str]":
        """Begin `graphs.workers.command.run_command`, when its turn comes."""
        return self.submit(run_command, arguments, log, self.threads)


class Here(ThreadPoolExecutor, Crew):
    """Processes of this machine: each thread waits for one. They divide the machine's cores and GPUs."""

    def __init__(self, jobs: int) -> None:
        super().__init__(max_workers=jobs)
        self.slots, self.threads = jobs, threads_each(jobs)
        self._stopped = threading.Event()
        self._devices: SimpleQueue[dict[str, str]] = SimpleQueue()  # of each thread that has no process now
        for devices in devices_each(jobs):
            self._devices.put(devices)

    def command(self, arguments: list[str], log: str) -> "Future[str]":
        return self.submit(self._run, arguments, log)

    def _run(self, arguments: list[str], log: str) -> str:
        devices = self._devices.get()
        try:
            return run_command(arguments, log, self.threads, self._stopped.is_set, devices)
        finally:
            self._devices.put(devices)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """With `cancel_futures`, processes that run are interrupted, too."""
        if cancel_futures:
            self._stopped.set()
        super().shutdown(wait, cancel_futures=cancel_futures)


@contextmanager
def crew(place: Place) -> Iterator[Crew]:
    """The executor at this place. All that still runs at the end of the block is interrupted.

    Raises:
        BadInput: Ray is not installed, or there is no cluster at this address.
    """
    if place.on == HERE:
        made: Crew = Here(place.jobs or 1)
    else:
        from graphs.workers.ray_cluster import RayCrew

        made = RayCrew(place.on, place.jobs, place.gpus)
    try:
        yield made
    finally:
        made.shutdown(cancel_futures=True)


def followed(futures: "Mapping[K, Future[str]]", look: Callable[[K], None]) -> dict[K, str]:
    """Wait until all are done.

    Args:
        look: called again and again for each that may be under way, and once more when it is done. A file that it
            cannot read ends nothing: whoever works on it may mend it.

    Returns:
        What failed, with its error.
    """
    under_way, failed = dict(futures), dict[K, str]()
    while under_way:
        failed |= taken_out(under_way, look)
    return failed


def taken_out(under_way: "dict[K, Future[str]]", look: Callable[[K], None]) -> dict[K, str]:
    """Look once at each, and take out what is done: see `followed`, also for what is returned."""
    done, failed = wait(under_way.values(), timeout=LOOK).done, dict[K, str]()
    for key, future in list(under_way.items()):
        with suppress(NesyLoraError, OSError):
            look(key)
        if future in done:
            del under_way[key]
            if error := error_of(future):
                failed[key] = error
    return failed


def error_of(future: "Future[str]") -> str:
    """What a command has failed with; empty: it has not."""
    error = future.exception()
    if error is None:
        return future.result()
    cause = getattr(error, "cause", None)  # Ray puts its own error around that of a task, whose last line names it
    lines = str(cause or error).strip().splitlines() or [""]
    return f"{type(cause or error).__name__}: {lines[-1 if cause else 0]}"

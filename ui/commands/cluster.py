"""`nesylora doctor --cluster`: what each machine of a Ray cluster has, and whether all have the same."""

import os
import platform
import shutil
import socket
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

PACKAGES = ("nesylora", "torch", "transformers", "peft")
WAIT = 120.0  # seconds for the answers of all machines


class Machine(NamedTuple):
    """What a machine says of itself. `shares`: whether it sees the file that was just written into the runs' folder."""

    host: str
    versions: tuple[str, ...]
    cores: int
    memory_gb: float
    gpus: tuple[str, ...]
    free_gb: float
    shares: bool


def cluster(on: str, runs: Path) -> int:
    """Print a row for each machine; 1 if versions differ, or one does not see the folder of the runs."""
    from graphs.workers.ray_cluster import RayCrew

    runs = runs.resolve()
    crew = RayCrew(on, None, 0.0)
    try:
        with _probe(runs) as probe:
            asked = crew.on_each_machine(machine, str(probe))
            wait(asked.values(), WAIT)
            found = {name: _answer(future) for name, future in asked.items()}
    finally:
        crew.shutdown(cancel_futures=True)
    return show(found, runs)


@contextmanager
def _probe(runs: Path) -> Iterator[Path]:
    """A new file in the folder, there inside."""
    runs.mkdir(parents=True, exist_ok=True)
    probe = runs / f".seen-{uuid.uuid4().hex[:8]}"
    probe.touch()
    try:
        yield probe
    finally:
        probe.unlink(missing_ok=True)


def machine(probe: str) -> Machine:
    """Runs there."""
    import psutil

    place = next(folder for folder in Path(probe).parents if folder.exists())
    return Machine(
        host=socket.gethostname(),
        versions=(platform.python_version(), *map(_version, PACKAGES)),
        cores=os.cpu_count() or 1,
        memory_gb=psutil.virtual_memory().total / 1e9,
        gpus=_gpus(),
        free_gb=shutil.disk_usage(place).free / 1e9,
        shares=Path(probe).exists(),
    )


def _answer(future: "Future[Machine]") -> Machine | str:
    """What a machine says of itself, or why it says nothing."""
    if not future.done():
        return f"it took longer than {WAIT:g} seconds"
    error = future.exception()
    return future.result() if error is None else (str(error).strip().splitlines() or [type(error).__name__])[-1]


def show(found: dict[str, Machine | str], runs: Path) -> int:
    """Print the machines, by their addresses; in place of one, why it did not answer. 1: something is wrong."""
    console = Console(highlight=False)
    table = Table("machine", "python, " + ", ".join(PACKAGES), "cores", "memory", "GPUs", "free", "sees the runs")
    machines = [answer for answer in found.values() if isinstance(answer, Machine)]
    for name, answer in found.items():
        if isinstance(answer, str):
            table.add_row(name, "no answer")
            continue
        table.add_row(
            answer.host, ", ".join(answer.versions), str(answer.cores), f"{answer.memory_gb:.0f} GB",
            ", ".join(answer.gpus) or "none", f"{answer.free_gb:.0f} GB", "yes" if answer.shares else "no",
        )  # fmt: skip
    console.print(table)
    faults = []
    if len({answer.versions for answer in machines}) > 1:
        faults.append("Versions differ: results would, too. Install the same constraints.txt everywhere.")
    if blind := [answer.host for answer in machines if not answer.shares]:
        faults.append(f"{', '.join(blind)}: no {runs} there. Take --runs on a disk that all machines mount alike.")
    faults += [f"{name} did not answer: {why}." for name, why in found.items() if isinstance(why, str)]
    if len(machines) < len(found):
        faults.append("Is nesylora installed there, and has that machine time for a task?")
    for fault in faults:
        console.print(fault, style="red", soft_wrap=True)
    return 1 if faults else 0


def _gpus() -> tuple[str, ...]:
    from importlib.util import find_spec

    if find_spec("torch") is None:
        return ()
    import torch

    devices = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return tuple(f"{device.name} {device.total_memory / 1e9:.0f} GB" for device in devices)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "from a checkout" if package == "nesylora" else "missing"

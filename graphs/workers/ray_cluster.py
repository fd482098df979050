"""The executor on Ray. A command whose worker or machine is lost runs again elsewhere, from what is on disk."""

import importlib.util
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import cache
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from agent.errors import BadInput
from graphs.workers.command import LEAVE, threads_each
from graphs.workers.executors import Crew
from memory.shared.waiting import told

P = ParamSpec("P")
T = TypeVar("T")

INSTALL = "--on ray needs Ray: pip install 'nesylora[ray]'"
AGAIN = 3  # times that a command runs again whose worker was lost
STORE = 100 * 2**20  # bytes of the object store of a cluster of ours: only arguments and sentences pass through it
TOKEN = Path.home() / ".ray" / "auth_token"
GRACE = LEAVE + 10  # seconds in which commands that are cancelled end


class RayCrew(Crew):
    """Commands as tasks of Ray.

    Args:
        on: `ray` or `ray://HOST:PORT`; see `graphs.workers.executors.Place`.
        jobs: how many at a time, on a cluster that is started here; None: one for each core.
        gpus: that each takes, which may be a part of one; None: one where the cluster has any.

    Raises:
        BadInput: Ray is not installed, there is no cluster at this address, no room in it, or `jobs` is given for one.
    """

    def __init__(self, on: str, jobs: int | None, gpus: float | None) -> None:
        ray = _ray()
        address = os.environ.get("RAY_ADDRESS", "local") if on == "ray" else on
        if jobs is not None and address != "local":
            raise BadInput(f"--jobs is for this machine; the cluster at {address} runs as many as it has room for.")
        options: dict[str, Any] = {"logging_level": "error", "log_to_driver": False}
        if address == "local":
            options |= {"num_cpus": jobs or os.cpu_count(), "include_dashboard": False, "object_store_memory": STORE}
        cluster = "a Ray cluster on this machine" if address == "local" else f"the Ray cluster at {address}"
        try:
            with told(cluster):
                ray.init(address=address, **options)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise BadInput(f"There is no Ray cluster at {address}: {str(error).splitlines()[0]}") from error
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        each = float(any(machine.get("GPU") for machine in machines)) if gpus is None else gpus
        self.slots = sum(room(machine, each) for machine in machines)
        if not self.slots:  # Ray would wait for such a machine, without a word
            most = max((machine.get("GPU", 0.0) for machine in machines if machine.get("CPU", 0.0) >= 1), default=None)
            ray.shutdown()
            raise BadInput(_no_room(address, each, most))
        self.threads = threads_each(self.slots) if address == "local" else threads_each(os.cpu_count() or 1)
        self._remote = cache(lambda call: ray.remote(num_cpus=1, num_gpus=each, max_retries=AGAIN)(call))
        self._tasks: list[Any] = []

    def submit(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        task = self._remote(call).remote(*args, **kwargs)
        self._tasks.append(task)
        found: Future[T] = task.future()
        return found

    def on_each_machine(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "dict[str, Future[T]]":
        """Call it once on each machine of the cluster, GPUs in sight. By the machines' addresses."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        found: dict[str, Future[T]] = {}
        for node in _ray().nodes():
            if node["Alive"]:
                there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                task = _ray().remote(num_cpus=0, scheduling_strategy=there)(call).remote(*args, **kwargs)
                self._tasks.append(task)
                found[node["NodeManagerAddress"]] = task.future()
        return found

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """With `cancel_futures`, commands that run are interrupted, too. Ends a cluster that was started here."""
        ray = _ray()
        if cancel_futures and self._tasks:
            _, running = ray.wait(self._tasks, num_returns=len(self._tasks), timeout=0)
            for task in running:
                ray.cancel(task)  # a KeyboardInterrupt there, which interrupts its command
            if running:
                ray.wait(running, num_returns=len(running), timeout=GRACE)
        ray.shutdown()


def room(machine: Mapping[str, float], gpus: float) -> int:
    """How many commands run on a machine at a time.

    Args:
        machine: its resources, as Ray names them.
        gpus: that each takes; a part is always of one GPU.
    """
    cores, there = int(machine.get("CPU", 0)), int(machine.get("GPU", 0))
    if not gpus:
        return cores
    return min(cores, int(there / gpus) if gpus >= 1 else there * int(1 / gpus))


def _no_room(address: str, gpus: float, most: float | None) -> str:
    """Why nothing can run on a cluster. `most`: the most GPUs of a machine; None: no machine has a core to give."""
    if most is None:
        return f"The Ray cluster at {address} has no cores for commands: start a machine with `ray start --num-cpus=N`."
    return (
        f"--gpus-each {gpus:g}: no machine of the Ray cluster at {address} has so many GPUs (the most is {most:g}), so "
        "nothing would ever begin. Take fewer, or --gpus-each 0 for none."
    )


def _ray() -> Any:
    """The library. Raises BadInput: it is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise BadInput(INSTALL)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else it reports to its makers
    if "RAY_AUTH_TOKEN" in os.environ or TOKEN.is_file():  # `ray start` uses it then, and `ray.init(address)` would not
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    import ray

    return ray

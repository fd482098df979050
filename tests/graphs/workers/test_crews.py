"""Commands in processes here and on Ray: their results, their errors, a lost worker, and nothing left behind."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from agent.errors import BadInput, Busy
from graphs.context import new_run
from graphs.control.process import environment
from graphs.workers import command, ray_cluster
from graphs.workers import spread as spreading
from graphs.workers.command import CHILD, devices_each
from graphs.workers.executors import Crew, Place, crew, followed
from graphs.workers.spread import spread
from memory.run.folder import RunFolder
from memory.storage.lock import held

NO_RAY = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="pip install 'nesylora[ray]'")


@pytest.fixture(scope="module")
def on_ray() -> Iterator[Crew]:
    """One cluster for this file, with place for two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        with crew(Place("ray", 2)) as workers:
            yield workers


@pytest.fixture(params=["here", pytest.param("ray", marks=NO_RAY)])
def workers(request: pytest.FixtureRequest) -> Iterator[Crew]:
    if request.param == "ray":
        yield request.getfixturevalue("on_ray")
        return
    with crew(Place(jobs=2)) as made:
        yield made


def raises() -> str:
    raise OSError("the reason")


def test_commands_run_at_once_and_each_error_is_told_with_its_log(workers: Crew, tmp_path: Path) -> None:
    log = str(tmp_path / "log.txt")
    looked: list[str] = []
    failed = followed(
        {
            "fine": workers.command(["runs", "--runs", str(tmp_path)], str(tmp_path / "fine.txt")),
            "wrong": workers.command(["bench", "group", str(tmp_path / "gone")], log),
            "elsewhere": workers.command(["runs"], str(tmp_path / "gone" / "log.txt")),
            "broken": workers.submit(raises),
        },
        looked.append,
    )
    assert workers.slots == 2 and {"fine", "wrong"} <= set(looked)
    assert failed.keys() == {"wrong", "elsewhere", "broken"}
    assert "no group of a benchmark" in failed["wrong"] and log in failed["wrong"]
    assert f"no folder {tmp_path / 'gone'}: runs must be on a disk that all machines mount" in failed["elsewhere"]
    assert failed["broken"] == "OSError: the reason"
    assert "no runs" in (tmp_path / "fine.txt").read_text().lower()


def blocked_in_a_child() -> str:
    """The signals that a process of ours does not get."""
    code = f"{CHILD.partition('; import nesylora')[0]}; import signal; print(signal.pthread_sigmask(0, []))"
    with subprocess.Popen(
        [sys.executable, "-P", "-c", code], env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:  # fmt: skip
        assert child.stdout
        return child.stdout.read().strip()  # its stdin stays open meanwhile, or it would end at once


@NO_RAY
def test_a_command_can_be_interrupted_wherever_it_runs(on_ray: Crew) -> None:
    assert on_ray.submit(blocked_in_a_child).result(timeout=120) == "set()"


@NO_RAY
def test_a_run_whose_worker_is_killed_goes_on_and_its_first_process_is_gone(
    on_ray: Crew, tiny_task: Callable[..., Path], tmp_path: Path
) -> None:
    lora = {"epochs": 1, "rank": 4, "batch_size": 2, "replay": 0}
    task = tiny_task(policy="lora-only", budget={"rounds": 1}, lora=lora)
    run = new_run(task, ["recall.prompts=0", "experience=practice"], tmp_path / "runs")
    log = run.path / "console.log"
    future = on_ray.command(["resume", str(run.path)], str(log))
    note = Path(f"{run.lock_path}.holder")
    while not note.exists() and not future.done():
        time.sleep(0.05)
    child = psutil.Process(json.loads(note.read_text())["pid"])
    worker = child.parent()
    assert worker and worker.pid != os.getpid()
    worker.kill()
    psutil.wait_procs([child], timeout=60)
    assert not child.is_running()
    assert future.result(timeout=300) == "", log.read_text()
    assert run.outcome() and run.reported and [row.number for row in run.rounds()] == [1]


def test_what_still_runs_is_ended_with_the_crew(tmp_path: Path) -> None:
    """A server that would go on for ever."""
    with crew(Place(jobs=1)) as made:
        future = made.command(["ui", "--runs", str(tmp_path), "--no-open"], str(tmp_path / "log.txt"))
        children: list[psutil.Process] = []
        while not children and not future.done():
            children = [child for child in psutil.Process().children() if str(tmp_path) in child.cmdline()]
            time.sleep(0.05)
    assert future.done() and isinstance(future.exception(), KeyboardInterrupt)
    assert not psutil.wait_procs(children, timeout=300)[1]


def test_places_that_cannot_be_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for place, message in [
        ({"on": "slurm"}, "--on slurm: take `ray`"),
        ({"jobs": 0}, "--jobs must be at least 1"),
        ({"gpus": 0.5}, "--gpus-each is for --on ray"),
        ({"on": "ray", "gpus": 1.5}, "--gpus-each 1.5: take a part of one GPU, such as 0.5, or whole ones"),
        ({"on": "ray", "gpus": float("nan")}, "--gpus-each is for --on ray, and not below 0"),
    ]:
        with pytest.raises(BadInput, match=message):
            Place(**place)  # type: ignore[arg-type]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"pip install 'nesylora\[ray\]'"), crew(Place("ray")):
        pass


def test_a_command_waits_for_who_has_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a run's lock, for a while after its machine is gone: the file server does not know yet."""
    monkeypatch.setattr(command, "PAUSE", 0.2)
    queue, log = tmp_path / "queue-night", tmp_path / "log.txt"
    queue.mkdir()
    (queue / "queue.jsonl").touch()
    with crew(Place(jobs=1)) as made:
        with held(queue / "queue", "The queue"):
            future = made.command(["queue", "work", str(queue)], str(log))
            while (not log.exists() or log.read_text().count("is in use by") < 2) and not future.done():
                time.sleep(0.05)
            assert not future.done()
        assert "is in use by" not in future.result(timeout=120)
        monkeypatch.setattr(command, "HELD", 0.0)
        with held(queue / "queue", "The queue"):
            assert "is in use by process" in made.command(["queue", "work", str(queue)], str(log)).result(timeout=120)


# A command that says which GPUs it sees, and ends when all three are there.
LOOKING = """
import os, pathlib, sys, time
place = pathlib.Path(sys.argv[1])
(place / str(os.getpid())).write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "all"))
while len(list(place.iterdir())) < 3:
    time.sleep(0.02)
"""


def test_processes_here_divide_the_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "CHILD", LOOKING)
    for named, expected in [("5,GPU-a,7", ["5", "7", "GPU-a"]), ("-1", ["-1"] * 3)]:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
        place = tmp_path / named
        place.mkdir()
        with crew(Place(jobs=3)) as made:
            for _ in range(2):  # what a process has left, the next one takes
                futures = [made.command([str(place)], str(tmp_path / "log.txt")) for _ in range(3)]
                assert [future.result(timeout=60) for future in futures] == [""] * 3
                assert sorted(file.read_text() for file in place.iterdir()) == expected
                for file in place.iterdir():
                    file.unlink()


@pytest.mark.parametrize(
    ("devices", "jobs", "expected"),
    [(8, 8, list("01234567")), (8, 3, ["0,3,6", "1,4,7", "2,5"]), (2, 3, list("010")), (8, 1, []), (0, 2, [])],
)
def test_each_process_has_its_share_of_the_gpus(
    devices: int, jobs: int, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process alone has all of them, for `processes: 8`."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    shares = devices_each(jobs)
    assert len(shares) == jobs and [share["CUDA_VISIBLE_DEVICES"] for share in shares if share] == expected


class Cluster:
    """Ray, as far as its machines are asked for."""

    def __init__(self, *machines: tuple[int, int]) -> None:
        self.machines, self.address, self.ended = machines, "", False

    def init(self, address: str, **options: Any) -> None:
        self.address = address

    def nodes(self) -> list[dict[str, Any]]:
        found = [{"Alive": True, "Resources": {"CPU": float(cpu), "GPU": float(gpu)}} for cpu, gpu in self.machines]
        return [*found, {"Alive": False, "Resources": {"CPU": 99.0, "GPU": 99.0}}]

    def shutdown(self) -> None:
        self.ended = True


@pytest.mark.parametrize(
    ("machines", "gpus", "expected"),
    [
        ([(64, 8)], None, 8),
        ([(64, 8)], 0.5, 16),
        ([(64, 8)], 0.3, 24),
        ([(64, 8)], 0.0, 64),
        ([(64, 8), (4, 8), (64, 1)], 2.0, 8),
        ([(0, 0), (4, 0)], None, 4),
        ([(4, 0), (4, 0)], 0.5, "--gpus-each 0.5: no machine .* has so many GPUs .the most is 0.*--gpus-each 0"),
        ([(4, 1), (4, 1)], 2.0, "--gpus-each 2: no machine .* has so many GPUs .the most is 1"),
        ([(0, 0)], None, "no cores for commands"),
    ],
)
def test_a_cluster_says_how_many_it_runs_at_a_time_and_refuses_what_would_wait_for_ever(
    machines: list[tuple[int, int]], gpus: float | None, expected: int | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster(*machines)
    monkeypatch.setattr(ray_cluster, "_ray", lambda: cluster)
    if isinstance(expected, str):
        with pytest.raises(BadInput, match=expected), crew(Place("ray://head:10001", None, gpus)):
            pass
    else:
        with crew(Place("ray://head:10001", None, gpus)) as made:
            assert made.slots == expected
    assert cluster.ended and cluster.address == "ray://head:10001"


class Failing(Crew):
    """Runs nothing, and says where it would have."""

    def command(self, arguments: list[str], log: str) -> "Future[str]":
        done: Future[str] = Future()
        done.set_result(f"not {arguments[1]}")
        return done


def test_runs_of_one_name_are_all_run_and_a_look_that_fails_ends_nothing(tmp_path: Path) -> None:
    runs = [RunFolder(tmp_path / root / "night") for root in ("a", "b")]
    looked = []

    def look(run: RunFolder) -> None:
        looked.append(run)
        raise BadInput("ledger.jsonl, line 1: not a row of a ledger")

    failed = spread(runs, Failing(), look)
    assert failed == {run.path: f"not {run.path}" for run in runs} and looked == runs


def test_in_turn_a_run_that_another_process_has_is_tried_again_after_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spreading, "LOOK", 0.01)
    runs = [RunFolder(tmp_path / name) for name in ("held", "damaged", "fine")]
    turns = []

    def begin(run: RunFolder) -> str:
        turns.append(run.name)
        if run.name == "held" and len(turns) < 5:
            raise Busy("in use")
        if run.name == "damaged":
            raise BadInput("ledger.jsonl, line 1")
        return ""

    failed = spread(runs, Failing(), lambda run: None, begin)
    assert turns == ["held", "damaged", "fine", "held", "held"]
    assert [failed[run.path] for run in runs] == [f"not {runs[0].path}", "ledger.jsonl, line 1", f"not {runs[2].path}"]
    turns.clear()
    monkeypatch.setattr(spreading, "HELD", 0.0)
    assert spread(runs[:1], Failing(), lambda run: None, begin) == {runs[0].path: "in use"}


def test_a_run_that_is_met_in_use_after_hours_is_waited_for_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, clock, turns = [RunFolder(tmp_path / name) for name in ("long", "held")], [0.0], list[str]()
    monkeypatch.setattr(spreading, "LOOK", 0.01)
    monkeypatch.setattr(spreading, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=lambda _: None))

    def begin(run: RunFolder) -> str:
        clock[0] += 10_000.0 if run.name == "long" else spreading.HELD / 2
        turns.append(run.name)
        if turns.count("held") in (1, 2) and run.name == "held":
            raise Busy("in use")
        return ""

    assert spread(runs, Failing(), lambda run: None, begin)[runs[1].path] == f"not {runs[1].path}"
    assert turns == ["long", "held", "held", "held"]

"""Commands in processes here and on Ray: their results, their errors, a lost worker, and nothing left behind."""

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from agent.errors import BadInput
from graphs.control.client import environment
from graphs.workers.command import CHILD
from graphs.workers.executors import Crew, Place, crew, followed

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


def killed_once(mark: str) -> str:
    """Ends its own process at the first call, as one would that is out of memory."""
    if not Path(mark).exists():
        Path(mark).write_text(str(os.getpid()))
        os.kill(os.getpid(), 9)
    return Path(mark).read_text()


def test_commands_run_at_once_and_each_error_is_told_with_its_log(workers: Crew, tmp_path: Path) -> None:
    log = str(tmp_path / "log.txt")
    looked: list[str] = []
    failed = followed(
        {
            "fine": workers.command(["runs", "--runs", str(tmp_path)], log),
            "wrong": workers.command(["bench", "group", str(tmp_path / "gone")], log),
        },
        looked.append,
    )
    assert workers.slots == 2 and {"fine", "wrong"} <= set(looked)
    assert failed.keys() == {"wrong"} and "no group of a benchmark" in failed["wrong"] and log in failed["wrong"]
    assert "No runs" in Path(log).read_text() or "no runs" in Path(log).read_text()


def blocked_in_a_child() -> str:
    """The signals that a process of ours does not get."""
    code = f"{CHILD.partition('; import nesylora')[0]}; import signal; print(signal.pthread_sigmask(0, []))"
    return subprocess.run(
        [sys.executable, "-P", "-c", code], env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ).stdout.strip()  # fmt: skip


@NO_RAY
def test_a_command_can_be_interrupted_wherever_it_runs(on_ray: Crew) -> None:
    assert on_ray.submit(blocked_in_a_child).result(timeout=120) == "set()"


@NO_RAY
def test_a_task_whose_worker_is_killed_runs_again(on_ray: Crew, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    assert on_ray.submit(killed_once, str(mark)).result(timeout=120) == mark.read_text()


def test_what_still_runs_is_ended_with_the_crew(tmp_path: Path) -> None:
    """A server that would go on for ever."""
    with crew(Place(jobs=1)) as made:
        future = made.command(["ui", "--runs", str(tmp_path), "--no-open"], str(tmp_path / "log.txt"))
        children: list[psutil.Process] = []
        while not children and not future.done():
            children = [child for child in psutil.Process().children() if str(tmp_path) in child.cmdline()]
            time.sleep(0.05)
    assert future.done() and isinstance(future.exception(), KeyboardInterrupt)
    assert not psutil.wait_procs(children, timeout=10)[1]


def test_places_that_cannot_be_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for place, message in [
        ({"on": "slurm"}, "--on slurm: take `ray`"),
        ({"jobs": 0}, "--jobs must be at least 1"),
        ({"gpus": 0.5}, "--gpus-each is for --on ray"),
    ]:
        with pytest.raises(BadInput, match=message):
            Place(**place)  # type: ignore[arg-type]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"pip install 'nesylora\[ray\]'"), crew(Place("ray")):
        pass

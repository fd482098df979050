"""`nesylora doctor --cluster`: what makes machines unequal is said, with the way out."""

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest

from agent.errors import BadInput
from graphs.workers import ray_cluster
from ui.commands import cluster
from ui.commands.cluster import Machine, machine, show


class Crew:
    """Three machines of a cluster: one answers, one cannot, one is silent."""

    def __init__(self, on: str, jobs: int | None, gpus: float | None) -> None: ...

    def on_each_machine(self, call: Callable[[str], Machine], probe: str) -> dict[str, Future[Machine]]:
        found = {name: Future[Machine]() for name in ("10.0.0.1", "10.0.0.2", "10.0.0.3")}
        found["10.0.0.1"].set_result(call(probe))
        found["10.0.0.2"].set_exception(RuntimeError("a traceback\nModuleNotFoundError: No module named 'ui'"))
        return found

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None: ...


def test_a_machine_that_is_silent_or_fails_is_named_beside_those_that_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "RayCrew", Crew)
    monkeypatch.setattr(cluster, "WAIT", 0.1)
    assert cluster.cluster("ray", tmp_path / "runs") == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "10.0.0.2 did not answer: ModuleNotFoundError: No module named 'ui'." in said
    assert "10.0.0.3 did not answer: it took longer than 0.1 seconds." in said and "Is nesylora installed there" in said
    assert "on a disk that all machines mount" not in said, "the first sees the runs"
    assert not list((tmp_path / "runs").iterdir())


def test_nothing_stays_behind_where_there_is_no_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"pip install 'nesylora\[ray\]'"):
        cluster.cluster("ray", tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_machines_that_are_alike_and_share_the_runs_are_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    probe = tmp_path / "probe"
    probe.touch()
    here = machine(str(probe))
    assert here.shares and here.cores >= 1 and "missing" not in here.versions
    assert show({"10.0.0.1": here, "10.0.0.2": here._replace(host="other")}, tmp_path) == 0
    assert "other" in capsys.readouterr().out


def test_other_versions_another_disk_and_no_answer_are_faults(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = machine(str(tmp_path / "gone" / "probe"))
    assert not there.shares
    old = there._replace(host="old", versions=("3.11.0", *there.versions[1:]), shares=True)
    assert show({"10.0.0.1": there, "10.0.0.2": old, "10.0.0.3": "ModuleNotFoundError: no nesylora"}, tmp_path) == 1
    said = capsys.readouterr().out
    assert "Versions differ" in said and f"{there.host}: no {tmp_path}" in " ".join(said.split())
    assert "10.0.0.3 did not answer: ModuleNotFoundError" in said

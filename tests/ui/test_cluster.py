"""`nesylora doctor --cluster`: what makes machines unequal is said, with the way out."""

from pathlib import Path

import pytest

from ui.commands.cluster import machine, show


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
    assert "is nesylora installed there?" in said

"""A disk that is full: what was written is whole, the run stops and says how much room it needs, and goes on later."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors import safe_open

from graphs.context import new_run
from memory.run.folder import RunFolder
from tests.faults.zygote import Zygote
from tests.fixtures.learnable import LEARNABLE, TinyTask

SETTINGS = ["policy=w -> p", "seed=1", "budget.rounds=2", "lora.epochs=3"]
SIZE = 8_000_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of eight million bytes, where one may be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(disk)]
    try:
        if subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("a small disk can be mounted by root only")
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def leave(disk: Path, room: int) -> None:
    """Fill the disk so that this many bytes are free."""
    ballast = disk / "ballast"
    ballast.unlink(missing_ok=True)
    status = subprocess.run(["df", "-B1", "--output=avail", str(disk)], capture_output=True, text=True, check=True)
    ballast.write_bytes(bytes(max(0, int(status.stdout.split()[-1]) - room)))


def check_whole(run: RunFolder) -> None:
    """Nothing in the folder is half a file."""
    run.rounds()
    for file in run.path.rglob("*.json"):
        json.loads(file.read_bytes())
    for marker in run.path.glob("adapters/*/complete"):
        with safe_open(marker.with_name("adapter_model.safetensors"), "pt") as adapter:
            assert list(adapter.keys())


def outline(run: RunFolder) -> list[object]:
    return [(row.number, row.trial.candidate, row.verdict, row.best) for row in run.rounds()]


def test_a_run_on_a_disk_that_fills_up_says_what_it_needs_and_ends_as_it_would_have(
    processes: Zygote, tiny_task: TinyTask, tmp_path: Path, small_disk: Path
) -> None:
    task = tiny_task(**LEARNABLE)
    whole = new_run(task, SETTINGS, tmp_path / "runs")
    assert not processes.play(whole.path).error
    run = new_run(task, SETTINGS, small_disk / "runs")
    said = []
    for room in (0, 4096, 20_000, 50_000, 80_000, 120_000, 200_000, 400_000, 800_000):
        if run.outcome() is None:
            leave(small_disk, room)
            said.append(processes.play(run.path).error)
            check_whole(run)
    (small_disk / "ballast").unlink()
    last = processes.play(run.path).error
    assert not last, last
    stopped = [message for message in said if message]
    assert len(stopped) > 3, "it was too large for the first rooms"
    for message in stopped:
        assert message.startswith("DiskFull: The disk is full: ") and "bytes needed" in message, message
        assert "All that was written before is whole. Make room, then resume." in message
    assert outline(run) == outline(whole) and run.outcome() is not None

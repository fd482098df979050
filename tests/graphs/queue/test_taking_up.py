"""A queue that was broken off, taken up again: nothing is lost, and no process is left behind."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.errors import BadInput
from agent.records.events import Note
from agent.records.queue import (
    NightLimits,
)
from eval.tasks.task import load_config
from graphs.control.client import live
from graphs.control.extension import extend_stopped
from graphs.control.steering import RunStatus
from graphs.queue.foreman import Foreman
from graphs.queue.making import new_queue, take_up
from memory.run.folder import RunFolder
from memory.storage.lock import holder
from tests.graphs.queue.nights import (
    AT_ONCE,
    ONE_LONG,
    SHORT,
    Seen,
    run_of,
)

pytestmark = pytest.mark.usefixtures("forked_workers", "no_probe")


def test_a_killed_foreman_leaves_a_run_that_goes_on_and_the_queue_is_taken_up(
    tasks: Callable[..., list[Path]], tmp_path: Path
) -> None:
    queue = new_queue(tasks("only"), NightLimits(), tmp_path / "runs", ONE_LONG)

    class Killed(BaseException):
        pass

    def die(seen: tuple[RunFolder, RunStatus]) -> None:
        if seen[1].step and seen[1].step.what == "training LoRA":
            paused = live(seen[0])
            assert paused
            paused.pause()  # or it might be over before it is taken over
            raise Killed

    with pytest.raises(Killed):
        Foreman(queue, Seen(at_run=die), AT_ONCE).work()
    run = RunFolder.open(queue.root / queue.read().items[0].run)
    remote = live(run)
    assert remote is not None
    pid = remote.status().pid
    take_up(queue, NightLimits(minutes=500))
    pids = set()

    def go_on(both: tuple[RunFolder, RunStatus]) -> None:
        pids.add(both[1].pid)
        if both[1].condition == "paused":
            remote.go_on()

    seen = Seen(at_run=go_on)
    Foreman(queue, seen, AT_ONCE).work()
    assert pid in pids and seen.ends == [(1, "finished")]
    kinds = [json.loads(line)["kind"] for line in (run.path / "ledger.jsonl").read_text().splitlines()]
    assert kinds == ["baseline", "extension", "round", "outcome"]
    (row,) = run.extensions()  # which the process that went on by itself was given
    assert row.by == "queue" and row.limits.minutes == pytest.approx(500, abs=2)
    with pytest.raises(BadInput, match="is done"):
        take_up(queue, NightLimits())


def test_a_signal_while_a_process_starts_leaves_none_behind(
    tasks: Callable[..., list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = new_queue(tasks("only"), NightLimits(), tmp_path / "runs", SHORT)
    started: list[subprocess.Popen[bytes]] = []

    class Started(subprocess.Popen[bytes]):
        def __init__(self, *command: Any, **options: Any) -> None:
            super().__init__(*command, **options)
            started.append(self)

    sleep, signals = time.sleep, iter([KeyboardInterrupt])

    def interrupted(seconds: float) -> None:
        if started and (came := next(signals, None)):
            raise came
        sleep(seconds)

    monkeypatch.setattr("graphs.control.client.subprocess.Popen", Started)
    monkeypatch.setattr("graphs.control.client.time.sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Foreman(queue, Seen(), AT_ONCE).work()
    assert [worker.poll() is not None for worker in started] == [True]
    assert holder(run_of(queue).lock_path) is None and not queue.read().items[0].ended


def test_a_damaged_ledger_and_limits_that_a_user_has_set_outlive_the_evening(
    tasks: Callable[..., list[Path]], tmp_path: Path
) -> None:
    settings = [*ONE_LONG, "budget.minutes=30"]
    queue = new_queue(tasks("only"), NightLimits(minutes=600), tmp_path / "runs", settings)
    waits = Seen()

    class Interrupted(Seen):
        def stopping(self) -> None:
            waits.stops += holder(run_of(queue).lock_path) is not None

    def interrupt(seen: tuple[RunFolder, RunStatus]) -> None:
        if seen[0].baseline():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Foreman(queue, Interrupted(at_run=interrupt), AT_ONCE).work()
    assert waits.stops == 1, "it is said while the run has not let go yet"
    run = run_of(queue)
    extend_stopped(run, load_config(run.task_file), {"minutes": 45})
    lines = (run.path / "ledger.jsonl").read_bytes().splitlines()
    (run.path / "ledger.jsonl").write_bytes(b"".join(line + b"\n" for line in [*lines[:-1], b"\x00{torn"]))
    take_up(queue, NightLimits(minutes=500))
    seen = Seen()
    Foreman(queue, seen, AT_ONCE).work()
    assert seen.ends == [(1, "finished")] and [row.number for row in run.rounds()] == [1]
    assert [(row.limits.minutes, row.by) for row in run.extensions()] == [(45, "user")]
    assert "ledger.jsonl was damaged" in "".join(note.text for note in run.events().of(Note))

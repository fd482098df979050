"""A task that goes wrong in a queue: its run is tried again, put off, and given up; no other is held up by it."""

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from agent.errors import NesyLoraError
from agent.records.queue import (
    NightLimits,
    QueueRow,
    TaskStopped,
)
from graphs.control.client import Remote
from graphs.control.steering import RunStatus
from graphs.queue.changes import change_limits
from graphs.queue.foreman import Foreman
from graphs.queue.making import new_queue
from memory.queue import QueueFolder, QueueState
from memory.run.folder import RunFolder
from tests.graphs.queue.nights import AT_ONCE, ONE_LONG, SHORT, Seen, a_queue_whose_first_task_is_too_long, run_of

pytestmark = pytest.mark.usefixtures("forked_workers", "no_probe")


def test_a_run_that_is_killed_again_and_again_is_tried_again_put_off_and_given_up(
    tasks: Callable[..., list[Path]], tmp_path: Path
) -> None:
    dies, lives = tasks("dies", "lives", policy="lora-only")
    queue = new_queue([dies, lives], NightLimits(), tmp_path / "runs", ["budget.rounds=1", "lora.epochs=1"])

    def kill(seen: tuple[RunFolder, RunStatus]) -> None:
        run, status = seen
        if run.about.task == "dies" and status.pid and status.condition == "working":
            os.kill(status.pid, signal.SIGKILL)

    seen = Seen(at_run=kill)
    Foreman(queue, seen, AT_ONCE).work()
    stops = [(row.number, row.then) for row in seen.rows if isinstance(row, TaskStopped)]
    assert stops == [(1, "again"), (1, "later"), (1, "again")]
    assert seen.ends == [(2, "finished"), (1, "failed")]
    reason = queue.read().items[0].ended
    assert reason and "killed, or out of memory" in reason.reason


def test_a_disk_that_is_full_is_waited_for_and_then_the_task_has_failed(
    tasks: Callable[..., list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = new_queue(tasks("only"), NightLimits(), tmp_path / "runs", SHORT)
    full = NesyLoraError("The disk is full.")
    append, failures = QueueFolder.append, iter([full, full])

    def no_room(*_: object) -> None:
        raise full

    def append_later(folder: QueueFolder, row: Callable[[QueueState], QueueRow]) -> QueueRow:
        if failure := next(failures, None):
            raise failure
        return append(folder, row)

    monkeypatch.setattr("graphs.queue.foreman.new_run", no_room)
    monkeypatch.setattr(QueueFolder, "append", append_later)
    seen = Seen()
    Foreman(queue, seen, (0.0, 0.0)).work()
    stops = [row.then for row in seen.rows if isinstance(row, TaskStopped)]
    assert stops == ["again", "again", "later", "again", "again"] and seen.ends == [(1, "failed")]
    assert queue.read().ended is not None


def test_a_process_that_gives_no_sign_of_life_is_ended_and_its_run_goes_on(
    tasks: Callable[..., list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = new_queue(tasks("only"), NightLimits(), tmp_path / "runs", ONE_LONG)
    hung: list[int] = []

    def hang(seen: tuple[RunFolder, RunStatus]) -> None:
        if seen[1].pid and seen[1].step and seen[1].step.what == "training LoRA" and not hung:
            hung.append(seen[1].pid)
            os.kill(hung[0], signal.SIGSTOP)
            for name, seconds in (("client.ANSWERS", 0.1), ("asking.ENDS", 0.1), ("pulse.STILL", 0.2)):
                part = "control" if name.startswith("client") else "queue"
                monkeypatch.setattr(f"graphs.{part}.{name}", seconds)

    def recover(row: QueueRow) -> None:
        if isinstance(row, TaskStopped):
            monkeypatch.setattr("graphs.queue.pulse.STILL", 900.0)
            monkeypatch.setattr("graphs.control.client.ANSWERS", 30.0)

    seen = Seen(recover, hang)
    Foreman(queue, seen, AT_ONCE).work()
    [stop] = [row for row in seen.rows if isinstance(row, TaskStopped)]
    assert hung and stop.then == "again" and "written nothing and computed nothing" in stop.reason
    assert seen.ends == [(1, "finished")] and [row.number for row in run_of(queue).rounds()] == [1]


def test_a_process_that_hangs_while_it_is_given_other_limits_is_ended(
    tasks: Callable[..., list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = new_queue(tasks("only"), NightLimits(minutes=600), tmp_path / "runs", ONE_LONG)
    hung: list[int] = []
    share = Remote.share

    def hang(remote: Remote, limits: Mapping[str, float | None]) -> RunStatus:
        if not hung:
            hung.append(remote.status().pid or 0)
            os.kill(hung[0], signal.SIGSTOP)
            for name, seconds in (
                ("control.client.ANSWERS", 0.1),
                ("queue.asking.ENDS", 0.1),
                ("queue.pulse.STILL", 0.2),
            ):
                monkeypatch.setattr(f"graphs.{name}", seconds)
        return share(remote, limits)

    def recover(row: QueueRow) -> None:
        if isinstance(row, TaskStopped):
            monkeypatch.setattr("graphs.queue.pulse.STILL", 900.0)
            monkeypatch.setattr("graphs.control.client.ANSWERS", 30.0)

    def change(seen: tuple[RunFolder, RunStatus]) -> None:
        if seen[1].step and seen[1].step.what == "training LoRA" and not hung:
            change_limits(queue, {"minutes": 300.0})

    monkeypatch.setattr(Remote, "share", hang)
    seen = Seen(recover, change)
    Foreman(queue, seen, AT_ONCE).work()
    [stop] = [row for row in seen.rows if isinstance(row, TaskStopped)]
    assert hung and "written nothing and computed nothing" in stop.reason and seen.ends == [(1, "finished")]


def test_a_task_that_was_passed_over_keeps_no_other_from_failing(
    tasks: Callable[..., list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = a_queue_whose_first_task_is_too_long(tasks("long", "breaks"), tmp_path / "runs")

    def breaks(run: RunFolder) -> Remote:
        assert len(queue.read().items[1].started) < 9, "it is tried for ever"
        raise NesyLoraError("No process could be started.")

    monkeypatch.setattr("graphs.queue.foreman.start_worker", breaks)
    seen = Seen()
    end = Foreman(queue, seen, AT_ONCE).work()
    stops = [(row.number, row.then) for row in seen.rows if isinstance(row, TaskStopped)]
    assert stops == [(2, "again"), (2, "later"), (2, "again")] and seen.ends == [(2, "failed")]
    assert "long: 20.0 minutes are left" in end.reason

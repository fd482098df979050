"""What all tasks of a queue may use together, over evenings, while a run works, and at the time named."""

import os
import shutil
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from agent.errors import BadInput, NesyLoraError
from agent.records.queue import (
    NightLimits,
    Rate,
    TaskStarted,
    TaskStopped,
)
from agent.signal.cost_model import Sizes
from agent.signal.run_costs import Sample, Tried
from eval.tasks.task import load_config
from graphs.control.client import Remote
from graphs.control.steering import RunStatus
from graphs.queue.changes import change_limits
from graphs.queue.foreman import Foreman
from graphs.queue.making import add_task, new_queue, take_up
from graphs.queue.shares import spend_of, spent
from memory.queue import now
from memory.run.folder import RunFolder
from memory.storage.lock import holder
from tests.graphs.queue.nights import (
    AT_ONCE,
    LONG,
    SHORT,
    Seen,
    a_queue_whose_first_task_is_too_long,
    raise_,
    run_of,
)

pytestmark = pytest.mark.usefixtures("forked_workers", "no_probe")


def test_what_all_have_together_ends_the_queue_and_counts_over_evenings(
    tasks: Callable[..., list[Path]], tmp_path: Path
) -> None:
    first, second = tasks("first", "second")
    queue = new_queue(
        [first], NightLimits(train_tokens=600), tmp_path / "runs", [*LONG, "lora.epochs=4", "budget.rounds=9"]
    )
    seen = Seen()
    Foreman(queue, seen, AT_ONCE).work()
    outcome = RunFolder.open(queue.root / queue.read().items[0].run).outcome()
    assert outcome and "training tokens is used up" in outcome.stopped
    used = spend_of(queue, queue.read()).train_tokens
    assert used == outcome.spend.train_tokens >= 600
    add_task(queue, second, SHORT)
    with pytest.raises(BadInput, match="Not even one training fits into 0 training tokens"):
        take_up(queue, NightLimits())
    take_up(queue, NightLimits(train_tokens=used + 10_000))
    end = Foreman(queue, seen, AT_ONCE).work()
    assert seen.ends == [(1, "finished"), (2, "finished")]
    assert end.spend.train_tokens > used


def test_at_the_time_named_the_run_under_way_ends_and_the_rest_waits(
    tasks: Callable[..., list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = new_queue(tasks("first", "second"), NightLimits(until=now() + timedelta(hours=8)), tmp_path / "runs", LONG)
    later = timedelta()
    monkeypatch.setattr("graphs.queue.foreman.now", lambda: now() + later)

    def jump(seen: tuple[RunFolder, RunStatus]) -> None:
        nonlocal later
        if seen[1].step and seen[1].step.what == "training LoRA":
            later = timedelta(hours=8)

    finish, failures = Remote.finish, iter([NesyLoraError("No answer.")])

    def finish_at_second(remote: Remote) -> RunStatus:
        if failure := next(failures, None):
            raise failure
        return finish(remote)

    monkeypatch.setattr(Remote, "finish", finish_at_second)
    seen = Seen(at_run=jump)
    end = Foreman(queue, seen, AT_ONCE).work()
    assert seen.ends == [(1, "finished")]
    outcome = RunFolder.open(queue.root / queue.read().items[0].run).outcome()
    assert outcome and "user" in outcome.stopped
    assert "second: 0.0 minutes are left until" in end.reason
    take_up(queue, NightLimits(until=now() + timedelta(hours=20)))
    assert [item.added.name for item in queue.read().open] == ["second"]


def test_a_run_that_answers_no_more_does_not_hold_the_queue_beyond_its_time(
    tasks: Callable[..., list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = new_queue(tasks("only"), NightLimits(until=now() + timedelta(hours=8)), tmp_path / "runs", LONG)
    later, hung = timedelta(), list[int]()
    monkeypatch.setattr("graphs.queue.foreman.now", lambda: now() + later)

    def hang(seen: tuple[RunFolder, RunStatus]) -> None:
        nonlocal later
        if seen[1].pid and seen[1].step and seen[1].step.what == "training LoRA":
            hung.append(seen[1].pid)
            os.kill(hung[0], signal.SIGSTOP)
            later = timedelta(hours=8)
            monkeypatch.setattr("graphs.control.client.ANSWERS", 0.1)
            monkeypatch.setattr("graphs.queue.asking.HANGS", 0.0)
            monkeypatch.setattr("graphs.queue.asking.ENDS", 0.1)

    seen = Seen(at_run=hang)
    end = Foreman(queue, seen, AT_ONCE).work()
    assert len(hung) == 1 and [row.then for row in seen.rows if isinstance(row, TaskStopped)] == ["again"]
    assert not seen.ends and "only: no time is left until" in end.reason
    assert holder(run_of(queue).lock_path) is None, "it can be gone on with another night"


def test_a_time_that_has_passed_is_refused_and_so_is_one_into_which_no_round_fits(
    tasks: Callable[..., list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate = Rate(answering=1.0, training=1.0, source="a slow machine")
    sizes = Sizes(asked=20, wanted=5, answered=5, shown=25)
    sample = Sample(rate=rate, sizes=sizes, answered=5, k=0, before=0.0, after=0.0)
    monkeypatch.setattr("graphs.queue.estimate.probe", lambda tasks: [Tried(sample=sample)] * len(tasks))
    named = tasks("first", "second")
    with pytest.raises(BadInput, match=r"Not even one round of each task fits: 3\.0 minutes are left of 3 minutes"):
        new_queue(named, NightLimits(minutes=3), tmp_path / "runs", SHORT)
    assert not (tmp_path / "runs").exists()
    queue = new_queue(named, NightLimits(until=now() + timedelta(hours=8)), tmp_path / "runs", SHORT)
    monkeypatch.setattr("graphs.queue.making.now", lambda: now() + timedelta(hours=9))
    with pytest.raises(BadInput, match="has passed"):
        take_up(queue, NightLimits())


def test_limits_changed_meanwhile_hold_for_the_run_and_a_removed_run_begins_anew_and_still_counts(
    tasks: Callable[..., list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = new_queue(tasks("only"), NightLimits(minutes=600), tmp_path / "runs", LONG)
    at = now()
    monkeypatch.setattr("graphs.queue.foreman.now", lambda: at)  # both runs begin within a second

    def change(seen: tuple[RunFolder, RunStatus]) -> None:
        if seen[0].extensions():
            raise KeyboardInterrupt
        if seen[0].baseline() and queue.read().limits.minutes == 600:
            change_limits(queue, {"minutes": 300.0})

    with pytest.raises(KeyboardInterrupt):
        Foreman(queue, Seen(at_run=change), AT_ONCE).work()
    run = run_of(queue)
    [row] = run.extensions()
    assert row.by == "queue" and row.limits.minutes == pytest.approx(300, abs=2)
    used = spend_of(queue, queue.read())
    assert used == spent(run) and used.seconds > 0
    shutil.rmtree(run.path)
    assert spend_of(queue, queue.read()) == used
    take_up(queue, NightLimits())
    seen = Seen(at_row=lambda row: isinstance(row, TaskStarted) and raise_(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        Foreman(queue, seen, AT_ONCE).work()
    begun = queue.read().items[0].started[-1]
    assert begun.after == run.name != begun.run and spend_of(queue, queue.read()) == used


def test_a_task_that_was_passed_over_takes_no_time_from_the_run_under_way_when_limits_change(
    tasks: Callable[..., list[Path]], tmp_path: Path
) -> None:
    queue = a_queue_whose_first_task_is_too_long(tasks("long", "short"), tmp_path / "runs")
    given: list[float | None] = []

    def change(seen: tuple[RunFolder, RunStatus]) -> None:
        if seen[0].extensions():
            raise KeyboardInterrupt
        if seen[0].baseline() and not given:
            given.append(load_config(seen[0].task_file).limits.minutes)
            change_limits(queue, {"minutes": 25.0})

    with pytest.raises(KeyboardInterrupt):
        Foreman(queue, Seen(at_run=change), AT_ONCE).work()
    run = RunFolder.open(queue.root / queue.read().items[1].run)
    assert given == [pytest.approx(20, abs=0.2)]
    assert [row.limits.minutes for row in run.extensions()] == [pytest.approx(25, abs=0.2)]

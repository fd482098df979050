"""A queue worked through: a process for every task, what goes wrong with one, and what is left of a budget."""

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.errors import BadInput, Busy, NesyLoraError
from agent.records.events import Note
from agent.records.queue import (
    Estimate,
    NightLimits,
    QueueBegun,
    QueueEnded,
    QueueRow,
    Rate,
    TaskAdded,
    TaskEnded,
    TaskStarted,
    TaskStopped,
)
from agent.signal.cost_model import Sizes
from agent.signal.run_costs import Sample, Tried
from eval.tasks.task import load_config
from graphs.control.client import Remote, live, start_worker
from graphs.control.extension import extend_stopped
from graphs.control.steering import RunStatus
from graphs.queue.changes import change_limits
from graphs.queue.foreman import Foreman
from graphs.queue.making import add_task, new_queue, take_up
from graphs.queue.shares import spend_of, spent
from memory.queue import QueueFolder, QueueState, now
from memory.run.folder import RunFolder
from memory.storage.lock import holder
from tests.fixtures.learnable import TinyTask

SHORT = ["policy=lora-only", "budget.rounds=1", "lora.epochs=1"]
LONG = ["policy=lora-only", "budget.rounds=2", "lora.epochs=20", "lora.batch_size=1", "lora.enough=0"]  # 80 steps
AT_ONCE = (0.0,)  # two tries, one after the other


class Seen:
    """A watcher that keeps what it is told, and does something at a row or while a run works."""

    def __init__(self, at_row: Callable[[QueueRow], object] = bool, at_run: Callable[..., object] = bool) -> None:
        self.rows: list[QueueRow] = []
        self.stops = 0
        self._at_row, self._at_run = at_row, at_run

    def row(self, row: QueueRow, state: QueueState) -> None:
        self.rows.append(row)
        self._at_row(row)

    def run(self, run: RunFolder, status: RunStatus) -> None:
        self._at_run((run, status))

    def stopping(self) -> None:
        self.stops += 1

    @property
    def ends(self) -> list[tuple[int, str]]:
        return [(row.number, row.state) for row in self.rows if isinstance(row, TaskEnded)]


@pytest.fixture
def tasks(tiny_task: TinyTask, tmp_path: Path) -> Callable[..., list[Path]]:
    """Copies of the tiny task, each with a name of its own."""

    def make(*names: str, **changes: object) -> list[Path]:
        source = tiny_task()
        made = []
        for name in names:
            folder = tmp_path / name
            shutil.copytree(source, folder)
            config = yaml.safe_load((folder / "task.yaml").read_text()) | {"name": name} | changes
            (folder / "task.yaml").write_text(yaml.safe_dump(config))
            made.append(folder)
        return made

    return make


pytestmark = pytest.mark.usefixtures("forked_workers")


@pytest.fixture(autouse=True)
def no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would load a model in a process of its own; `test_estimate` tests it."""
    monkeypatch.setattr("graphs.queue.estimate.probe", lambda tasks: [Tried()] * len(tasks))


def test_a_task_that_breaks_does_not_stop_the_others_and_one_more_is_added_meanwhile(
    tasks: Callable[..., list[Path]], tmp_path: Path
) -> None:
    good, breaks, last, more = tasks("good", "breaks", "last", "more")
    queue = new_queue([good, breaks, last], NightLimits(), tmp_path / "runs", SHORT)
    (breaks / "validation.jsonl").write_text('{"question": "Another?"}\n')  # found when its turn comes

    def add(row: QueueRow) -> None:
        if isinstance(row, TaskEnded) and row.number == 1:
            assert add_task(queue, more, SHORT).number == 4

    seen = Seen(add)
    end = Foreman(queue, seen, AT_ONCE).work()
    assert seen.ends == [(1, "finished"), (2, "failed"), (3, "finished"), (4, "finished")]
    state = queue.read()
    failed = state.items[1].ended
    assert failed and "validation.jsonl" in failed.reason and "answer" in failed.reason
    assert end.reason == "3 of 4 done; failed: breaks." and state.ended == end
    runs = [RunFolder.open(queue.root / item.run) for item in state.items if item.run != state.items[1].run]
    assert [run.about.task for run in runs] == ["good", "last", "more"]
    assert end.spend.train_tokens == sum(run.rounds()[-1].spend.train_tokens for run in runs) > 0


def test_a_task_that_is_added_while_the_end_is_told_is_worked_on(
    tasks: Callable[..., list[Path]], tmp_path: Path
) -> None:
    first, more = tasks("first", "more")
    queue = new_queue([first], NightLimits(), tmp_path / "runs", SHORT)

    def add(row: QueueRow) -> None:
        if isinstance(row, QueueEnded) and len(queue.read().items) == 1:
            add_task(queue, more, SHORT)

    seen = Seen(add)
    end = Foreman(queue, seen, AT_ONCE).work()
    assert seen.ends == [(1, "finished"), (2, "finished")]
    assert queue.read().ended == end and holder(queue.lock_path) is None


def test_a_task_that_cannot_be_used_is_refused_before_anything_begins(
    tasks: Callable[..., list[Path]], tmp_path: Path
) -> None:
    good, bad, worse = tasks("good", "bad", "worse")
    (bad / "train.jsonl").unlink()
    (worse / "task.yaml").write_text("name: worse\n")
    with pytest.raises(BadInput, match=r"2 of 3 tasks .* nothing was begun") as refused:
        new_queue([good, bad, worse], NightLimits(), tmp_path / "runs", SHORT)
    assert "train.jsonl" in str(refused.value) and "worse" in str(refused.value)
    assert not (tmp_path / "runs").exists()


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


def test_a_run_that_asks_is_answered_since_nobody_is_there(
    tasks: Callable[..., list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = new_queue(tasks("only"), NightLimits(), tmp_path / "runs", SHORT)
    monkeypatch.setattr("graphs.queue.foreman.start_worker", lambda run: start_worker(run, supervised=True))
    asked: list[int] = []
    seen = Seen(at_run=lambda both: both[1].question and asked.append(both[1].question.number))
    Foreman(queue, seen, AT_ONCE).work()
    assert seen.ends == [(1, "finished")] and set(asked) == {1, 2}  # the training, and the end


def test_a_killed_foreman_leaves_a_run_that_goes_on_and_the_queue_is_taken_up(
    tasks: Callable[..., list[Path]], tmp_path: Path
) -> None:
    queue = new_queue(tasks("only"), NightLimits(), tmp_path / "runs", [*LONG, "budget.rounds=1"])

    class Killed(BaseException):
        pass

    def die(seen: tuple[RunFolder, RunStatus]) -> None:
        if seen[1].step and seen[1].step.what == "training LoRA":
            raise Killed

    with pytest.raises(Killed):
        Foreman(queue, Seen(at_run=die), AT_ONCE).work()
    run = RunFolder.open(queue.root / queue.read().items[0].run)
    remote = live(run)
    assert remote is not None
    pid = remote.status().pid
    take_up(queue, NightLimits(minutes=500))
    pids = set()
    seen = Seen(at_run=lambda both: pids.add(both[1].pid))
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
    queue = new_queue(tasks("only"), NightLimits(minutes=600), tmp_path / "runs", [*SHORT, "budget.minutes=30"])
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


def run_of(queue: QueueFolder) -> RunFolder:
    """Of its first task."""
    return RunFolder.open(queue.root / queue.read().items[0].run)


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
    assert not seen.ends and "minutes are left until" in end.reason
    assert holder(run_of(queue).lock_path) is None, "it can be gone on with another night"


def test_a_process_that_gives_no_sign_of_life_is_ended_and_its_run_goes_on(
    tasks: Callable[..., list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = new_queue(tasks("only"), NightLimits(), tmp_path / "runs", SHORT)
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


def test_two_processes_cannot_work_on_one_queue_and_both_may_add(
    tasks: Callable[..., list[Path]], tmp_path: Path
) -> None:
    (task,) = tasks("one")
    queue = new_queue([task], NightLimits(), tmp_path / "runs", SHORT)
    with queue.locked(), pytest.raises(Busy, match=f"process {os.getpid()}"):
        Foreman(QueueFolder.open(queue.path), Seen()).work()
    threads = [threading.Thread(target=add_task, args=(queue, task, SHORT)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [item.added.number for item in queue.read().items] == [1, 2, 3, 4, 5]


def test_a_line_that_a_kill_cut_off_does_not_count_and_a_damaged_one_is_named(
    tasks: Callable[..., list[Path]], tmp_path: Path
) -> None:
    (task,) = tasks("one")
    queue = new_queue([task], NightLimits(), tmp_path / "runs", SHORT)
    with queue.rows_file.open("a") as file:
        file.write('{"kind":"task","nu')
    assert add_task(queue, task, SHORT).number == 2
    with queue.rows_file.open("a") as file:
        file.write("{}\n")
    with pytest.raises(BadInput, match=r"queue\.jsonl, line 4: not a row of a queue"):
        queue.read()


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


def a_queue_whose_first_task_is_too_long(tasks: list[Path], root: Path) -> QueueFolder:
    """Of two; 20 minutes are left, and the first takes 30."""
    rate = Rate(answering=100, training=200, source="a test")
    short = Estimate(start=60, lora=60, edit=60, end=60, trained=1, rounds=6, rate=rate)
    queue = QueueFolder.create(root)
    rows: list[QueueRow] = [QueueBegun(time=now(), limits=NightLimits(minutes=20))]
    for number, (task, start) in enumerate(zip(tasks, (100 * 60 * 30, 60), strict=True), 1):
        own = load_config(task / "task.yaml").limits
        estimate = short.model_copy(update={"start": start})
        rows.append(
            TaskAdded(time=now(), number=number, name=task.name, task=str(task), overrides=tuple(LONG), limits=own,
                      estimate=estimate)
        )  # fmt: skip
    for row in rows:
        queue.append(lambda _, row=row: row)  # type: ignore[misc]
    return queue


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


def test_a_process_that_hangs_while_it_is_given_other_limits_is_ended(
    tasks: Callable[..., list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = new_queue(tasks("only"), NightLimits(minutes=600), tmp_path / "runs", SHORT)
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


def raise_(error: BaseException) -> None:
    raise error

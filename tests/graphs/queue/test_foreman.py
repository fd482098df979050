"""A queue worked through: a process for every task, tasks added meanwhile, one process at a time."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.errors import BadInput, Busy
from agent.records.queue import (
    NightLimits,
    QueueEnded,
    QueueRow,
    TaskEnded,
)
from graphs.control.client import start_worker
from graphs.queue.foreman import Foreman
from graphs.queue.making import add_task, new_queue
from memory.queue import QueueFolder
from memory.run.folder import RunFolder
from memory.storage.lock import holder
from tests.graphs.queue.nights import (
    AT_ONCE,
    SHORT,
    Seen,
)

pytestmark = pytest.mark.usefixtures("forked_workers", "no_probe")


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


def test_a_run_that_asks_is_answered_since_nobody_is_there(
    tasks: Callable[..., list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = new_queue(tasks("only"), NightLimits(), tmp_path / "runs", SHORT)
    monkeypatch.setattr("graphs.queue.foreman.start_worker", lambda run: start_worker(run, supervised=True))
    asked: list[int] = []
    seen = Seen(at_run=lambda both: both[1].question and asked.append(both[1].question.number))
    Foreman(queue, seen, AT_ONCE).work()
    assert seen.ends == [(1, "finished")] and set(asked) == {1, 2}  # the training, and the end


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

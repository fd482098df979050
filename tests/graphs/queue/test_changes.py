"""A queue that a user changes: its limits, a task taken out, one that waits there twice, one that cannot be used."""

from pathlib import Path

import pytest

from agent.errors import BadInput
from agent.records.queue import NightLimits, TaskEnded, TaskStarted
from agent.records.rounds import Spend
from agent.signal.run_costs import Tried
from graphs.queue.changes import change_limits, remove_task, twin
from graphs.queue.foreman import Foreman
from graphs.queue.making import add_task, new_queue, take_up
from graphs.queue.shares import spend_of
from memory.queue import QueueFolder, now
from memory.storage.lock import held
from tests.fixtures.learnable import TinyTask
from tests.graphs.queue.nights import Seen
from ui.queue.work import exit_code, show_status

pytestmark = pytest.mark.usefixtures("no_probe")


@pytest.fixture
def queue(tiny_task: TinyTask, tmp_path: Path) -> QueueFolder:
    """Of one task."""
    return new_queue([tiny_task()], NightLimits(minutes=30, train_tokens=900_000), tmp_path / "runs")


def test_limits_are_changed_lifted_and_refused_and_stay_when_the_queue_is_taken_up(queue: QueueFolder) -> None:
    assert change_limits(queue, {"minutes": 45.0}) == NightLimits(minutes=45, train_tokens=900_000)
    assert change_limits(queue, {"train_tokens": None}) == NightLimits(minutes=45)
    for changes, fault in (({"minutes": 45.0}, "Nothing is changed"), ({"llm_tokens": -3.0}, "--llm-tokens -3")):
        with pytest.raises(BadInput, match=fault):
            change_limits(queue, changes)
    assert take_up(queue, NightLimits(usd=1)).limits == NightLimits(minutes=45, usd=1)


def test_a_task_that_waits_there_already_is_told_of_and_taken_out(queue: QueueFolder, tiny_task: TinyTask) -> None:
    assert twin(queue.read(), 1) is None
    again = add_task(queue, tiny_task())
    other = add_task(queue, tiny_task(), ["budget.rounds=1"])
    first = twin(queue.read(), again.number)
    assert first and first.added.number == 1 and twin(queue.read(), other.number) is None
    with pytest.raises(BadInput, match=r"Several tasks are named mayors: give .*1 mayors, 2 mayors, 3 mayors"):
        remove_task(queue, "mayors")
    assert remove_task(queue, "2").added.number == 2
    with pytest.raises(BadInput, match=r"There is no task 2 in queue .* 1 mayors, 3 mayors"):
        remove_task(queue, "2")
    take_up(queue, NightLimits())
    state = queue.read()
    assert [item.added.number for item in state.open] == [1, 3] and len(state.kept) == 2
    assert add_task(queue, tiny_task()).number == 4, "no number is given twice"


def test_a_task_that_is_worked_on_is_not_taken_out_and_what_another_has_used_still_counts(
    queue: QueueFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    run = queue.root / "begun"
    run.mkdir()
    queue.append(lambda _: TaskStarted(time=now(), number=1, run="begun"))
    with held(run / "run", "The run"), pytest.raises(BadInput, match="is worked on now, as run begun"):
        remove_task(queue, "mayors")
    used = Spend(seconds=70.0)
    queue.append(lambda _: TaskEnded(time=now(), number=1, state="failed", reason="It broke.", spend=used))
    with pytest.raises(BadInput, match="has ended already: it is failed"):
        remove_task(queue, "1")
    take_up(queue, NightLimits())  # which would try it again
    remove_task(queue, "1")
    assert spend_of(queue, queue.read()) == used
    assert show_status(queue) == 0
    said = capsys.readouterr().out
    assert "1 mayors: taken out of the queue" in said and "0 of 0 tasks done" in said
    end = Foreman(queue, Seen(), ()).work()
    assert end.reason == "All tasks are done." and end.spend == used


def test_tasks_that_cannot_be_used_are_left_out_where_that_is_asked_for(
    tiny_task: TinyTask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = tiny_task(), tmp_path / "nowhere"
    with pytest.raises(BadInput, match="nowhere"):
        new_queue([bad], NightLimits(), tmp_path / "runs", skip_broken=True)
    assert not (tmp_path / "runs").exists()
    queue = new_queue([bad, good], NightLimits(), tmp_path / "runs", skip_broken=True)
    state = queue.read()
    assert [item.added.number for item in state.items] == [1] and "nowhere" in state.skipped[0].reason
    assert show_status(queue) == 0 and f"– {bad}: left out. " in capsys.readouterr().out
    remove_task(queue, "1")
    end = Foreman(queue, Seen(), ()).work()
    assert end.reason == f"0 of 1 done; left out: {bad}." and exit_code(queue.read()) == 1


def test_a_task_that_is_added_during_the_work_loads_no_second_model(
    queue: QueueFolder, tiny_task: TinyTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []
    monkeypatch.setattr("graphs.queue.estimate.probe", lambda tasks: tried.append(len(tasks)) or [Tried()] * len(tasks))
    with queue.locked():
        added = add_task(queue, tiny_task(name="new"))
    assert added.estimate.start > 0 and tried == []
    add_task(queue, tiny_task(name="newer"))
    assert tried == [1]

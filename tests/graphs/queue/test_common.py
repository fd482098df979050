"""One budget for runs side by side: what each is given when its turn comes."""

from datetime import timedelta
from pathlib import Path

import pytest

from agent.records.limits import Limits
from agent.records.queue import Estimate, NightLimits, Rate, TaskAdded
from agent.records.rounds import Spend
from graphs.context import new_run
from graphs.queue.common import CommonBudget
from graphs.queue.shares import spent
from memory.queue import now
from memory.run.folder import RunFolder
from tests.fixtures.learnable import TinyTask
from tests.fixtures.story import a_baseline, an_outcome, the_story

RATE = Rate(answering=100, training=200, source="a test")
MUCH = Estimate(start=600, lora=10**9, edit=10**9, end=600, trained=10**9, rounds=6, rate=RATE)


def a_budget(
    limits: NightLimits, task: Path, root: Path, estimate: Estimate = MUCH
) -> tuple[list[RunFolder], CommonBudget]:
    """Of four runs, two at a time."""
    runs = [new_run(task, [], root, f"r{number}") for number in range(4)]
    added = TaskAdded(time=now(), number=1, name="t", task="/t", limits=Limits(rounds=6, target=0.9), estimate=estimate)
    return runs, CommonBudget(limits, runs, [added] * 4, 2)


def limits_of(run: RunFolder) -> Limits:
    found = run.limits()
    assert found is not None
    return found


def test_a_run_under_way_counts_with_all_that_it_was_given_and_leaves_the_rest_at_its_end(
    tiny_task: TinyTask, tmp_path: Path
) -> None:
    small = MUCH.model_copy(update={"lora": 100, "edit": 100})
    runs, budget = a_budget(NightLimits(train_tokens=80_000), tiny_task(), tmp_path / "runs", small)
    assert [budget.begin(run) for run in runs[:2]] == ["", ""]
    assert [limits_of(run).train_tokens for run in runs[:2]] == [20_000, 20_000]
    runs[0].append(a_baseline())
    runs[0].append(the_story()[0])
    runs[0].append(an_outcome(the_story()[0]))
    used = spent(runs[0]).train_tokens
    assert used < 20_000 and budget.begin(runs[2]) == ""
    assert limits_of(runs[2]).train_tokens == (60_000 - used) // 2
    assert budget.begin(runs[3]) == ""
    given = sum(limits_of(run).train_tokens or 0 for run in runs[1:])
    assert given + used == pytest.approx(80_000, abs=2)


def test_a_run_that_had_ended_before_keeps_nothing(tiny_task: TinyTask, tmp_path: Path) -> None:
    runs, budget = a_budget(NightLimits(train_tokens=80_000), tiny_task(), tmp_path / "runs")
    runs[3].append(a_baseline())
    runs[3].append(the_story()[0])
    runs[3].append(an_outcome(the_story()[0]))
    assert budget.begin(runs[0]) == ""
    assert limits_of(runs[0]).train_tokens == (80_000 - spent(runs[3]).train_tokens) // 3


def test_time_is_kept_for_those_that_follow_on_the_same_worker_and_none_begins_too_late(
    tiny_task: TinyTask, tmp_path: Path
) -> None:
    slow = MUCH.model_copy(update={"lora": 100 * 60, "edit": 100 * 60})
    runs, budget = a_budget(NightLimits(until=now() + timedelta(minutes=90)), tiny_task(), tmp_path / "a", slow)
    assert budget.begin(runs[0]) == ""  # runs 2 and 3 come after it and run 1: one of them on its worker
    most = slow.minutes(6, "lora")
    assert most is not None and limits_of(runs[0]).minutes == pytest.approx(90 - most - slow.end_minutes(90), abs=0.2)
    late, budget = a_budget(NightLimits(until=now() + timedelta(minutes=0.5)), tiny_task(), tmp_path / "b", slow)
    assert "minutes are left until" in budget.begin(late[0])


def test_what_a_run_has_used_before_counts(tiny_task: TinyTask, tmp_path: Path) -> None:
    runs, budget = a_budget(NightLimits(train_tokens=80_000), tiny_task(), tmp_path / "runs")
    runs[3].charges.charge("0-baseline", Spend(train_tokens=40_000))
    assert budget.begin(runs[0]) == "" and limits_of(runs[0]).train_tokens == 10_000
    assert budget.begin(runs[3]) == "" and limits_of(runs[3]).train_tokens == 40_000 + 10_000


def test_of_a_run_that_has_failed_or_was_not_begun_only_what_it_has_used_is_taken(
    tiny_task: TinyTask, tmp_path: Path
) -> None:
    runs, budget = a_budget(NightLimits(train_tokens=80_000), tiny_task(), tmp_path / "runs")
    assert budget.begin(runs[0]) == "" and limits_of(runs[0]).train_tokens == 20_000
    runs[0].charges.charge("0-baseline", Spend(train_tokens=5_000))
    budget.end(runs[0])
    assert budget.begin(runs[1]) == "" and limits_of(runs[1]).train_tokens == 25_000

    task = tiny_task(budget={"rounds": 2, "train_tokens": 30_000})
    slow = MUCH.model_copy(update={"start": 100 * 60 * 30})
    late, budget = a_budget(NightLimits(minutes=20, train_tokens=80_000), task, tmp_path / "late", slow)
    late[1].charges.charge("0-baseline", Spend(train_tokens=2_000))
    assert "minutes are left" in budget.begin(late[0])
    assert budget.begin(late[1]) == "" and limits_of(late[1]).train_tokens == 2_000 + 78_000 / 3


def test_a_run_that_has_ended_and_wants_its_report_is_not_opened_again(tiny_task: TinyTask, tmp_path: Path) -> None:
    runs, budget = a_budget(NightLimits(train_tokens=80_000, minutes=90), tiny_task(), tmp_path / "runs")
    runs[0].append(a_baseline())
    runs[0].append(the_story()[0])
    runs[0].append(an_outcome(the_story()[0]))
    assert budget.begin(runs[0]) == "" and not runs[0].extensions() and runs[0].outcome()


def test_a_run_that_would_go_on_with_nothing_left_does_no_step_more(tiny_task: TinyTask, tmp_path: Path) -> None:
    runs, budget = a_budget(NightLimits(train_tokens=40_000), tiny_task(), tmp_path / "runs")
    for run, tokens in zip(runs, (30_000, 10_000, 0, 0), strict=True):
        run.charges.charge("0-baseline", Spend(train_tokens=tokens, seconds=1))
    assert {budget.begin(run) for run in runs} == {"t: no training tokens are left in the queue's budget."}
    assert not any(run.extensions() for run in runs)
    runs, budget = a_budget(NightLimits(until=now() - timedelta(minutes=1)), tiny_task(), tmp_path / "late")
    runs[0].charges.charge("0-baseline", Spend(seconds=1))
    assert budget.begin(runs[0]).startswith("t: no time is left until ")

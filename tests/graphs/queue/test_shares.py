"""What a task may use of a queue's budget, and what it is estimated to take."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest

from agent import extensions
from agent.records.events import BaselineScored, RoundJudged
from agent.records.limits import Extension, Limits
from agent.records.queue import (
    Estimate,
    NightLimits,
    QueueBegun,
    QueueRow,
    Rate,
    Steps,
    TaskAdded,
    TaskEnded,
    TaskSpent,
    TaskStarted,
)
from agent.records.rounds import Baseline, Call, Outcome, Spend, Usage
from agent.signal.cost_model import Sizes
from agent.signal.monitor import Lever
from agent.signal.run_costs import Sample, Tried
from eval.tasks.task import Task, load_config, load_task
from graphs.context import new_run
from graphs.control.extension import extend_stopped, standing
from graphs.queue.estimate import estimates, probe
from graphs.queue.shares import Left, differ, lacking, left_of, limits_within, own_limits, share_of, spend_of, spent
from memory.queue import Item, QueueFolder, now
from memory.run.folder import RunFolder
from tests.fixtures.learnable import TinyTask
from tests.fixtures.story import a_baseline, an_outcome, the_story

RATE = Rate(answering=100, training=200, source="a test")
KNOWN = Estimate(start=600, lora=12_000, edit=3_000, end=600, trained=4_000, rounds=6, rate=RATE)
"""Start and end take 0.2 minutes, a training 1 minute, an edit half of one."""


def estimate(task: Task, root: Path) -> Estimate:
    return estimates([task], root)[0]


def an_item(number: int = 1, estimate: Estimate = KNOWN, **limits: float) -> Item:
    own = Limits.model_validate({"rounds": 6, "target": 0.9} | limits)
    return Item(TaskAdded(time=now(), number=number, name=f"t{number}", task="/t", limits=own, estimate=estimate))


def test_later_tasks_keep_what_they_need_and_at_most_an_equal_share_or_one_round() -> None:
    later = [an_item(2), an_item(3)]
    assert share_of(Left(minutes=480), later).minutes == pytest.approx(480 - 2 * 3.7)
    assert share_of(Left(minutes=9), later).minutes == pytest.approx(3)
    slow = KNOWN.model_copy(update={"start": 100 * 60 * 49.4})  # 50 minutes with the end and one edit
    assert slow.least_minutes == pytest.approx(50)
    assert share_of(Left(minutes=60), [an_item(2, slow)]).minutes == pytest.approx(10)
    assert share_of(Left(minutes=480), [an_item(2, KNOWN.model_copy(update={"rate": None}))]).minutes == 240
    assert share_of(Left(minutes=480), [an_item(2, minutes=3)]).minutes == 477
    assert share_of(Left(usd=6), later).usd == 6  # they ask no LLM
    asks = KNOWN.model_copy(update={"asks_llm": True, "usd_round": 0.1})
    assert share_of(Left(usd=6), [an_item(2, asks)]).usd == pytest.approx(5.4)
    assert share_of(Left(train_tokens=30_000), later).train_tokens == pytest.approx(10_000)


def test_a_task_lacks_time_tokens_or_money_only_where_it_needs_them() -> None:
    assert lacking(an_item(), Left(minutes=0.71, usd=0.0)) == ""
    slow = KNOWN.model_copy(update={"loading": 1.2})  # seconds until the model is there
    assert "takes about 0.7" in lacking(an_item(1, slow), Left(minutes=0.71))
    assert "0.7 minutes are left until 07:00" in lacking(an_item(), Left(minutes=0.69, source="until 07:00"))
    begun = an_item()._replace(started=(TaskStarted(time=now(), number=1, run="r"),))
    assert lacking(begun, Left(minutes=0.1)) == ""
    assert "no training tokens are left" in lacking(an_item(), Left(train_tokens=0))
    asks = an_item(1, KNOWN.model_copy(update={"asks_llm": True}))
    assert "no USD are left" in lacking(asks, Left(usd=0)) and "no LLM tokens" in lacking(asks, Left(llm_tokens=0))


def test_a_run_is_limited_by_its_task_or_by_what_it_used_and_its_share() -> None:
    own = Limits(rounds=6, minutes=60, usd=1.0, target=0.9)
    used = Spend(seconds=600, usd=0.25, train_tokens=500)
    assert limits_within(own, Left(), used, KNOWN) == own
    wide = limits_within(own, Left(minutes=400, usd=5), used, KNOWN)
    assert wide == own and not differ(own, wide)
    long = KNOWN.model_copy(update={"end": 100 * 30.0})  # half a minute
    narrow = limits_within(own, Left(minutes=20, usd=0.5, train_tokens=99.5), used, long)
    assert (narrow.minutes, narrow.usd, narrow.train_tokens) == (29.5, 0.75, 599)
    assert differ(own, narrow) and not differ(narrow, narrow.model_copy(update={"minutes": 29.9}))


@pytest.mark.parametrize("minutes", [0.8, 1, 2, 10, 12.7, 13.5, 60])
def test_what_fits_has_time_for_its_start_and_a_round_whatever_its_end_may_take(minutes: float) -> None:
    most = Steps(start=600, lora=50_000, edit=50_000, end=100 * 60 * 12)
    long, share, own = KNOWN.model_copy(update={"most": most}), Left(minutes=minutes), Limits(rounds=6)
    least = long.least_minutes
    assert least == pytest.approx(0.7) and lacking(an_item(1, long), share) == ""
    given = limits_within(own, share, Spend(), long).minutes
    assert given is not None and given >= least - 0.1 - 0.05, "start and a round, as far as they are rounded"
    assert given == pytest.approx(max(minutes - 12, 0.6), abs=0.06), "the rest is kept for the end"
    late = limits_within(own, Left(minutes=0.3), Spend(seconds=600), long).minutes
    assert late == pytest.approx(10.2), "of a run that has begun, its likely end is kept"


def test_what_is_left_counts_by_the_clock_and_by_what_was_used() -> None:
    at = now()
    limits = NightLimits(until=at + timedelta(minutes=90), minutes=100, usd=2, llm_tokens=1000)
    left = left_of(limits, Spend(seconds=1200, usd=0.5, llm_tokens=400), at)
    assert (left.minutes, left.usd, left.llm_tokens, left.train_tokens) == (80, 1.5, 600, None)
    assert left.source == "of 100 minutes of work"


def test_what_a_run_has_used_includes_the_step_that_a_kill_cut_off(tiny_task: TinyTask, tmp_path: Path) -> None:
    run = new_run(tiny_task(), [], tmp_path / "runs")
    run.charges.charge("0-baseline", Spend(seconds=3, generated_tokens=7))
    assert spent(run) == Spend(seconds=3, generated_tokens=7)
    baseline: Baseline = a_baseline()
    run.append(baseline)
    assert spent(run) == baseline.spend
    run.charges.charge("0-train_lora", Spend(seconds=5, train_tokens=90))
    most = Usage(calls=1, input_tokens=10, output_tokens=5, usd=0.5)
    run.log(Call(number=1, role="planner", model="m", usage=most))
    assert spent(run) == baseline.spend + Spend(seconds=5, train_tokens=90, llm_tokens=15, usd=0.5)
    ended = an_outcome(the_story()[-1])
    outcome: Outcome = ended.model_copy(update={"spend": ended.spend + Spend(llm_tokens=15, usd=0.5)})
    run.append(outcome)
    assert spent(run) == outcome.spend
    talk = Usage(calls=1, input_tokens=90, usd=0.25)
    run.chat_calls.log(Call(number=1, role="chat", model="m", usage=talk))
    assert spent(run).usd == pytest.approx(0.75), "talk about the run is paid from the same money"


def test_the_end_of_a_run_that_is_opened_again_counts_once(tiny_task: TinyTask, tmp_path: Path) -> None:
    run = new_run(tiny_task(), [], tmp_path / "runs")
    rows = [a_baseline(), *the_story()]
    end, last = Spend(seconds=9, generated_tokens=30), rows[-1].spend
    for row in rows:
        run.append(row)
    run.charges.charge(f"{len(rows) - 1}-finish", end)
    run.append(an_outcome(the_story()[-1]).model_copy(update={"spend": last + end}))
    run.extend(Limits(rounds=9))
    assert run.outcome() is None and spent(run) == last + end
    (run.path / "charge.json").unlink()
    assert spent(run) == last + end, "the outcome knows it, too"


def test_what_a_run_has_used_is_known_from_its_events_where_its_ledger_is_damaged(
    tiny_task: TinyTask, tmp_path: Path
) -> None:
    run = new_run(tiny_task(), [], tmp_path / "runs")
    run.append(a_baseline())
    run.event(BaselineScored(row=a_baseline()))
    for row in the_story():
        run.append(row)
        run.event(RoundJudged(row=row))
    before, ledger = spent(run), run.path / "ledger.jsonl"
    lines = ledger.read_bytes().splitlines()
    ledger.write_bytes(b"\n".join([*lines[:-1], b"\x00{torn", b""]))
    assert spent(RunFolder.open(run.path)) == before
    assert ledger.read_bytes().endswith(b"{torn\n"), "who only reads mends nothing"


def test_a_damaged_line_of_a_log_of_calls_counts_as_the_dearest_and_stops_no_queue(
    tiny_task: TinyTask, tmp_path: Path
) -> None:
    run = new_run(tiny_task(), [], tmp_path / "runs")
    for number, usd in ((1, 0.25), (2, 0.5)):
        run.log(Call(number=number, role="planner", model="m", usage=Usage(calls=1, input_tokens=10, usd=usd)))
    with run.run_calls.path.open("ab") as log:
        log.write(b"\x00{torn\n")
    for _ in range(2):
        assert spent(RunFolder.open(run.path)) == Spend(llm_tokens=30, usd=1.25)
    with run.chat_calls.path.open("ab") as log:  # nothing tells what this one has cost
        log.write(b"garbage\n")
    assert spent(RunFolder.open(run.path)).usd == 1.25


def test_what_a_user_has_set_stands_in_place_of_the_tasks_own_and_what_the_queue_has_set_does_not() -> None:
    own = Limits(rounds=6, minutes=60, usd=1.0, target=0.9)
    began = own.model_copy(update={"minutes": 20.0})
    by_queue = Extension(number=1, limits=began.model_copy(update={"minutes": 30.0}), by="queue")
    by_user = Extension(number=2, limits=by_queue.limits.model_copy(update={"usd": 2.0}), by="user")
    again = Extension(number=3, limits=by_user.limits.model_copy(update={"minutes": 10.0}), by="queue")
    assert own_limits(own, began, [by_queue]) == own
    assert own_limits(own, began, [by_queue, by_user, again]) == own.model_copy(update={"usd": 2.0})
    longer = Extension(number=4, limits=again.limits.model_copy(update={"minutes": 90.0}), by="user")
    assert own_limits(own, began, [by_queue, by_user, again, longer]).minutes == 90


def test_an_estimate_rests_on_earlier_runs_with_the_same_model(
    tiny_task: TinyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphs.queue.estimate.probe", lambda tasks: [Tried()] * len(tasks))
    task = load_task(tiny_task())
    assert estimate(task, tmp_path / "runs").rate is None
    run = new_run(tiny_task(), [], tmp_path / "runs")
    run.append(a_baseline().model_copy(update={"pace": 0.01}))
    for row in the_story()[:2]:
        run.append(row)
    known = estimate(task, tmp_path / "runs")
    assert known.loading == pytest.approx(8.1 - 0.01 * 410), "what its start took besides answering"
    assert known.rate is not None and known.rate.source == "the newest run with this model"
    rows, first = the_story(), a_baseline()
    trained = rows[1].trial.spend
    answered = rows[0].spend - first.spend + (rows[1].spend - rows[0].spend).beyond(trained)
    assert known.rate.answering == pytest.approx(answered.forward_tokens / answered.seconds)
    assert known.rate.training == pytest.approx(trained.forward_tokens / trained.seconds)
    round = known.model_copy(update={"lora": 900.0, "trained": 100})  # a third of it is trained on
    assert round.lora_rate == pytest.approx(900 / (600 / known.rate.answering + 300 / known.rate.training))
    other = load_task(tiny_task(dtype="bfloat16"))
    assert estimate(other, tmp_path / "runs").rate is None
    assert known.least_minutes is not None and known.minutes(3) is not None


def test_a_task_that_ran_before_is_estimated_by_what_its_own_rounds_took(
    tiny_task: TinyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphs.queue.estimate.probe", lambda tasks: [Tried()] * len(tasks))
    task, rows = load_task(tiny_task()), the_story()
    by_its_sizes = estimate(task, tmp_path / "runs")
    run = new_run(tiny_task(), [], tmp_path / "runs")
    run.append(a_baseline())
    for row in rows:
        run.append(row)
    taken = [row.spend - before.spend for before, row in zip([a_baseline(), *rows], rows, strict=False)]
    edits = [spend for spend, row in zip(taken, rows, strict=True) if row.decision.move.action == "edit_prompt"]
    known = estimate(task, tmp_path / "runs")
    assert known.start == a_baseline().spend.forward_tokens and known.end == by_its_sizes.end
    assert known.edit == edits[0].forward_tokens and len(edits) > 1, "later ones take less, which is counted"
    trainings = [spend for spend, row in zip(taken, rows, strict=True) if row.decision.move.action == "train_lora"]
    assert known.trained == trainings[0].train_tokens
    assert known.levers == by_its_sizes.levers, "it has not ended"
    run.append(an_outcome(rows[-1]))
    moves = [row.decision.move.action for row in rows]
    assert estimate(task, tmp_path / "runs").levers == tuple(moves[: task.config.budget.rounds])
    longer = load_task(tiny_task(generation={"max_new_tokens": 99}))
    assert estimate(longer, tmp_path / "runs").start != known.start, "by its sizes again"


def test_only_tasks_that_have_not_run_are_tried_out_and_their_answers_shape_the_estimate(
    tiny_task: TinyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, new = load_task(tiny_task()), load_task(tiny_task(name="new", generation={"max_new_tokens": 9}))
    run = new_run(tiny_task(), [], tmp_path / "runs")
    run.append(a_baseline())
    [one] = probe([new])
    sample = one.sample
    assert sample is not None and 0 < sample.answered <= 10 and sample.before == 0.0 == sample.after
    assert sample.first in get_args(Lever)
    assert sample.sizes.wanted < sample.sizes.shown and sample.sizes.asked + sample.sizes.wanted < 60
    tried: list[str] = []

    def noted(tasks: list[Task]) -> list[Tried]:
        tried.extend(task.config.name for task in tasks)
        return [one for _ in tasks]

    monkeypatch.setattr("graphs.queue.estimate.probe", noted)
    first, second = estimates([known, new], tmp_path / "runs")
    assert tried == ["new"] and first.start == a_baseline().spend.forward_tokens
    rows = len(new.validation)
    assert second.start == pytest.approx(rows * (sample.sizes.asked + sample.sizes.answered) + sample.sizes.shared)
    assert second.loading == sample.loading > 0
    assert second.rate and second.most_tokens and second.most_minutes and second.likely_minutes
    assert second.tokens < second.most_tokens and second.likely_minutes < second.most_minutes


NOISY = """
import os, sys
from agent.extensions import register_scorer

@register_scorer("noisy")
def score(output, answer, settings):
    print("a word on the way", flush=True)
    if answer == "too large" and sys.argv[0].endswith("probe.py"):
        os._exit(9)
    return 1.0
"""


@pytest.fixture
def noisy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed scorer that prints, and ends the process over one answer."""
    about = tmp_path / "site" / "noisy-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: noisy\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[nesylora.scorers]\nnoisy = noisy_scorer\n")
    (tmp_path / "site" / "noisy_scorer.py").write_text(NOISY)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    yield
    extensions.scorers.remove("noisy")


@pytest.mark.usefixtures("noisy")
def test_a_task_that_cannot_be_tried_or_ends_the_process_moves_no_other(tiny_task: TinyTask, tmp_path: Path) -> None:
    folder = tiny_task(answer="too large", content=[{"kind": "noisy"}], style=[])
    large = replace(load_task(folder), folder=shutil.copytree(folder, tmp_path / "large"))
    task = load_task(tiny_task(content=[{"kind": "noisy"}], style=[]))
    lost = replace(
        task,
        folder=shutil.copytree(folder, tmp_path / "gone"),
        config=task.config.model_copy(update={"model": "/no/such/model"}),
    )
    tried = probe([task, lost, large, task])
    first, second, third, fourth = (one.sample for one in tried)
    assert second is None is third and first is not None is not fourth
    assert "no model folder at /no/such/model" in tried[1].fault and not any(tried[place].fault for place in (0, 2, 3))
    assert first.before == 1.0 == fourth.before


def test_what_was_tried_before_time_was_up_counts(
    tiny_task: TinyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = Sizes(asked=9, wanted=3, answered=3, shown=12, shared=5)
    sample = Sample(rate=RATE, sizes=sizes, answered=3, k=0, before=0.5, after=0.5)
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\ncat <<'E'\n{Tried(sample=sample).model_dump_json()}\nE\nexec sleep 60\n")
    python.chmod(0o755)
    monkeypatch.setattr("graphs.queue.estimate.sys", SimpleNamespace(executable=str(python)))
    monkeypatch.setattr("graphs.queue.estimate.PROBE", 1.0)
    task = load_task(tiny_task())
    assert probe([task, task]) == [Tried(sample=sample), Tried()]


def a_queue(root: Path, run: RunFolder | None = None, **limits: float) -> QueueFolder:
    """Of one task, whose run has begun."""
    queue = QueueFolder.create(root)
    rows: list[QueueRow] = [QueueBegun(time=now(), limits=NightLimits()), an_item(1, **limits).added]
    for row in [*rows, *([TaskStarted(time=now(), number=1, run=run.name)] if run else [])]:
        queue.append(lambda _, row=row: row)  # type: ignore[misc]
    return queue


def test_what_a_removed_run_has_used_counts_as_it_was_noted_last(tiny_task: TinyTask, tmp_path: Path) -> None:
    run = new_run(tiny_task(), [], tmp_path / "runs")
    queue = a_queue(tmp_path / "runs", run)
    run.append(a_baseline())
    used = spent(run)
    for seconds in (used.seconds, 0.5):  # and never less than was known before
        noted = used.model_copy(update={"seconds": seconds})
        queue.append(lambda _, noted=noted: TaskSpent(time=now(), number=1, run=run.name, spend=noted))  # type: ignore[misc]
    run.append(the_story()[0])
    assert spend_of(queue, queue.read()) == spent(run) != used
    shutil.rmtree(run.path)
    assert spend_of(queue, queue.read()) == used


def test_a_share_of_the_queues_budget_ends_with_the_task(tiny_task: TinyTask, tmp_path: Path) -> None:
    run = new_run(tiny_task(), ["budget.rounds=4", "budget.minutes=8.3"], tmp_path / "runs")
    queue, config = a_queue(tmp_path / "runs", run, rounds=4, minutes=20), load_config(run.task_file)
    run.append(a_baseline())
    for row in the_story():
        run.append(row)
    assert standing(run, config).minutes == 8.3
    run.append(an_outcome(the_story()[-1]))
    assert standing(run, config).minutes == 8.3, "the queue has not noted its end yet"
    queue.append(lambda _: TaskEnded(time=now(), number=1, state="finished", reason="Over."))
    assert extend_stopped(run, config, {"rounds": 9}).limits == Limits(rounds=9, minutes=20, target=config.target)

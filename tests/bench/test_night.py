"""The night in small: when its faults come, the LLM's bill, and what its comparison finds."""

import json
import shutil
from itertools import islice, pairwise
from pathlib import Path
from typing import get_args

import openai
import pytest

from agent.records.limits import Limits
from agent.records.queue import Estimate, NightLimits, QueueBegun, QueueEnded, TaskAdded, TaskEnded, TaskStarted
from bench.studies.night.comparison import compare
from bench.studies.night.faults import DAMAGES, Fault, Grounds, Kind, Turns, plan
from bench.studies.night.gateway import Gateway, Weather, gateway, read_bill
from bench.studies.night.tasks import write_tasks
from graphs.context import checked
from graphs.queue.shares import spend_of
from memory.queue import QueueFolder, now
from memory.run.folder import RunFolder
from tests.fixtures.story import make_run
from tests.llm.scripted_llm import scripted_llm
from tests.llm.server import serving


def test_each_fault_comes_once_before_any_comes_again_at_times_that_the_seed_tells() -> None:
    faults = list(islice(plan(16, 240), 20))
    assert faults == list(islice(plan(16, 240), 20)) != list(islice(plan(17, 240), 20))
    for deck in (faults[:10], faults[10:]):
        assert sorted(fault.kind for fault in deck) == sorted(get_args(Kind))
    gaps = [later.at - fault.at for fault, later in pairwise(faults)]
    assert min(gaps) >= 120 and max(gaps) <= 360 and len(DAMAGES) == 5


def test_a_fault_that_would_meet_nothing_waits_and_lets_the_others_pass() -> None:
    early, late = Fault(10, "an adapter is damaged", 1, 0), Fault(20, "the run is killed", 1, 0)
    there: set[str] = {late.kind}
    turns = Turns(iter([early, late]), lambda fault: fault.kind in there)
    assert [turns.take(now) for now in (5, 10, 19, 20, 21)] == [None, None, None, late, None]
    assert turns.waiting == [early]
    there.add(early.kind)
    assert turns.take(22) == early and turns.waiting == []


def test_what_a_fault_meets_is_what_is_there(tmp_path: Path) -> None:
    grounds = Grounds(QueueFolder(tmp_path / "runs" / "night"), Gateway.__new__(Gateway))

    def met() -> set[str]:
        return {kind for kind in get_args(Kind) if grounds.meets(Fault(0, kind, 0, 0))}

    assert met() == set()
    run = a_night(tmp_path)
    shutil.rmtree(run.path / "adapters")
    always = {"the run is killed", "the queue is killed", "all is killed", "the disk is full"}
    assert met() == always | {"the ledger's last line is damaged", "a prompt is damaged"}
    (run.path / "adapters" / "a").mkdir(parents=True)
    (run.path / "adapters" / "a" / "complete").touch()
    run.checkpoints.touch()
    (run.path.parent / "memory").mkdir()
    (run.path.parent / "memory" / "chroma.sqlite3").touch()
    assert met() == set(get_args(Kind)) - {"the LLM is down"}, "this run asks none"


def test_its_tasks_can_be_used_and_only_one_asks_an_llm(tmp_path: Path) -> None:
    tasks = [checked(folder, [])[0].config for folder in write_tasks(tmp_path, "http://127.0.0.1:9/v1")]
    assert [task.name for task in tasks] == ["valley", "masters", "queues"]
    assert [bool(task.roles) for task in tasks] == [False, True, False]
    assert not [task for task in tasks if task.budget.minutes], "a clock would decide what is done"


def ask(server: Gateway) -> str:
    client = openai.OpenAI(base_url=server.url, api_key="none", max_retries=0, timeout=20)
    message = {"role": "user", "content": "Say it plainly."}
    return client.chat.completions.create(model="m", messages=[message]).choices[0].message.content or ""  # type: ignore[list-item]


def test_what_the_llm_has_answered_is_on_the_bill_also_where_it_was_cut_off(tmp_path: Path) -> None:
    with serving(scripted_llm) as upstream, gateway(upstream.url, tmp_path / "bill", Weather()) as clear:
        assert ask(clear)
        clear.down_until = float("inf")
        with pytest.raises(openai.InternalServerError):
            ask(clear)
    with serving(scripted_llm) as worse, gateway(worse.url, tmp_path / "bill", Weather(chance=1.0, seed=1)) as stormy:
        for _ in range(20):
            with pytest.raises((openai.APIStatusError, openai.APIConnectionError)):
                ask(stormy)
    bill = read_bill(tmp_path / "bill")
    assert {answer.spoiled for answer in bill} == {"", "500", "429", "cut off"}
    for answer in bill:
        assert (answer.input_tokens > 0) == (answer.spoiled in ("", "cut off"))
    assert sum(answer.input_tokens for answer in bill) == upstream.reported[0] + worse.reported[0]


def a_night(home: Path) -> RunFolder:
    """A queue of one task whose run has ended."""
    run = make_run(home / "runs")
    for report in (run.report_html, run.report_md):
        report.write_text("a report")
    queue = QueueFolder.create(home / "runs", "night")
    queue.append(lambda _: QueueBegun(time=now(), limits=NightLimits()))
    outcome = run.outcome()
    assert outcome
    estimate = Estimate(start=1, lora=1, edit=1, end=1, trained=1, rounds=4)
    for row in (
        TaskAdded(time=now(), number=1, name="valley", task="/t", limits=Limits(rounds=6), estimate=estimate),
        TaskStarted(time=now(), number=1, run=run.name),
        TaskEnded(time=now(), number=1, state="finished", reason="", spend=outcome.spend),
    ):
        queue.append(lambda _, row=row: row)  # type: ignore[misc]
    queue.append(lambda state: QueueEnded(time=now(), reason="All tasks are done.", spend=spend_of(queue, state)))
    queue.page.write_text("a page")
    return run


def test_two_nights_are_alike_but_for_what_was_paid_and_every_other_difference_is_shown(tmp_path: Path) -> None:
    a_night(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    ledger = tmp_path / "b" / "runs" / "valley-1" / "ledger.jsonl"
    rows = [json.loads(line) for line in ledger.read_text().splitlines()]
    assert "**no**" not in compare(tmp_path / "a", tmp_path / "b")
    for row in rows:
        row["spend"]["train_tokens"] += 100  # from the start on
    ledger.write_text("".join(json.dumps(row) + "\n" for row in rows))
    failed = [line for line in compare(tmp_path / "a", tmp_path / "b").splitlines() if "**no**" in line]
    assert [line.split(" | ")[0] for line in failed] == [
        "| valley: its reports are there", "| faulted: the queue has spent what its runs have",
    ]  # fmt: skip
    rows[2]["reward"] += 0.01
    rows[0]["spend"]["train_tokens"] = -1
    ledger.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = compare(tmp_path / "a", tmp_path / "b")
    assert ".2.reward: " in found and "| no step was charged less than in the undisturbed night | **no** |" in found

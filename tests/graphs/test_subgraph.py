"""The adaptation as a node of somebody else's graph, with a state and a context of their own."""

import asyncio
import errno
import json
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command
from typing_extensions import TypedDict

from agent.errors import BadInput, Busy, NesyLoraError
from agent.records.examples import Prompt
from agent.records.rounds import Outcome, SplitResult
from graphs.adapt import build_graph
from graphs.approval import APPROVE
from graphs.context import Context
from memory.run.charges import ChargeFile
from memory.run.folder import RunFolder
from tests.fixtures.learnable import TinyTask


@dataclass
class Mine:
    """A context that has nothing to do with ours."""

    user: str = "Ada"


class Job(TypedDict, total=False):
    customer: str
    task: str
    runs: str
    budget: dict[str, float | None]
    overrides: list[str]
    supervised: bool
    outcome: Outcome
    prompt: Prompt
    adapter: str | None
    test: SplitResult
    report: str | None
    letter: str


def write_letter(state: Job) -> Job:
    return {"letter": f"Dear {state['customer']}, your model has {state['test'].reward:.2f}."}


def my_graph(checkpointer: Any = None, **options: Any) -> Any:
    graph = StateGraph(Job, context_schema=Mine)
    graph.add_node("adapt", build_graph(**options))
    graph.add_node(write_letter)
    graph.add_edge(START, "adapt")
    graph.add_edge("adapt", "write_letter")
    graph.add_edge("write_letter", END)
    return graph.compile(checkpointer=checkpointer)


CONFIG: Any = {"configurable": {"thread_id": "a"}, "recursion_limit": 99}


@pytest.fixture
def job(tiny_task: TinyTask, tmp_path: Path) -> Job:
    """One round of edits."""
    return Job(
        customer="Bea", task=str(tiny_task()), runs=str(tmp_path / "runs"), budget={"rounds": 1},
        overrides=["policy=prompt-only"],
    )  # fmt: skip


def only_run(job: Job) -> RunFolder:
    [file] = Path(job["runs"]).glob("*/run.json")
    return RunFolder.open(file.parent)


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("saved", [False, True])
def test_a_foreign_graph_adapts_a_model_and_reads_what_came_of_it(job: Job, saved: bool, asynchronous: bool) -> None:
    graph = my_graph(InMemorySaver() if saved else None)
    done = (
        asyncio.run(graph.ainvoke(job, CONFIG, context=Mine())) if asynchronous
        else graph.invoke(job, CONFIG, context=Mine())
    )  # fmt: skip
    run = only_run(job)
    assert len(run.rounds()) == 1 and done["outcome"] == run.outcome()
    assert done["letter"] == f"Dear Bea, your model has {done['outcome'].best_test.reward:.2f}."
    assert done["prompt"].id == done["outcome"].best.prompt and done["adapter"] is None and done["report"] is None
    with run.locked():
        pass


def test_an_adapter_and_a_report_come_out_as_paths(tiny_task: TinyTask, tmp_path: Path) -> None:
    from tests.fixtures.learnable import LEARNABLE
    from ui.report.write import write_report

    task = tiny_task(**LEARNABLE | {"policy": "lora-only"})
    job = Job(customer="Bea", task=str(task), runs=str(tmp_path / "runs"), budget={"rounds": 1})
    done = my_graph(report=write_report).invoke(job, CONFIG, context=Mine())
    assert done["outcome"].best.adapter and Path(done["adapter"], "adapter_model.safetensors").is_file()
    assert Path(done["report"]).stat().st_size > 1000


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_question_goes_up_and_its_answer_comes_down(job: Job, asynchronous: bool) -> None:
    graph = my_graph(InMemorySaver())

    def go(given: Any) -> dict[str, Any]:
        if asynchronous:
            return dict(asyncio.run(graph.ainvoke(given, CONFIG, context=Mine())))
        return dict(graph.invoke(given, CONFIG, context=Mine()))

    [asked] = go({**job, "supervised": True})["__interrupt__"]
    run = only_run(job)
    with run.locked():  # nobody has it while a question waits
        pass
    assert asked.value["action_requests"][0]["name"] == "edit_prompt" and not run.rounds()
    [again] = go(Command(resume=True))["__interrupt__"]
    assert "the answer is True" in again.value["fault"] and not run.rounds()
    [end] = go(Command(resume=APPROVE))["__interrupt__"]
    assert end.value["action_requests"][0]["name"] == "stop" and len(run.rounds()) == 1
    assert go(Command(resume=APPROVE))["outcome"] == run.outcome()
    assert only_run(job).path == run.path
    with run.locked():
        pass


def test_each_call_of_the_node_is_a_run_of_its_own(job: Job) -> None:
    graph = my_graph(InMemorySaver())
    first = graph.invoke(job, CONFIG, context=Mine())
    second = graph.invoke({**job, "overrides": ["policy=prompt-only", "seed=1"]}, CONFIG, context=Mine())
    assert len(list(Path(job["runs"]).glob("*/run.json"))) == 2 and first["outcome"] and second["outcome"]


@pytest.mark.parametrize(("thread", "name"), [("job.7", "thread-job.7"), ("job: 7", r"thread-job--7-[0-9a-f]{12}")])
def test_a_run_is_named_after_its_thread(job: Job, thread: str, name: str) -> None:
    build_graph(InMemorySaver()).invoke(job, {"configurable": {"thread_id": thread}})
    assert re.fullmatch(name, only_run(job).name)


def test_events_and_progress_are_streamed_as_plain_values(job: Job) -> None:
    parts = list(my_graph().stream(job, CONFIG, context=Mine(), stream_mode="custom", subgraphs=True))
    events = [event for path, event in parts if path]
    assert json.loads(json.dumps(events)) == events
    kinds = [event["kind"] for event in events if event["kind"] != "progress"]
    assert kinds[0] == "note" and [kind for kind in kinds if kind != "note"] == [
        "baseline", "round-start", "decision", "verdict", "decision", "finish",
    ]  # fmt: skip
    progress = [event for event in events if event["kind"] == "progress"]
    assert {"loading the model", "answering"} <= {event["what"] for event in progress}
    assert all({"done", "total", "note"} <= event.keys() for event in progress)


def test_a_parents_context_of_our_kind_is_taken(job: Job) -> None:
    graph = StateGraph(Job, context_schema=Context)
    graph.add_node("adapt", build_graph())
    graph.add_edge(START, "adapt")
    asked = graph.compile(InMemorySaver()).invoke(job, CONFIG, context={"supervised": True})
    assert asked["__interrupt__"] and not only_run(job).rounds()


def test_what_the_context_says_wins_over_the_input(job: Job, tmp_path: Path) -> None:
    context = Context(runs=str(tmp_path / "elsewhere"), overrides=("policy=prompt-only", "target=0.1"))
    done = build_graph().invoke(job, CONFIG, context=context)
    assert done["outcome"] and not Path(job["runs"]).exists()
    [file] = (tmp_path / "elsewhere").glob("*/task.yaml")
    assert "target: 0.1" in file.read_text() and "rounds: 1" in file.read_text()


@pytest.mark.parametrize(
    ("context", "said"),
    [
        ({"taks": "here"}, "there is no field 'taks'. Did you mean task? The fields are run, task"),
        ({"supervised": "perhaps"}, "supervised is 'perhaps'"),
        ({"task": 3}, "task is 3"),
    ],
)
def test_a_context_with_unknown_fields_or_wrong_values_is_refused(job: Job, context: Any, said: str) -> None:
    with pytest.raises(BadInput, match=re.escape(said)):
        build_graph().invoke(job, CONFIG, context=context)


def test_a_thread_that_holds_the_run_of_another_task_says_so(job: Job, tiny_task: TinyTask, tmp_path: Path) -> None:
    graph = build_graph(InMemorySaver())
    graph.invoke(job, CONFIG)
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(BadInput, match=r"run thread-a in .* is of another task"):
        graph.invoke({**job, "task": str(other)}, CONFIG)


# --- connections that break ------------------------------------------------------------------------


def failing_loads(monkeypatch: pytest.MonkeyPatch, error: Exception, times: int) -> list[str]:
    """Loading a model raises this so many times; the list gets its name at each try."""
    from tools.model import loading

    tries: list[str] = []
    load = loading.load_model

    def fail_first(name: str, **options: Any) -> Any:
        tries.append(name)
        if len(tries) <= times:
            raise error
        return load(name, **options)

    monkeypatch.setattr(loading, "load_model", fail_first)
    return tries


def test_a_step_whose_connection_broke_is_tried_again(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = failing_loads(monkeypatch, httpx.ReadTimeout("the hub is slow"), times=1)
    assert build_graph().invoke(job, CONFIG)["outcome"] and len(tries) == 2


def test_a_connection_that_broke_inside_a_refusal_is_tried_again(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the hub's libraries wrap it, and we after them."""
    refusal = BadInput("the model is not on this machine, and the hub cannot be reached")
    refusal.__cause__ = OSError("offline")
    refusal.__cause__.__cause__ = httpx.ConnectError("refused")
    tries = failing_loads(monkeypatch, refusal, times=1)
    assert build_graph().invoke(job, CONFIG)["outcome"] and len(tries) == 2


def test_what_is_wrong_with_a_task_is_not_tried_again(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = failing_loads(monkeypatch, BadInput("no such model"), times=1)
    with pytest.raises(BadInput, match="no such model"):
        build_graph().invoke(job, CONFIG)
    assert len(tries) == 1


# --- calls that are cancelled ----------------------------------------------------------------------


def test_a_cancelled_call_keeps_the_run_until_its_node_has_ended(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node works in a thread, which nobody can stop: another process must not work on the run beside it."""
    from eval.runner import Runner

    began, go_on, ended = threading.Event(), threading.Event(), threading.Event()
    score = Runner.__call__

    def slow(*args: Any, **options: Any) -> Any:
        began.set()
        go_on.wait(30)
        try:
            return score(*args, **options)
        finally:
            ended.set()

    monkeypatch.setattr(Runner, "__call__", slow)

    async def cancel() -> None:
        call = asyncio.create_task(build_graph().ainvoke(job, CONFIG))
        await asyncio.to_thread(began.wait, 30)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        run = RunFolder.open(Path(job["runs"]) / "thread-a")
        with pytest.raises(Busy), run.locked():
            pass
        go_on.set()
        await asyncio.to_thread(ended.wait, 30)

    asyncio.run(cancel())  # ends when its threads have ended
    with RunFolder.open(Path(job["runs"]) / "thread-a").locked():
        pass


# --- budgets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "text"), [(1_234_567, "train_tokens: 1234567"), (1_000_000, "train_tokens: 1000000"), (None, "null")]
)
def test_a_budget_is_taken_to_the_token(job: Job, limit: int | None, text: str) -> None:
    from graphs.context import run_folder

    folder = run_folder(
        Context(task=job["task"], runs=job["runs"], budget={"train_tokens": limit, "minutes": 0.5}), None
    )
    written = (folder.path / "task.yaml").read_text()
    assert text in written and "minutes: 0.5" in written


def test_a_full_disk_is_named_even_where_the_charges_cannot_be_noted(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ChargeFile, "charge", full)
    with pytest.raises(NesyLoraError, match=r"The disk is full: .*thread-a could not be written .* Make room"):
        build_graph().invoke(job, CONFIG)

"""The graph as LangGraph's own clients run it: invoked again, answered wrongly, from two processes."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from agent.errors import BadInput, Busy
from agent.records.events import Event
from agent.records.limits import Limits
from graphs.adapt import build_graph
from graphs.approval import APPROVE, instead
from graphs.context import Context, new_run
from graphs.session import open_session
from memory.run.folder import RunFolder
from tests.fixtures.forks import run_forked
from tests.fixtures.learnable import TinyTask

ROOT = Path(__file__).parents[2]
HOLDER = (
    f"import sys, time; sys.path.insert(0, {str(ROOT)!r})\n"
    "from pathlib import Path\nfrom memory.run.folder import RunFolder\n"
    "with RunFolder.open(Path(sys.argv[1])).locked():\n    print('held', flush=True); time.sleep(60)"
)


class Graph:
    """The graph on a run, with a checkpointer and a thread of its own."""

    def __init__(self, run: RunFolder, thread: str = "a", saver: Any = None) -> None:
        self.run, self.graph = run, build_graph(saver or InMemorySaver())
        self._config: Any = {"configurable": {"thread_id": thread}, "recursion_limit": 100}

    def __call__(self, graph_input: Any = None, **context: Any) -> dict[str, Any]:
        """Invoked by plain values, as LangGraph's server does."""
        graph_input = {"number": 0} if graph_input is None else graph_input
        result: dict[str, Any] = self.graph.invoke(
            graph_input, self._config, context={"run": str(self.run.path), **context}
        )
        return result

    async def stream(self, graph_input: Any) -> list[Any]:
        context = {"run": str(self.run.path)}
        return [chunk async for chunk in self.graph.astream(graph_input, self._config, context=context)]


@pytest.fixture
def run(tiny_task: TinyTask, tmp_path: Path) -> RunFolder:
    return new_run(tiny_task(), ["policy=prompt-only", "budget.rounds=1"], tmp_path / "runs")


@contextmanager
def held(run: RunFolder) -> Iterator[int]:
    """Another process has the run; its id."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(run.path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline().strip() == "held"
        yield holder.pid
        holder.kill()


def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.model.loading.load_model", lambda *_, **__: pytest.fail("the model was wanted"))


# --- a run that has ended --------------------------------------------------------------------------


@pytest.mark.parametrize("thread", ["a", "another"])
def test_a_finished_run_invoked_again_gives_its_outcome_and_plays_nothing(
    run: RunFolder, thread: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    saver = InMemorySaver()
    first = Graph(run, "a", saver)()
    assert first["outcome"] == run.outcome()
    rows, events = (run.path / "ledger.jsonl").read_bytes(), len(run.events().entries)
    no_model(monkeypatch)
    monkeypatch.setattr("eval.runner.Runner.open_test", lambda *_: pytest.fail("the test rows were opened again"))
    again = Graph(run, thread, saver)()
    assert (again["outcome"], again["best"], again["number"]) == (run.outcome(), first["best"], first["number"])
    assert (run.path / "ledger.jsonl").read_bytes() == rows and len(run.events().entries) == events


def test_a_run_that_a_session_finished_gives_its_outcome_to_the_graph_while_another_reads_it(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_session(run) as session:
        session.go()
    no_model(monkeypatch)
    with held(run):
        assert Graph(run)()["outcome"] == run.outcome()


def test_a_run_invoked_again_before_its_end_goes_on_after_its_last_round(
    tiny_task: TinyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a new thread, as after its checkpoints were lost; it counts what the rounds before have cost."""
    run = new_run(tiny_task(), ["policy=prompt-only", "budget.rounds=2"], tmp_path / "runs")
    first = Graph(run)
    first(supervised=True)
    first(Command(resume=APPROVE), supervised=True)
    assert len(run.rounds()) == 1
    ended = Graph(run, "another")()
    assert [row.number for row in run.rounds()] == [1, 2]
    assert ended["number"] == 2
    earlier, later = run.rounds()
    assert (
        later.spend.forward_tokens >= earlier.spend.forward_tokens > 0 and later.spend.seconds > earlier.spend.seconds
    )


@pytest.mark.parametrize("thread", ["a", "another"])
def test_a_finished_run_that_was_extended_goes_on_in_the_graph(run: RunFolder, thread: str) -> None:
    saver = InMemorySaver()
    first = Graph(run, "a", saver)()
    run.extend(Limits(rounds=2, target=0.95))
    again = Graph(run, thread, saver)()
    assert [row.number for row in run.rounds()] == [1, 2] and again["number"] == 2
    assert run.outcomes() == [first["outcome"], again["outcome"]] and again["outcome"].seen == 1


# --- one process at a time -------------------------------------------------------------------------


def test_the_graph_takes_the_runs_lock_and_names_who_has_it(run: RunFolder) -> None:
    graph = Graph(run)
    with held(run) as pid, pytest.raises(Busy, match=str(pid)):
        graph()
    with held(run) as pid, pytest.raises(Busy, match=str(pid)):
        asyncio.run(graph.stream({"number": 0}))
    with open_session(run) as session, pytest.raises(Busy):
        assert not session.finished
        graph()
    graph.graph = graph.graph.copy({"checkpointer": InMemorySaver()})  # as LangGraph's server takes it
    with held(run) as pid, pytest.raises(Busy, match=str(pid)):
        graph()


class Trying:
    """A listener that tries to lock the run from another process at every event."""

    def __init__(self, run: RunFolder) -> None:
        self.refused: list[bool] = []
        self._run = run

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None: ...

    def event(self, event: Event) -> None:
        try:
            with self._run.locked():
                self.refused.append(False)
        except Busy:
            self.refused.append(True)


def test_the_lock_is_held_for_as_long_as_the_graph_runs_and_no_longer(run: RunFolder) -> None:
    trying = Trying(run)
    graph = Graph(run)
    graph(supervised=True, listener=trying)
    with run.locked():  # while a question waits, nobody has it
        pass
    graph(Command(resume=APPROVE), supervised=True, listener=trying)
    assert len(trying.refused) >= 5 and all(trying.refused)
    with run.locked():
        pass


def test_a_graph_that_is_left_in_the_middle_lets_go_of_the_run(run: RunFolder) -> None:
    graph = build_graph(InMemorySaver())
    config: Any = {"configurable": {"thread_id": "a"}}
    stream = graph.stream({"number": 0}, config, context=Context(run=str(run.path)))
    assert "baseline" in next(stream)
    with pytest.raises(Busy), run.locked():
        pass
    stream.close()
    with run.locked():
        pass


def test_a_graph_without_a_context_says_what_it_wants() -> None:
    with pytest.raises(BadInput, match="context=Context"):
        build_graph(InMemorySaver()).invoke({"number": 0}, {"configurable": {"thread_id": "a"}})


# --- answers ---------------------------------------------------------------------------------------

SHAPE = '"decisions": [{"type": "approve"}]'


def decided(**decision: Any) -> dict[str, Any]:
    return {"decisions": [decision]}


WRONG: list[tuple[Any, list[str]]] = [
    (True, ["the answer is True", SHAPE]),
    ("yes", ["the answer is 'yes'", SHAPE]),
    ({"approve": True}, ["approve is unknown", SHAPE]),
    ({"decisions": []}, ["decisions.0 is missing", SHAPE]),
    ({"decisions": [{"type": "approve"}, {"type": "approve"}]}, ["decisions is", SHAPE]),
    (decided(type="fly"), ["decisions.0 is {'type': 'fly'}", SHAPE]),
    (decided(type="respond", message="Well?"), ["'respond'", SHAPE]),
    (decided(type="edit"), ["decisions.0.edited_action is missing", SHAPE]),
    (decided(type="reject", message=3), ["decisions.0.message is 3", SHAPE]),
    (instead("fly"), ["'fly'", "'train_lora', 'edit_prompt', 'rollback' or 'stop'"]),
    (instead("train_lora", learning_rate=5), ["learning_rate", "between 1e-06 and 0.01", "5"]),
    (instead("train_lora", rank=4096), ["rank", "between 1 and 256", "4096"]),
    (instead("train_lora", ronk=8), ["ronk"]),
    (
        instead("edit_prompt", parts=["words"]),
        ["parts.0", "'system', 'demos', 'questions' or 'retrieval'", "'words'"],
    ),
    (instead("rollback", to_round=7), ["there has been no round to go back from"]),
    (instead("rollback", to_round=-1), ["to_round", "at least 0"]),
    (instead("rollback"), ["to_round is missing; it must be at least 0"]),
]


def without_fault(question: dict[str, Any]) -> dict[str, Any]:
    [request] = question["action_requests"]
    return question | {"fault": "", "action_requests": [request | {"description": ""}]}


@pytest.mark.parametrize(("wrong", "messages"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_answer_is_asked_again_and_a_right_one_then_counts(
    run: RunFolder, wrong: Any, messages: list[str]
) -> None:
    graph = Graph(run)
    [asked] = graph(supervised=True)["__interrupt__"]
    [again] = graph(Command(resume=wrong), supervised=True)["__interrupt__"]
    assert without_fault(again.value) == without_fault(asked.value) and not run.rounds()
    assert again.value["fault"] in again.value["action_requests"][0]["description"], "chat front ends show only this"
    assert all(word in again.value["fault"] for word in messages), again.value["fault"]
    [third] = graph(Command(resume="?"), supervised=True)["__interrupt__"]
    assert "'?'" in third.value["fault"]
    graph(Command(resume=instead("edit_prompt")), supervised=True)
    assert [row.decision.by for row in run.rounds()] == ["user"]


ANSWERED = """
import sys
from pathlib import Path
from graphs.approval import instead
from graphs.session import open_session
from memory.run.folder import RunFolder
with open_session(RunFolder.open(Path(sys.argv[1])), supervised=True) as session:
    question = session.go(instead("train_lora", rank=4096))
    print(question.fault)
"""


def test_a_wrong_answer_is_no_hindrance_to_another_process(run: RunFolder) -> None:
    with open_session(run, supervised=True) as session:
        session.go()
        assert "'?'" in (session.go({"decisions": "?"}) or pytest.fail("nothing was asked")).fault
    wrong = run_forked(ANSWERED, run.path)
    assert "between 1 and 256" in wrong.stdout, wrong.stderr
    with open_session(run, supervised=True) as session:
        question = session.question
        assert question and "between 1 and 256" in question.fault and not run.rounds()
        session.go(APPROVE)
    assert [row.decision.by for row in run.rounds()] == ["fixed order"]


def test_what_was_not_asked_cannot_be_answered(run: RunFolder) -> None:
    with open_session(run, supervised=True) as session, pytest.raises(BadInput, match="waits with no question"):
        session.go(APPROVE)
    assert run.baseline() is None

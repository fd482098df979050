"""The chat as a graph for LangGraph's clients, without their server: a thread is a conversation about one run."""

from pathlib import Path
from typing import Any

from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from graphs.context import Context, new_run
from graphs.control.driver import drive
from tests.fixtures.learnable import TinyTask
from ui.report.write import write_report
from ui.talk.served import build_chat


def test_a_thread_looks_is_asked_back_and_ends_its_run_only_at_a_yes(tiny_task: TinyTask, tmp_path: Path) -> None:
    folder = new_run(tiny_task(), ["budget.rounds=1"], tmp_path / "runs")
    chat, context = build_chat().copy({"checkpointer": InMemorySaver()}), Context(run=str(folder.path))

    def goes_on(given: Any) -> dict[str, Any]:
        answer: dict[str, Any] = chat.invoke(given, {"configurable": {"thread_id": "a"}}, context=context)
        return answer

    def say(text: str) -> dict[str, Any]:
        return goes_on({"messages": [HumanMessage(text)]})

    with drive(folder, supervised=True, report=write_report):
        looked = say("how is it going?")
        assert "0 rounds of 1 done; waits for you" in looked["messages"][-1].text and looked["run"] == folder.name
        assert "I do not understand that" in say("lorem ipsum dolor")["messages"][-1].text
        assert "There is no round 3" in say("/why 3")["messages"][-1].text
        [asked] = say("done")["__interrupt__"]
        assert "That will end the run" in asked.value["action_requests"][0]["description"]
        assert "Nothing was done." in goes_on(Command(resume={"decisions": [{"type": "reject"}]}))["messages"][-1].text
        assert folder.outcome() is None
        say("done")
        ended = goes_on(Command(resume={"decisions": [{"type": "approve"}]}))
        assert "The run has finished." in ended["messages"][-1].text
    assert folder.outcome() is not None and not folder.rounds()

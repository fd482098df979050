"""An agent of the user's own works on a run with the tools: a scripted chat model in LangGraph's own agent."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from agent.errors import BadInput, StepFailed
from agent.records.actions import EditPrompt, Stop, TrainLora
from agent.records.looks import (
    Compare,
    Evaluate,
    FailuresClassified,
    PairsCompared,
    PromptTried,
    RowsScored,
    TryPrompt,
)
from agent.records.rounds import Outcome, RoundSummary, Spend
from graphs.context import new_run
from graphs.session import Session, open_session
from graphs.workbench import Workbench, make_tools
from memory.run.folder import RunFolder
from tests.fixtures.learnable import TinyTask

Calls = Sequence[tuple[str, dict[str, Any]]]


class Scripted(BaseChatModel):
    """Calls the tools of its script, one message a turn, and then says that it is done."""

    script: list[Calls]

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **options: Any) -> Any:
        assert {tool.name for tool in tools} >= {"train_lora", "evaluate", "stop"}
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **options: Any) -> ChatResult:
        calls = self.script.pop(0) if self.script else []
        named = [
            {"name": name, "args": arguments, "id": f"{len(messages)}-{place}"}
            for place, (name, arguments) in enumerate(calls)
        ]
        message = AIMessage(content="" if calls else "Done.", tool_calls=named)
        return ChatResult(generations=[ChatGeneration(message=message)])


def answers(session: Session, script: list[Calls]) -> list[ToolMessage]:
    """What the tools answered to an agent that follows the script."""
    from langgraph.prebuilt import create_react_agent

    agent = create_react_agent(Scripted(script=script), make_tools(session))
    messages = agent.invoke({"messages": [("user", "Adapt the model.")]})["messages"]
    assert messages[-1].text == "Done."
    return [message for message in messages if isinstance(message, ToolMessage)]


@pytest.fixture
def folder(tiny_task: TinyTask, tmp_path: Path) -> RunFolder:
    return new_run(tiny_task(), ["budget.rounds=2"], tmp_path / "runs")


@pytest.fixture
def session(folder: RunFolder) -> Iterator[Session]:
    with open_session(folder, supervised=True) as session:
        yield session


def test_an_agent_looks_pulls_levers_and_ends_the_run(session: Session, folder: RunFolder) -> None:
    script: list[Calls] = [
        [("evaluate", {"split": "train", "rows": 2}), ("evaluate", {"split": "validation"}), ("classify_failures", {})],
        [("edit_prompt", {"parts": ["system"]})],
        [("train_lora", {"rows": "original", "epochs": 1, "rank": 4})],
        [("compare", {"first": 0, "second": 2}), ("try_prompt", {"question": "Who is the mayor of Benn?"})],
        [("search_prompts", {"limit": 1})],
        [("stop", {})],
    ]
    on_train, on_validation, classified, edited, trained, compared, tried, searched, ended = answers(session, script)
    scored = on_train.artifact
    assert isinstance(scored, RowsScored) and scored.rows == 2 and scored.failures
    assert on_validation.artifact.rows == 4 and on_validation.artifact.failures == ()
    assert "Name the mayor" not in on_validation.text, "of validation rows there are numbers only"
    assert isinstance(classified.artifact, FailuresClassified) and classified.artifact.total == 4
    rounds = folder.rounds()
    assert [row.decision.move.action for row in rounds] == ["edit_prompt", "train_lora"]
    for message, row in zip((edited, trained), rounds, strict=True):
        summary = RoundSummary.model_validate_json(message.text)
        assert summary == message.artifact and (summary.kept, summary.reward) == (row.verdict.kept, row.reward)
    assert isinstance(compared.artifact, PairsCompared) and compared.artifact.second_reward == rounds[-1].reward
    assert compared.artifact.same == (not any(row.verdict.kept for row in rounds))
    assert isinstance(tried.artifact, PromptTried) and searched.artifact.asked
    assert Outcome.model_validate_json(ended.text) == folder.outcome()
    assert all(message.status == "success" for message in (on_train, edited, trained, ended))


def test_what_cannot_be_done_is_told_to_the_agent_and_changes_nothing(session: Session, folder: RunFolder) -> None:
    script: list[Calls] = [
        [("train_lora", {"rank": 4096})],
        [("rollback", {"to_round": 7})],
        [("compare", {"first": 0, "second": 3})],
        [("evaluate", {"split": "test"})],
    ]
    too_wide, nowhere, unknown, sealed = answers(session, script)
    assert "less than or equal to 256" in too_wide.text
    assert "there has been no round to go back from" in nowhere.text
    assert "There is no round 3" in unknown.text
    assert "'train' or 'validation'" in sealed.text
    assert all(message.status == "error" for message in (too_wide, nowhere, unknown, sealed))
    assert not folder.rounds() and not list((folder.path / "evaluations").glob("*-test.json"))


def test_a_training_is_as_the_rules_train_where_the_agent_names_nothing(tiny_task: TinyTask, tmp_path: Path) -> None:
    task = tiny_task(lora={"epochs": 2, "rank": 2, "learning_rate": 0.004})
    with open_session(new_run(task, ["budget.rounds=1"], tmp_path / "runs"), supervised=True) as session:
        asked = session.go()
        assert asked and asked.training and asked.training != TrainLora()
        answers(session, [[("train_lora", {"epochs": 1})]])
        [row] = session.services.folder.rounds()
    assert row.decision.move == asked.training.model_copy(update={"epochs": 1})


def test_budgets_stand_for_an_agent_too(tiny_task: TinyTask, tmp_path: Path) -> None:
    with open_session(new_run(tiny_task(), ["budget.rounds=1"], tmp_path / "runs"), supervised=True) as session:
        bench = Workbench(session)
        bench.pull(EditPrompt())
        with pytest.raises(BadInput, match=r"budget of 1 round is used up\. Only rollback and stop are left"):
            bench.pull(EditPrompt())
        bench.pull(Stop())
        for again in (lambda: bench.pull(Stop()), lambda: bench.look(Evaluate())):
            with pytest.raises(BadInput, match="has ended"):
                again()


def test_looks_are_charged_to_the_next_round_and_kept_within_the_minutes(session: Session, folder: RunFolder) -> None:
    bench = Workbench(session)
    bench.look(Evaluate(split="train", rows=2))
    looked = session.services.meter.used() - Spend(seconds=time.monotonic())
    bench.pull(EditPrompt())
    baseline, [first] = folder.baseline(), folder.rounds()
    assert baseline and first.spend.seconds > baseline.spend.seconds
    whole = session.services.meter.used().generated_tokens
    assert first.spend.generated_tokens == whole and looked.generated_tokens > baseline.spend.generated_tokens
    session.services.spec.config.budget.__dict__["minutes"] = 1e-9
    with pytest.raises(StepFailed, match="minutes are used up"):
        bench.look(TryPrompt(question="Who is the mayor of Zorrow?"))


def test_a_run_that_waits_for_nobody_is_no_workbench(folder: RunFolder) -> None:
    with open_session(folder) as session, pytest.raises(BadInput, match="supervised=True"):
        Workbench(session).look(Compare(first=0, second=0))


def test_tools_that_are_called_together_work_one_at_a_time(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent's tools run in threads; one model answers them."""
    busy, most = 0, 0
    context = session.services
    session.go()
    evaluate: Callable[..., Any] = type(context.evaluate).__call__

    def counted(*given: Any, **named: Any) -> Any:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        try:
            return evaluate(*given, **named)
        finally:
            busy -= 1

    monkeypatch.setattr(type(context.evaluate), "__call__", counted)
    messages = answers(session, [[("evaluate", {"rows": rows}) for rows in (1, 2, 3, 4)]])
    assert [message.artifact.rows for message in messages] == [1, 2, 3, 4] and most == 1

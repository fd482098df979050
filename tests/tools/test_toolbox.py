"""The levers and the looks as tools that an agent calls by itself."""

import json
from typing import Any

import pytest
from langchain_core.messages import ToolMessage
from langchain_core.tools import StructuredTool
from pydantic import ValidationError

from agent.errors import BadInput
from agent.records.actions import Action, EditPrompt, Rollback, Stop, TrainLora, named
from agent.records.base import Record
from agent.records.looks import Evaluate, Finding, Look, PairsCompared, PromptTried, SearchPrompts, TryPrompt
from agent.records.rounds import RoundSummary
from tools.toolbox import toolbox

COMPARED = PairsCompared(
    first=0, second=1, rows=4, first_reward=0.25, second_reward=0.5, better=1, worse=0, p_value=0.5
)


class Bench:
    """Notes what it is asked for."""

    def __init__(self) -> None:
        self.calls: list[Record] = []

    def pull(self, action: Action) -> RoundSummary:
        self.calls.append(action)
        return RoundSummary(
            number=len(self.calls), action=action.action, note="", kept=True, reason="", before=0.0, after=1.0,
            p_value=0.01, reward=1.0, target=0.9, rounds_left=1, seconds=0.1,
        )  # fmt: skip

    def look(self, look: Look) -> Finding:
        if isinstance(look, TryPrompt):
            raise BadInput("The model's window has no room for this question.")
        self.calls.append(look)
        return COMPARED


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def tools(bench: Bench) -> dict[str, StructuredTool]:
    return {tool.name: tool for tool in toolbox(bench)}


def called(tool: StructuredTool, arguments: dict[str, Any]) -> ToolMessage:
    """As an agent calls it."""
    message = tool.invoke({"type": "tool_call", "id": "1", "name": tool.name, "args": arguments})
    assert isinstance(message, ToolMessage)
    return message


def test_there_is_one_tool_a_lever_and_a_look_and_each_says_what_it_is_for(tools: dict[str, StructuredTool]) -> None:
    levers = ["train_lora", "edit_prompt", "rollback", "stop"]
    assert list(tools) == [*levers, "evaluate", "classify_failures", "search_prompts", "try_prompt", "compare"]
    assert "Tune the weights" in tools["train_lora"].description
    assert all(tool.description for tool in tools.values())


@pytest.mark.parametrize(
    ("name", "arguments", "action"),
    [
        ("train_lora", {"rank": 8, "rows": "refined"}, TrainLora(rank=8, rows="refined")),
        ("train_lora", {}, TrainLora()),
        ("edit_prompt", {"parts": ["demos"]}, EditPrompt(parts=("demos",))),
        ("rollback", {"to_round": 0}, Rollback(to_round=0)),
        ("stop", {}, Stop()),
    ],
)
def test_a_call_pulls_the_lever_and_says_what_came_of_it(
    tools: dict[str, StructuredTool], bench: Bench, name: str, arguments: dict[str, Any], action: Action
) -> None:
    message = called(tools[name], arguments)
    assert isinstance(message.artifact, RoundSummary) and message.artifact.action == name
    assert json.loads(message.text) == message.artifact.model_dump(mode="json"), "what the LLM reads is the record"
    assert bench.calls == [action]


@pytest.mark.parametrize(
    ("name", "arguments", "look"),
    [
        ("evaluate", {"split": "validation"}, Evaluate(split="validation")),
        ("search_prompts", {"about": "mayors", "limit": 1}, SearchPrompts(about="mayors", limit=1)),
    ],
)
def test_a_call_looks_and_finds_a_record(
    tools: dict[str, StructuredTool], bench: Bench, name: str, arguments: dict[str, Any], look: Look
) -> None:
    message = called(tools[name], arguments)
    assert message.artifact == COMPARED == PairsCompared.model_validate_json(message.text)
    assert bench.calls == [look]


def test_what_cannot_be_done_now_is_a_sentence_for_the_agent(tools: dict[str, StructuredTool]) -> None:
    message = called(tools["try_prompt"], {"question": "Who?"})
    assert (message.status, message.text) == ("error", "The model's window has no room for this question.")


@pytest.mark.parametrize(
    ("name", "arguments", "bound"),
    [
        ("train_lora", {"rank": 4096}, "less than or equal to 256"),
        ("train_lora", {"learning_rate": 5}, "less than or equal to 0.01"),
        ("train_lora", {"action": "stop"}, "should be 'train_lora'"),
        ("edit_prompt", {"parts": ["scorers"]}, "'system', 'demos', 'questions' or 'retrieval'"),
        ("rollback", {}, "Field required"),
        ("stop", {"shell": "rm"}, "Extra inputs are not permitted"),
        ("evaluate", {"split": "test"}, "'train' or 'validation'"),
        ("evaluate", {"rows": 10_000}, "less than or equal to 50"),
        ("try_prompt", {"question": PromptTried.__name__ * 500}, "at most 2000 characters"),
    ],
)
def test_values_out_of_bounds_are_refused_with_the_bounds_and_pull_nothing(
    tools: dict[str, StructuredTool], bench: Bench, name: str, arguments: dict[str, Any], bound: str
) -> None:
    with pytest.raises(ValidationError, match=bound):
        tools[name].invoke(arguments)
    assert bench.calls == []


def test_the_bounds_stand_in_the_schema_that_an_llm_reads(tools: dict[str, StructuredTool]) -> None:
    settings = tools["train_lora"].args
    assert (settings["rank"]["minimum"], settings["rank"]["maximum"]) == (1, 256)
    assert "additionalProperties" in tools["train_lora"].args_schema and "action" not in settings  # type: ignore[operator]
    assert tools["evaluate"].args["rows"]["default"] == 12


def test_what_an_agent_leaves_out_is_left_to_the_run(tools: dict[str, StructuredTool], bench: Bench) -> None:
    """LangChain fills the defaults of an arguments' class in; the run could not tell them from what was meant."""
    called(tools["train_lora"], {"epochs": 2})
    called(tools["edit_prompt"], {})
    assert [named(action) for action in bench.calls] == [{"epochs": 2}, {}]  # type: ignore[arg-type]
    for lever in ("train_lora", "edit_prompt"):
        assert not any("default" in setting for setting in tools[lever].args.values())
        assert "What you leave out is as planned" in tools[lever].description

"""The levers as tools that an agent calls by itself."""

from typing import Any

import pytest
from langchain_core.tools import StructuredTool
from pydantic import ValidationError

from agent.records.actions import Action, EditPrompt, Rollback, Stop, TrainLora
from tools.toolbox import toolbox


@pytest.fixture
def pulled() -> list[Action]:
    return []


@pytest.fixture
def tools(pulled: list[Action]) -> dict[str, StructuredTool]:
    def pull(move: Action) -> str:
        pulled.append(move)
        return f"{move.action}: kept"

    return {tool.name: tool for tool in toolbox(pull)}


def test_there_is_one_tool_a_lever_and_each_says_what_it_is_for(tools: dict[str, StructuredTool]) -> None:
    assert list(tools) == ["train_lora", "edit_prompt", "rollback", "stop"]
    assert "Tune the weights" in tools["train_lora"].description
    assert all(tool.description for tool in tools.values())


@pytest.mark.parametrize(
    ("name", "arguments", "move"),
    [
        ("train_lora", {"rank": 8, "rows": "refined"}, TrainLora(rank=8, rows="refined")),
        ("train_lora", {}, TrainLora()),
        ("edit_prompt", {"parts": ["demos"]}, EditPrompt(parts=("demos",))),
        ("rollback", {"to_round": 0}, Rollback(to_round=0)),
        ("stop", {}, Stop()),
    ],
)
def test_a_call_pulls_the_lever_and_says_what_came_of_it(
    tools: dict[str, StructuredTool], pulled: list[Action], name: str, arguments: dict[str, Any], move: Action
) -> None:
    assert tools[name].invoke(arguments) == f"{name}: kept"
    assert pulled == [move]


@pytest.mark.parametrize(
    ("name", "arguments", "bound"),
    [
        ("train_lora", {"rank": 4096}, "less than or equal to 256"),
        ("train_lora", {"learning_rate": 5}, "less than or equal to 0.01"),
        ("train_lora", {"action": "stop"}, "should be 'train_lora'"),
        ("edit_prompt", {"parts": ["scorers"]}, "'system', 'demos' or 'questions'"),
        ("rollback", {}, "Field required"),
        ("stop", {"shell": "rm"}, "Extra inputs are not permitted"),
    ],
)
def test_what_is_out_of_bounds_is_told_the_bounds_and_pulls_nothing(
    tools: dict[str, StructuredTool], pulled: list[Action], name: str, arguments: dict[str, Any], bound: str
) -> None:
    with pytest.raises(ValidationError, match=bound):
        tools[name].invoke(arguments)
    assert pulled == []


def test_the_bounds_stand_in_the_schema_that_an_llm_reads(tools: dict[str, StructuredTool]) -> None:
    properties = tools["train_lora"].tool_call_schema.model_json_schema()["properties"]  # type: ignore[union-attr]
    assert (properties["rank"]["minimum"], properties["rank"]["maximum"]) == (1, 256)
    assert properties["action"]["const"] == "train_lora"

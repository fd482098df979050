"""A choice asked for in several ways, over real HTTP: one that brings nothing usable is left for the next."""

import json
from typing import Any

import pytest
from pydantic import BaseModel

from agent.config.llm import Llm
from agent.errors import LlmUnavailable, Useless
from agent.policy.planner_tools import ACTION_TOOLS, PlanStop, PlanTrainLora
from agent.protocols import Chat
from eval.scorers.judge import Grade, grade_within
from tests.llm.clients import STOP, TOO_FAST, chat
from tests.llm.server import BROKEN, NO_TOOLS, OVERLOADED, LlmServer, Reply, Request, call, reshaped, serving
from tools.llm.schema import as_schema, as_tools

DONE = PlanStop(reason="done")
SPELLED = Reply('{"choice": {"action": "stop", "reason": "done"}}')
WRITTEN = '{"name": "stop", "arguments": {"reason": "done"}}'
ENDLESS = Reply(WRITTEN + "\n" * 300, finish="length")
CUT = Reply(calls=(("stop", '{"reason": "do'),), finish="length")


def way_of(request: Request) -> str:
    """The method by which a request asks."""
    if "tools" in request.body:
        return "tools" if request.body["tool_choice"] == "required" else "one tool"
    return {"json_schema": "schema", "json_object": "object", "": "text"}[
        (request.body.get("response_format") or {"type": ""})["type"]
    ]


def ways_of(server: LlmServer) -> list[str]:
    return [way_of(request) for request in server.requests]


def plan(client: Chat, user: str = "user") -> BaseModel:
    return client.call_tool("system", user, ACTION_TOOLS)


# --- a way is left -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "useless",
    [
        CUT,
        Reply("Well, let me think about it. " * 20, finish="length"),
        Reply('{"action": "stop", "reason": "do', finish="length"),
        Reply("I would stop."),
    ],
    ids=["cut call", "cut words", "cut object", "words"],
)
def test_a_method_that_brings_nothing_usable_is_given_up_and_the_one_that_works_is_kept(useless: Reply) -> None:
    with serving(lambda request: useless if request.tools else SPELLED) as server:
        client = chat(server)
        assert (plan(client), plan(client, "again"), client.method) == (DONE, DONE, "schema")
        assert ways_of(server) == ["tools", "schema", "schema"]


def test_a_call_written_as_text_and_then_new_lines_up_to_the_limit_is_read_and_not_asked_for_again() -> None:
    """As llama.cpp's server does, which takes `tool_choice: required` and lets the model write what it likes."""
    with serving(lambda request: ENDLESS if request.tools else SPELLED) as server:
        client = chat(server)
        assert (plan(client), plan(client, "again")) == (DONE, DONE)
        assert ways_of(server) == ["tools", "schema"]


def test_a_method_that_brings_no_answer_in_time_is_given_up() -> None:
    with serving(lambda request: Reply(delay=60) if request.tools else SPELLED) as server:
        client = chat(server, timeout=2, patience=60)
        assert (plan(client), client.method) == (DONE, "schema")
        assert ways_of(server) == ["tools", "schema"]


def test_a_server_that_is_too_slow_with_every_method_is_asked_once_with_each_and_then_with_one_a_question() -> None:
    with serving(lambda _: Reply(delay=60)) as server:
        client = chat(server, timeout=0.2)
        for _ in range(3):
            with pytest.raises(LlmUnavailable, match="in time"):
                plan(client)
        assert ways_of(server) == ["tools", "schema", "object", "text", "tools", "schema"]


@pytest.mark.parametrize("refusal", [NO_TOOLS, BROKEN])
def test_a_server_that_was_down_and_takes_no_tools_is_asked_with_other_methods_when_it_is_back(refusal: Reply) -> None:
    replies = iter([OVERLOADED])
    with serving(lambda request: next(replies, refusal if request.tools else SPELLED)) as server:
        client = chat(server)
        with pytest.raises(LlmUnavailable, match="503"):
            plan(client)
        assert plan(client) == DONE
        assert ways_of(server) == ["tools", "tools", "one tool", "schema"]


def test_a_method_that_has_worked_is_given_up_when_it_stops_working() -> None:
    replies = iter([STOP, CUT])
    with serving(lambda request: next(replies) if request.tools else SPELLED) as server:
        client = chat(server)
        assert (plan(client), plan(client), plan(client)) == (DONE, DONE, DONE)
        assert ways_of(server) == ["tools", "tools", "schema", "schema"]


def test_text_by_a_method_that_has_worked_is_asked_again_with_the_same_method_first() -> None:
    with serving([STOP, Reply("I would stop."), STOP]) as server:
        client = chat(server)
        assert (plan(client), plan(client)) == (DONE, DONE)
        assert ways_of(server) == ["tools", "tools", "tools"]


def test_a_model_that_never_chooses_is_asked_once_in_every_kind_of_way() -> None:
    with serving(lambda _: Reply("Hm.")) as server:
        with pytest.raises(Useless, match="0 tools were called"):
            plan(chat(server))
        assert ways_of(server) == ["tools", "schema", "object", "text"]


def test_values_out_of_bounds_are_no_fault_of_the_way() -> None:
    with serving(lambda _: TOO_FAST) as server:
        with pytest.raises(Useless, match="learning_rate"):
            plan(chat(server))
        assert ways_of(server) == ["tools", "tools"]


@pytest.mark.parametrize("way", ["one tool", "schema", "object", "text"])
def test_the_method_can_be_set(way: str) -> None:
    answer = call("choose", choice={"action": "stop", "reason": "done"}) if way == "one tool" else SPELLED
    with serving(lambda _: answer) as server:
        assert plan(chat(server, way=way)) == DONE
        assert ways_of(server) == [way]
    with serving(lambda _: Reply("Hm.")) as server:
        with pytest.raises(Useless):
            plan(chat(server, way=way))
        assert set(ways_of(server)) == {way}


def test_a_role_may_have_a_method_of_its_own() -> None:
    wanted = Llm.model_validate({"model": "m", "way": "tools", "judge": {"model": "j", "way": "schema"}})
    assert (wanted.of("planner").way, wanted.of("judge").way) == ("tools", "schema")
    assert Llm.model_validate(wanted.model_dump(mode="json")) == wanted
    with pytest.raises(ValueError, match="way\\n  Input should be"):
        Llm.model_validate({"model": "m", "way": "carrier pigeon"})


# --- calls in other shapes -----------------------------------------------------------------------

ARGUMENTS = {"reason": "content", "rows": "both", "rank": 8}
TRAINED = PlanTrainLora(reason="content", rows="both", rank=8)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"name": "train_lora", "arguments": ARGUMENTS}),
        json.dumps({"name": "train_lora", "arguments": json.dumps(ARGUMENTS)}),
        json.dumps({"name": "train_lora", "parameters": ARGUMENTS}),
        json.dumps({"name": "choose", "arguments": {"choice": {"action": "train_lora", **ARGUMENTS}}}),
        json.dumps({"name": "choose", "arguments": {"action": "train_lora", **ARGUMENTS}}),
        json.dumps({"type": "function", "function": {"name": "train_lora", "arguments": ARGUMENTS}}),
        json.dumps({"function": "train_lora", "arguments": ARGUMENTS}),
        "```json\n" + json.dumps({"name": "train_lora", "arguments": ARGUMENTS}, indent=1) + "\n```",
        "<tool_call>\n" + json.dumps({"name": "train_lora", "arguments": ARGUMENTS}) + "\n</tool_call>",
        json.dumps({"action": "train_lora", "learning_rate": None, **ARGUMENTS}),
    ],
)
def test_a_call_written_as_text_is_read(text: str) -> None:
    with serving([Reply(text)]) as server:
        assert plan(chat(server)) == TRAINED


def test_a_call_of_the_only_tool_written_as_text_is_read() -> None:
    with serving([Reply('{"name": "Grade", "arguments": {"reason": "So.", "grade": 4}}')]) as server:
        assert chat(server).call_tool("system", "user", [Grade]) == Grade(reason="So.", grade=4)


def test_arguments_that_are_an_object_and_no_text_are_read() -> None:
    def as_object(body: dict[str, Any]) -> None:
        body["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] = ARGUMENTS

    with serving([reshaped(call("train_lora"), as_object)]) as server:
        assert plan(chat(server)) == TRAINED
        assert len(server.requests) == 1


# --- thoughts ------------------------------------------------------------------------------------

THOUGHT = '{"action": "train_lora", "reason": "first thought", "rank": 256}'


@pytest.mark.parametrize(
    "text",
    [
        f"<think>\n{THOUGHT}\n</think>\n{WRITTEN}",
        f"{THOUGHT}\n</think>\n{WRITTEN}",
        f"<think>{THOUGHT}</think>" + '{"action": "stop", "reason": "done"}',
    ],
)
def test_a_plan_that_is_only_thought_of_is_none(text: str) -> None:
    with serving([Reply(text)]) as server:
        assert plan(chat(server)) == DONE


def test_a_grade_that_is_only_thought_of_is_none() -> None:
    replies = [Reply('<think>{"reason": "bad", "grade": 1}'), Reply('{"reason": "good", "grade": 5}')]
    with serving(replies) as server:
        assert chat(server).call_tool("system", "user", [grade_within(5)]).grade == 5


def test_words_come_without_thoughts_and_thoughts_alone_are_empty() -> None:
    with serving([Reply("<think>Rome?</think>\n\nParis"), Reply("Rome?</think>Paris")]) as server:
        client = chat(server)
        assert (client.complete("s", "u"), client.complete("s", "u")) == ("Paris", "Paris")
    with serving([Reply("<think>Rome? Or")]) as server, pytest.raises(Useless, match="empty answer after its thoughts"):
        chat(server).complete("s", "u")


# --- the server's messages ----------------------------------------------------------------------


def test_every_field_is_required_of_the_llm() -> None:
    for tool in as_tools([*ACTION_TOOLS, Grade]):
        schema = tool["function"]["parameters"]
        assert set(schema["required"]) == set(schema["properties"])
    for choice in as_schema(ACTION_TOOLS)["properties"]["choice"]["anyOf"]:
        assert set(choice["required"]) == set(choice["properties"]) and "action" in choice["required"]

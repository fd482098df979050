"""The LLM client against a real HTTP server that answers by script: texts, tools, the other ways, and the key."""

import traceback
from concurrent.futures import ThreadPoolExecutor

import pytest

from agent.config.llm import Llm
from agent.errors import LlmRefused, LlmUnavailable
from agent.policy.planner_tools import ACTION_TOOLS, PlanStop, PlanTrainLora
from tests.llm.clients import KEY, STOP, TOO_FAST, chat, refusal, retry
from tests.llm.server import Reply, Request, call, refuse, serving
from tools.llm.budget import LlmBudget, UnsavedCallLog
from tools.llm.client import LlmChat


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAYOR_KEY", KEY)


# --- text and tools ------------------------------------------------------------------------------


def test_text_comes_back_as_it_was_said() -> None:
    with serving([Reply("Begin with ANSWER.")]) as server:
        assert chat(server).complete("You judge.", "Judge this.") == "Begin with ANSWER."
        assert server.requests[0].body["messages"] == [
            {"role": "system", "content": "You judge."},
            {"role": "user", "content": "Judge this."},
        ]
        assert (server.requests[0].body["model"], server.requests[0].body["temperature"]) == ("judge-1", 0.0)


def test_a_tool_call_comes_back_as_its_record() -> None:
    with serving([call("train_lora", reason="content is lacking", rank=8)]) as server:
        plan = chat(server).call_tool("system", "user", ACTION_TOOLS)
        assert plan == PlanTrainLora(reason="content is lacking", rank=8)
        names = [tool["function"]["name"] for tool in server.requests[0].body["tools"]]
        assert names == ["train_lora", "edit_prompt", "rollback", "stop"]
        assert server.requests[0].body["tool_choice"] == "required"


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (TOO_FAST, "learning_rate: Input should be less than or equal to 0.01"),
        (call("rollback", reason="back", to_round=-1), "to_round: Input should be greater than or equal to 0"),
        (call("stop"), "reason: Field required"),
        (call("stop", reason="done", action="train_lora"), "action: Input should be 'stop'"),
        (call("DropTables", reason="ha"), "there is no tool 'DropTables'; there are train_lora"),
        (Reply("I would stop."), "0 tools were called"),
        (Reply(calls=(*STOP.calls, *STOP.calls)), "2 tools were called"),
        (Reply(calls=(("stop", "{reason: done"),)), "arguments were not JSON"),
    ],
)
def test_a_call_that_does_not_fit_is_asked_for_once_more_with_the_error(bad: Reply, problem: str) -> None:
    with serving([bad, STOP]) as server:
        assert chat(server).call_tool("system", "user", ACTION_TOOLS) == PlanStop(reason="done")
        assert problem in server.requests[1].said("user")


def test_a_second_call_that_does_not_fit_is_the_last() -> None:
    with serving([TOO_FAST, TOO_FAST, STOP]) as server:
        with pytest.raises(LlmUnavailable, match=r"judge-1 gave no usable answer: learning_rate: .* 0\.01"):
            chat(server).call_tool("system", "user", ACTION_TOOLS)
        assert len(server.requests) == 2


# --- other ways than tools -----------------------------------------------------------------------

NO_TOOLS = refuse(400, "tools are not supported by this model")
NO_SCHEMA = refuse(400, "response_format json_schema is not supported")
AS_JSON = Reply('Here you are: {"choice": {"action": "stop", "reason": "done"}}')


def test_a_server_without_tools_is_asked_by_a_json_schema_and_from_then_on_only_so() -> None:
    with serving([NO_TOOLS, NO_TOOLS, AS_JSON, AS_JSON]) as server:
        client = chat(server)
        assert client.call_tool("system", "user", ACTION_TOOLS) == PlanStop(reason="done")
        assert client.call_tool("system", "again", ACTION_TOOLS) == PlanStop(reason="done")
        first, named, *others = [request.body for request in server.requests]
    assert (first["tool_choice"], named["tool_choice"]["function"]["name"]) == ("required", "choose")
    assert not any("tools" in body for body in others)
    schema = others[0]["response_format"]["json_schema"]["schema"]
    choices = schema["properties"]["choice"]["anyOf"]
    assert [choice["properties"]["action"]["const"] for choice in choices] == [
        "train_lora", "edit_prompt", "rollback", "stop",
    ]  # fmt: skip
    assert choices[0]["properties"]["rank"]["maximum"] == 256


def test_a_server_without_schemas_is_asked_for_json_in_plain_words() -> None:
    with serving([NO_TOOLS, NO_TOOLS, NO_SCHEMA, NO_SCHEMA, AS_JSON]) as server:
        assert chat(server).call_tool("system", "user", ACTION_TOOLS) == PlanStop(reason="done")
        last = server.requests[-1]
    assert not {"tools", "response_format"} & set(last.body)
    assert '"maximum": 256' in last.said("system")


def test_a_server_that_takes_tools_and_calls_none_is_asked_by_a_schema_the_second_time() -> None:
    with serving([Reply("I would stop."), AS_JSON]) as server:
        assert chat(server).call_tool("system", "user", ACTION_TOOLS) == PlanStop(reason="done")
        assert "response_format" in server.requests[1].body and "tools" not in server.requests[1].body


def test_json_in_the_text_counts_where_tools_were_offered() -> None:
    with serving([Reply('{"action": "stop", "reason": "done"}')]) as server:
        assert chat(server).call_tool("system", "user", ACTION_TOOLS) == PlanStop(reason="done")


@pytest.mark.parametrize(
    "endless", [Reply('{"a":' + "[" * 100_000), Reply(calls=(("stop", "[" * 100_000),))], ids=["text", "arguments"]
)
def test_brackets_without_end_are_asked_for_once_more(endless: Reply) -> None:
    with serving([endless, AS_JSON]) as server:
        assert chat(server).call_tool("system", "user", ACTION_TOOLS) == PlanStop(reason="done")


def test_a_request_that_no_way_mends_is_asked_once_in_each() -> None:
    with serving(lambda _: refuse(400, "no such thing")) as server:
        with pytest.raises(LlmUnavailable, match="no such thing"):
            chat(server, patience=60).call_tool("system", "user", ACTION_TOOLS)
        assert len(server.requests) == 5


def test_the_limit_of_an_answer_goes_by_the_name_that_the_server_knows() -> None:
    newer_only = "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead."

    def answer(request: Request) -> Reply:
        return refuse(400, newer_only) if "max_tokens" in request.body else Reply("hi")

    with serving(answer) as server:
        client = chat(server)
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(lambda place: client.complete("system", str(place)), range(8))) == {"hi"}
        assert client.complete("system", "user") == "hi"
        assert server.requests[-1].body["max_completion_tokens"] == 20


def test_values_out_of_bounds_are_refused_in_json_too() -> None:
    hasty = Reply('{"choice": {"action": "train_lora", "reason": "hurry", "rank": 4096}}')
    with serving([hasty, AS_JSON]) as server:
        assert chat(server).call_tool("system", "user", ACTION_TOOLS) == PlanStop(reason="done")
        assert "rank: Input should be less than or equal to 256" in server.requests[1].said("user")


def test_a_server_that_breaks_on_tools_is_asked_in_another_way_without_a_wait() -> None:
    with serving([refuse(500), Reply(calls=(("choose", {"choice": {"action": "stop", "reason": "done"}}),))]) as server:
        client = chat(server, patience=3600)
        assert client.call_tool("system", "user", ACTION_TOOLS) == PlanStop(reason="done")
        assert client.method == "one tool"


def test_a_server_that_is_overloaded_at_the_first_question_is_waited_for() -> None:
    with serving([refuse(503), refuse(429, retry_after="0"), STOP]) as server:
        client = chat(server, patience=60)
        assert client.call_tool("system", "user", ACTION_TOOLS) == PlanStop(reason="done")
        assert client.method == "tools"


def test_a_server_that_is_broken_altogether_is_waited_for_as_any_other() -> None:
    with serving(lambda _: refuse(500) if len(server.requests) <= 6 else STOP) as server:
        client = chat(server, patience=60)
        assert client.call_tool("system", "user", ACTION_TOOLS) == PlanStop(reason="done")
        assert client.method == "tools"


# --- the key -------------------------------------------------------------------------------------


def test_a_key_is_sent_without_the_line_end_of_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAYOR_KEY", f"{KEY}\n")
    with serving([Reply("hi")]) as server:
        chat(server).complete("system", "user")
        assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_what_can_be_no_key_is_refused_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAYOR_KEY", "sk-ключ")
    with serving([]) as server:
        error = refusal(chat(server))
        assert isinstance(error, LlmRefused) and "MAYOR_KEY" in str(error) and server.requests == []


def test_the_key_of_the_named_variable_is_sent() -> None:
    with serving([Reply("hi")]) as server:
        chat(server).complete("system", "user")
        assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
        assert KEY not in server.requests[0].text


@pytest.mark.parametrize("status", [401, 403, 500])
def test_no_error_shows_the_key_even_where_the_server_quotes_it(status: int) -> None:
    with serving([refuse(status, f"Incorrect API key provided: {KEY}")]) as server:
        error = refusal(chat(server))
    assert KEY not in "".join(traceback.format_exception(error))


def test_without_a_key_the_variable_is_named_and_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MAYOR_KEY")
    wanted = Llm(model="judge-1", key_variable="MAYOR_KEY")
    client = LlmChat(wanted, "planner", LlmBudget(UnsavedCallLog()), retry(wanted))
    assert "no key: set the environment variable MAYOR_KEY" in str(refusal(client))


def test_a_server_of_ones_own_needs_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MAYOR_KEY")
    with serving([Reply("hi")]) as server:
        assert chat(server).complete("system", "user") == "hi"

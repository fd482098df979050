"""The LLM client against a real HTTP server that answers by script, and misbehaves by script."""

import traceback
from typing import Any

import pytest

from agent.config import Llm
from agent.errors import LlmUnavailable
from agent.planner import TOOLS, PlanStop, PlanTrainLora
from tests.llm_server import NO_CHOICES, NOT_JSON, LlmServer, Reply, call, refuse, serving
from tools.llm import LlmChat

KEY = "sk-very-secret-0123456789"
STOP = call("PlanStop", reason="done")
TOO_FAST = call("PlanTrainLora", reason="hurry", learning_rate=5)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAYOR_KEY", KEY)


def chat(server: LlmServer, usd_left: float | None = None, **changes: Any) -> LlmChat:
    """A client that does not try again, at 1 USD for a million tokens read and 10 for a million written."""
    prices = {"usd_per_million_input": 1, "usd_per_million_output": 10}
    settings = {"model": "judge-1", "base_url": server.url, "key_variable": "MAYOR_KEY", "retries": 0} | prices
    return LlmChat(Llm.model_validate(settings | changes), usd_left)


def refusal(client: LlmChat) -> LlmUnavailable:
    with pytest.raises(LlmUnavailable) as caught:
        client.complete("system", "user")
    return caught.value


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
    with serving([call("PlanTrainLora", reason="content is lacking", rank=8)]) as server:
        plan = chat(server).call_tool("system", "user", TOOLS)
        assert plan == PlanTrainLora(reason="content is lacking", rank=8)
        assert [tool["function"]["name"] for tool in server.requests[0].body["tools"]] == [t.__name__ for t in TOOLS]
        assert server.requests[0].body["tool_choice"] == "required"


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (TOO_FAST, "learning_rate: Input should be less than or equal to 0.01"),
        (call("PlanRollback", reason="back", to_round=-1), "to_round: Input should be greater than or equal to 0"),
        (call("PlanStop"), "reason: Field required"),
        (call("PlanStop", reason="done", action="train_lora"), "action: Input should be 'stop'"),
        (call("DropTables", reason="ha"), "there is no tool 'DropTables'; there are PlanTrainLora"),
        (Reply("I would stop."), "0 tools were called"),
        (Reply(calls=(*STOP.calls, *STOP.calls)), "2 tools were called"),
        (Reply(calls=(("PlanStop", "{reason: done"),)), "arguments were not JSON"),
    ],
)
def test_a_call_that_does_not_fit_is_asked_for_once_more_with_the_error(bad: Reply, problem: str) -> None:
    with serving([bad, STOP]) as server:
        assert chat(server).call_tool("system", "user", TOOLS) == PlanStop(reason="done")
        assert problem in server.requests[1].said("user")


def test_a_second_call_that_does_not_fit_is_the_last() -> None:
    with serving([TOO_FAST, TOO_FAST, STOP]) as server:
        with pytest.raises(LlmUnavailable, match=r"judge-1 gave no usable plan: learning_rate: .* 0\.01"):
            chat(server).call_tool("system", "user", TOOLS)
        assert len(server.requests) == 2


# --- what it costs -------------------------------------------------------------------------------


def test_spend_is_what_the_server_reported_unusable_answers_included() -> None:
    with serving([Reply("hi", usage=(1000, 20)), TOO_FAST, STOP]) as server:
        client = chat(server)
        client.complete("system", "user")
        client.call_tool("system", "user", TOOLS)
        into, out = server.reported
        assert (into, out) == (1200, 40)
        assert client.spend.llm_tokens == into + out
        assert client.spend.usd == pytest.approx((into * 1 + out * 10) / 1e6)


def test_a_server_that_reports_no_usage_costs_nothing() -> None:
    with serving([Reply("hi", usage=None)]) as server:
        client = chat(server)
        client.complete("system", "user")
        assert (client.spend.llm_tokens, client.spend.usd) == (0, 0.0)


@pytest.mark.parametrize(("usd_left", "calls"), [(0.0, 0), (-1.0, 0), (0.0002, 1), (0.0003, 2)])
def test_no_call_goes_out_when_the_money_is_used_up(usd_left: float, calls: int) -> None:
    with serving(lambda _: Reply("hi", usage=(200, 0))) as server:
        client = chat(server, usd_left)
        for _ in range(calls):
            client.complete("system", "user")
        assert "money" in str(refusal(client))
        assert len(server.requests) == calls


def test_no_second_try_of_a_call_goes_out_when_the_money_is_used_up() -> None:
    with serving([TOO_FAST, STOP]) as server:
        with pytest.raises(LlmUnavailable, match="money"):
            chat(server, usd_left=0.0001).call_tool("system", "user", TOOLS)
        assert len(server.requests) == 1


# --- when the server misbehaves ------------------------------------------------------------------


def test_429_waits_as_long_as_the_server_asks() -> None:
    with serving([refuse(429, retry_after="1"), Reply("hi")]) as server:
        assert chat(server, retries=1).complete("system", "user") == "hi"
        assert server.requests[1].at - server.requests[0].at >= 1


def test_500_is_tried_again_only_so_often() -> None:
    with serving(lambda _: refuse(500)) as server:
        assert "judge-1 did not answer (HTTP 500)" in str(refusal(chat(server, retries=1)))
        assert len(server.requests) == 2


def test_401_is_not_tried_again_and_names_the_variable() -> None:
    with serving(lambda _: refuse(401)) as server:
        assert "MAYOR_KEY" in str(refusal(chat(server, retries=5)))
        assert len(server.requests) == 1


@pytest.mark.parametrize("body", [NO_CHOICES, NOT_JSON, *(Reply(body=text) for text in ("null", "[]", "{}", '"x"'))])
def test_a_body_that_is_no_completion_is_no_answer(body: Reply) -> None:
    with serving([body]) as server:
        assert "judge-1 sent what is no chat completion" in str(refusal(chat(server)))


def test_an_empty_answer_is_no_answer() -> None:
    with serving([Reply(" \n")]) as server:
        assert "empty" in str(refusal(chat(server)))


def test_an_answer_that_takes_too_long_is_no_answer() -> None:
    with serving([Reply("hi", delay=1)]) as server:
        assert "judge-1 did not answer" in str(refusal(chat(server, timeout=0.2)))


def test_a_server_that_is_not_there_is_no_answer() -> None:
    with serving([]) as server:
        client = chat(server)
    server.server_close()
    assert "judge-1 did not answer" in str(refusal(client))


# --- the key -------------------------------------------------------------------------------------


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
    settings = Llm(model="judge-1", key_variable="MAYOR_KEY")
    monkeypatch.delenv("MAYOR_KEY")
    assert "no key: set the environment variable MAYOR_KEY" in str(refusal(LlmChat(settings)))


def test_a_server_of_ones_own_needs_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MAYOR_KEY")
    with serving([Reply("hi")]) as server:
        assert chat(server).complete("system", "user") == "hi"

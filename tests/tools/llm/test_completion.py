"""Servers that are almost like OpenAI's, over real HTTP: their counts, their errors, and the settings they refuse."""

from typing import Any

import pytest

from agent.errors import LlmRefused, LlmUnavailable, TooLong
from agent.policy.planner_tools import ACTION_TOOLS, PlanStop
from tests.llm.clients import KEY, STOP, chat, refusal
from tests.llm.forward_proxy import HOST, forward_proxy
from tests.llm.server import Reply, Request, in_body, refuse, reshaped, serving
from tools.llm.budget import LlmBudget, UnsavedCallLog
from tools.llm.retry import ServerRetry


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAYOR_KEY", KEY)


# --- counts --------------------------------------------------------------------------------------


def usage(counts: dict[str, Any] | None) -> Reply:
    def change(body: dict[str, Any]) -> None:
        body["usage"] = counts

    return reshaped(Reply("hi"), change)


@pytest.mark.parametrize(
    ("counts", "into", "out"),
    [
        ({"prompt_tokens": None, "completion_tokens": None, "total_tokens": None}, None, 20),
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, None, 20),
        ({"prompt_tokens": -5, "completion_tokens": -1, "total_tokens": -6}, None, 20),
        ({"prompt_tokens": 7, "completion_tokens": None, "total_tokens": 7}, 7, 20),
        ({"completion_tokens": 3}, None, 3),
        ({}, None, 20),
        (None, None, 20),
    ],
)
def test_counts_that_are_null_zero_or_left_out_are_charged_at_their_most(
    counts: dict[str, Any] | None, into: int | None, out: int
) -> None:
    book = UnsavedCallLog()
    with serving([usage(counts)]) as server:
        budget = LlmBudget(book)
        assert chat(server, budget).complete("s" * 1000, "u" * 1000) == "hi"
    used = budget.usage["planner"]
    assert used.output_tokens == out
    assert used.input_tokens == into if into else 2000 <= used.input_tokens <= 2200
    assert book[-1].settled and "reports no usage" in book[-1].fault


# --- errors in the body --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        {"code": 503, "message": "no instance is free"},
        {"code": "503", "message": "no instance is free"},
        {"type": "overloaded_error", "message": "Overloaded"},
        {"type": "rate_limit_exceeded", "code": None, "message": "slow down"},
        {"message": "something went wrong"},
        "the model has crashed",
    ],
)
def test_an_error_in_the_body_that_may_pass_is_waited_out(error: Any) -> None:
    budget = LlmBudget(UnsavedCallLog())
    with serving([in_body(error), Reply("hi", usage=(7, 2))]) as server:
        assert chat(server, budget, patience=60).complete("system", "user") == "hi"
        assert len(server.requests) == 2
    assert budget.spend.llm_tokens == 9, "what was refused costs nothing"


@pytest.mark.parametrize(
    "error",
    [
        {"code": 401, "message": "No auth credentials found"},
        {"code": "invalid_api_key", "message": "No auth credentials found"},
        {"type": "authentication_error", "message": "No auth credentials found"},
    ],
)
def test_a_refused_key_in_the_body_is_the_last_that_is_asked(error: Any) -> None:
    with serving([in_body(error, choices=None), Reply("hi")]) as server:
        client = chat(server, patience=60)
        first, second = refusal(client), refusal(client)
        assert isinstance(first, LlmRefused) and isinstance(second, LlmRefused)
        assert "No auth credentials found" in str(first) and "MAYOR_KEY" in str(first)
        assert len(server.requests) == 1


def test_an_error_in_the_body_is_quoted_without_the_key() -> None:
    with serving([in_body({"code": 404, "message": f"no model judge-1 for {KEY}"})]) as server:
        message = str(refusal(chat(server)))
    assert "no model judge-1 for [key]" in message and KEY not in message


def test_a_request_too_long_for_the_window_may_be_reported_in_the_body() -> None:
    with serving([in_body({"code": 400, "message": "maximum context length is 4096 tokens"})]) as server:
        assert isinstance(refusal(chat(server)), TooLong)


def test_an_answer_that_ended_in_an_error_may_have_cost() -> None:
    def broken_off(body: dict[str, Any]) -> None:
        body["choices"][0] |= {"finish_reason": "error", "error": {"code": 502, "message": "provider gone"}}

    budget = LlmBudget(UnsavedCallLog())
    with serving([reshaped(Reply("Par"), broken_off)]) as server:
        assert "provider gone" in str(refusal(chat(server, budget)))
    assert budget.usage["planner"].output_tokens == 20


# --- settings that are refused -------------------------------------------------------------------

OPENAI = refuse(400, "Unsupported value: 'temperature' does not support 0.0 with this model.", "unsupported_value")
STRICT = Reply(
    status=422,
    usage=None,
    body='{"detail": [{"loc": ["body", "temperature"], "msg": "Extra inputs are not permitted"}]}',
)


@pytest.mark.parametrize("refusing", [OPENAI, STRICT], ids=["OpenAI", "strict"])
def test_a_model_that_refuses_the_temperature_is_asked_without_it_from_then_on(refusing: Reply) -> None:
    def answer(request: Request) -> Reply:
        return refusing if "temperature" in request.body else Reply("hi")

    budget = LlmBudget(UnsavedCallLog())
    with serving(answer) as server:
        client = chat(server, budget)
        assert client.complete("system", "user") == "hi" == client.complete("system", "again")
        assert ["temperature" in request.body for request in server.requests] == [True, False, False]
        assert client.refused == ("temperature",)
    assert budget.spend.llm_tokens == 220


def test_temperature_and_the_name_of_the_limit_may_both_be_refused_and_tools_stay() -> None:
    def answer(request: Request) -> Reply:
        if "max_tokens" in request.body:
            return refuse(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        return OPENAI if "temperature" in request.body else STOP

    with serving(answer) as server:
        client = chat(server)
        assert client.call_tool("system", "user", ACTION_TOOLS) == PlanStop(reason="done")
        assert (client.method, len(server.requests)) == ("tools", 3)


def test_a_server_that_refuses_a_limit_by_any_name_is_not_asked_without_one() -> None:
    with serving(lambda _: refuse(400, "max_tokens and max_completion_tokens must be 8 at most")) as server:
        assert "must be 8 at most" in str(refusal(chat(server)))
        assert all({"max_tokens", "max_completion_tokens"} & set(request.body) for request in server.requests)
        assert len(server.requests) <= 2


# --- waits that are asked for --------------------------------------------------------------------


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits that were begun; none is waited for."""
    begun: list[float] = []

    async def note(_: ServerRetry, wait: float, error: LlmUnavailable) -> None:
        begun.append(wait)

    monkeypatch.setattr(ServerRetry, "_sleep", note)
    return begun


@pytest.mark.parametrize("asked", [121, 1800])
def test_a_long_wait_that_the_server_asks_for_is_taken_within_patience(asked: int, waits: list[float]) -> None:
    """The openai package itself does not try again beyond 120 seconds; ours does."""
    with serving([refuse(429, retry_after=str(asked)), Reply("hi")]) as server:
        assert chat(server, patience=3600).complete("system", "user") == "hi"
    [wait] = waits
    assert asked <= wait <= asked + 1


@pytest.mark.parametrize("asked", ["nan", "inf", "soon"])
def test_a_wait_that_is_none_is_as_if_none_were_asked_for(asked: str, waits: list[float]) -> None:
    with serving([refuse(429, retry_after=asked), Reply("hi")]) as server:
        assert chat(server, patience=60).complete("system", "user") == "hi"
    assert 0.5 < waits[0] < 1.5


# --- proxies -------------------------------------------------------------------------------------


def test_only_a_server_elsewhere_is_asked_through_the_environments_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving([Reply("near"), Reply("far")]) as server, forward_proxy(server.url) as proxy:
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("OPENAI_PROXY", proxy.url)
        assert chat(server).complete("system", "user") == "near"
        assert proxy.asked == []
        monkeypatch.delenv("OPENAI_PROXY")
        assert chat(server, base_url=f"http://{HOST}/v1").complete("system", "user") == "far"
        assert proxy.asked == [f"http://{HOST}/v1/chat/completions"]


def test_a_proxy_that_cannot_be_used_is_said_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving([]) as server:
        monkeypatch.setenv("ALL_PROXY", "gopher://user:sesame@10.0.0.1:8080")
        with pytest.raises(LlmRefused, match="look at HTTPS_PROXY, HTTP_PROXY, ALL_PROXY") as error:
            chat(server, base_url="http://elsewhere.example/v1").complete("system", "user")  # kept by address
        assert "sesame" not in str(error.value)


def test_that_a_local_server_is_asked_past_the_proxy_is_no_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with serving([Reply("near")]) as server:
        monkeypatch.setenv("HTTPS_PROXY", "http://10.0.0.1:8080")
        assert chat(server).complete("system", "user") == "near"
    assert not [record for record in caplog.records if "proxy" in record.getMessage()]

"""The scripted server, as the openai package sees it: what it says when all is well, and each of its faults."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from pydantic import BaseModel

from tests.llm.server import (
    BAD_KEY,
    BROKEN,
    CONTEXT_EXCEEDED,
    CUT_OFF,
    EMPTY,
    NO_CHOICES,
    NO_CREDIT,
    NO_TOOLS,
    NOT_JSON,
    OVERLOADED,
    RESET,
    TEN_TIMES,
    TOO_MANY,
    UNFINISHED,
    UNPAID,
    LlmServer,
    Reply,
    Request,
    by_length,
    call,
    down,
    serving,
    windowed,
    without_tools,
)

HELLO: list[Any] = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello? Grüße!"}]
TOOL: Any = {
    "type": "function",
    "function": {"name": "stop", "parameters": {"type": "object", "properties": {"reason": {"type": "string"}}}},
}


class Town(BaseModel):
    name: str
    mayors: int


def client(server: LlmServer, retries: int = 0, seconds: float = 5) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url, api_key="none", max_retries=retries, timeout=seconds)


def ask(server: LlmServer, retries: int = 0, seconds: float = 5, **options: Any) -> Any:
    return client(server, retries, seconds).chat.completions.create(model="m", messages=HELLO, **options)


# --- when all is well ----------------------------------------------------------------------------


def test_a_text_with_its_usage() -> None:
    with serving([Reply("Grüße!", usage=(7, 3))]) as server:
        answer = ask(server)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("Grüße!", "stop")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (7, 3, 10)


def test_tool_calls() -> None:
    with serving([Reply(calls=(("stop", {"reason": "done"}), ("stop", "{broken")))]) as server:
        choice = ask(server, tools=[TOOL], tool_choice="required").choices[0]
        assert server.requests[0].tools == {"stop": TOOL["function"]["parameters"]}
    calls = [(called.function.name, called.function.arguments) for called in choice.message.tool_calls]
    assert calls == [("stop", '{"reason": "done"}'), ("stop", "{broken")] and choice.finish_reason == "tool_calls"


def test_structured_output() -> None:
    with serving([Reply('{"name": "Tallisk", "mayors": 1}')]) as server:
        answer = client(server).chat.completions.parse(model="m", messages=HELLO, response_format=Town)
        assert server.requests[0].schema["properties"]["mayors"]["type"] == "integer"
    assert answer.choices[0].message.parsed == Town(name="Tallisk", mayors=1)


@pytest.mark.parametrize("counted", [True, False])
def test_a_streamed_text_comes_in_pieces_and_with_its_usage_where_that_is_asked_for(counted: bool) -> None:
    text = "Grüße! " * 9
    with serving([Reply(text, usage=(7, 3))]) as server:
        chunks = list(ask(server, stream=True, stream_options={"include_usage": counted}))
    deltas = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(deltas) == text and len([delta for delta in deltas if delta]) > 2
    assert [chunk.usage.total_tokens for chunk in chunks if chunk.usage] == ([10] if counted else [])
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"


def test_streamed_tool_calls() -> None:
    with (
        serving([Reply(calls=(("stop", {"reason": "all is done by now"}), ("stop", {"reason": "so"})))]) as server,
        client(server).chat.completions.stream(model="m", messages=HELLO, tools=[TOOL]) as stream,
    ):
        kinds = [event.type for event in stream]
        calls = stream.get_final_completion().choices[0].message.tool_calls or []
    assert [call.function.arguments for call in calls] == ['{"reason": "all is done by now"}', '{"reason": "so"}']
    assert kinds.count("tool_calls.function.arguments.delta") > 2


def test_the_models_are_listed() -> None:
    with serving([]) as server:
        assert [model.id for model in client(server).models.list()] == ["scripted"]
        assert server.requests == []


# --- what it keeps and counts --------------------------------------------------------------------


def test_tokens_by_length_grow_with_what_is_read_and_written_within_what_the_request_allows() -> None:
    with serving(lambda _: Reply("word" * 10, usage=by_length)) as server:
        plain, tooled, capped = ask(server), ask(server, tools=[TOOL]), ask(server, max_tokens=4)
    assert (plain.usage.completion_tokens, capped.usage.completion_tokens) == (10, 4)
    assert tooled.usage.prompt_tokens > plain.usage.prompt_tokens > len(HELLO[1]["content"]) / 4


def test_the_bill_is_the_reported_usage_at_the_price_of_a_million() -> None:
    with serving([Reply("a", usage=(1000, 20)), BROKEN, Reply("b", usage=(3000, 80))]) as server:
        usages = [ask(server).usage, ask(server, retries=1).usage]
        assert server.reported == (
            sum(usage.prompt_tokens for usage in usages),
            sum(usage.completion_tokens for usage in usages),
        )
        assert server.billed(1, 10) == pytest.approx(0.005)
        assert server.billed(1, 10, lambda request: request is server.requests[-1]) == pytest.approx(0.0038)


def test_a_burst_is_answered_at_once_and_its_width_is_known(hold: Callable[[LlmServer, int], None]) -> None:
    with serving(lambda _: Reply("hi")) as server, ThreadPoolExecutor(24) as pool:
        hold(server, 24)
        asked = client(server, seconds=60)
        list(pool.map(lambda _: asked.chat.completions.create(model="m", messages=HELLO), range(24)))
        assert server.busiest == 24


# --- when it misbehaves --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "error", "code"),
    [
        (TOO_MANY, openai.RateLimitError, "rate_limit_exceeded"),
        (NO_CREDIT, openai.RateLimitError, "insufficient_quota"),
        (UNPAID, openai.APIStatusError, "insufficient_quota"),
        (BAD_KEY, openai.AuthenticationError, "invalid_api_key"),
        (BROKEN, openai.InternalServerError, "server_error"),
        (OVERLOADED, openai.InternalServerError, "server_error"),
        (CONTEXT_EXCEEDED, openai.BadRequestError, "context_length_exceeded"),
        (NO_TOOLS, openai.BadRequestError, None),
    ],
)
def test_errors_have_openais_shape(fault: Reply, error: type[openai.APIStatusError], code: str | None) -> None:
    with serving([fault]) as server, pytest.raises(error) as caught:
        ask(server)
    assert (caught.value.status_code, caught.value.code) == (fault.status, code)
    assert str(caught.value.body["message"]) in str(fault.body)  # type: ignore[index]


def test_too_many_requests_may_come_again_after_a_second() -> None:
    with serving([TOO_MANY, Reply("hi")]) as server:
        assert ask(server, retries=1).choices[0].message.content == "hi"
        assert server.requests[1].at - server.requests[0].at >= 1


@pytest.mark.parametrize("fault", [CUT_OFF, RESET])
def test_a_lost_connection_is_a_connection_error_and_temporary(fault: Reply) -> None:
    with serving([fault, fault, Reply("hi")]) as server:
        with pytest.raises(openai.APIConnectionError):
            ask(server)
        assert ask(server, retries=1).choices[0].message.content == "hi"


def test_a_reset_comes_before_any_answer_and_a_cut_in_the_middle_of_one() -> None:
    with serving([RESET, CUT_OFF]) as server:
        causes = []
        for _ in range(2):
            with pytest.raises(openai.APIConnectionError) as caught:
                ask(server)
            causes.append(repr(caught.value.__cause__))
    assert "Connection reset by peer" in causes[0] and "without sending complete message body" in causes[1]


def test_a_stream_may_be_cut_off_too() -> None:
    with serving([Reply("Grüße! " * 9, ends="half")]) as server:
        stream = iter(ask(server, stream=True))
        assert next(stream).choices
        with pytest.raises(httpx.RemoteProtocolError):
            list(stream)


@pytest.mark.parametrize("slow", [Reply("hi", delay=1), Reply("hi", drip=0.3)])
def test_slow_is_a_late_beginning_or_a_trickle_that_no_timeout_of_a_single_read_ends(slow: Reply) -> None:
    with serving([slow, slow]) as server:
        if slow.delay:
            with pytest.raises(openai.APITimeoutError):
                ask(server, seconds=0.5)
        else:
            began = time.monotonic()
            assert ask(server, seconds=2).choices[0].message.content == "hi"
            assert time.monotonic() - began > 2


def test_answers_of_no_use() -> None:
    with serving([NO_CHOICES, EMPTY, UNFINISHED, TEN_TIMES, NOT_JSON]) as server:
        assert ask(server).choices == []
        assert ask(server).choices[0].message.content is None
        assert ask(server).choices[0].finish_reason == "length"
        assert len(ask(server).choices[0].message.content) > 10 * 6000
        with pytest.raises(ValueError):
            ask(server)


# --- rules -----------------------------------------------------------------------------------------


def hi(_: Request) -> Reply:
    return Reply("hi")


def statuses(server: LlmServer, count: int) -> list[int]:
    seen = []
    for _ in range(count):
        try:
            ask(server)
            seen.append(200)
        except openai.APIStatusError as error:
            seen.append(error.status_code)
    return seen


def test_down_for_so_many_calls() -> None:
    with serving(down(hi, calls=2, fault=BROKEN)) as server:
        assert statuses(server, 4) == [500, 500, 200, 200]


def test_down_for_a_while() -> None:
    rule = down(hi, seconds=0.5)
    assert [rule(Request({}, {}, at)).status for at in (7.0, 7.4, 7.6)] == [503, 503, 200]


def test_a_small_window_and_a_server_without_tools() -> None:
    with serving(windowed(without_tools(hi), tokens=50)) as server:
        assert ask(server).choices[0].message.content == "hi"
        with pytest.raises(openai.BadRequestError, match="not supported"):
            ask(server, tools=[TOOL | {"function": {"name": "f"}}])
        with pytest.raises(openai.BadRequestError, match="maximum context length"):
            client(server).chat.completions.create(model="m", messages=[HELLO[0] | {"content": "word" * 60}])


def test_a_script_that_is_over_is_an_error_of_the_tests() -> None:
    with serving([call("stop")]) as server:
        assert statuses(server, 2) == [200, 400]


# --- for a person ----------------------------------------------------------------------------------


def test_it_serves_a_process_of_its_own_until_it_is_stopped_and_says_what_it_cost() -> None:
    command = [sys.executable, "-m", "tests.llm.server", "--price", "1", "10"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as process:
        url = (process.stdout.readline() if process.stdout else "").split()[0]
        usage = openai.OpenAI(base_url=url, api_key="none").chat.completions.create(model="m", messages=HELLO).usage
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=10)
    assert usage is not None
    usd = (usage.prompt_tokens + 10 * usage.completion_tokens) / 1e6
    assert f"requests 1, tokens in {usage.prompt_tokens}, out {usage.completion_tokens}, USD {usd:.6f}" in output
    assert f"editor: USD {usd:.6f}" in output and process.returncode == 0

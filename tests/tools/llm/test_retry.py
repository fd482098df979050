"""Many calls at once, and a real HTTP server that misbehaves by script."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.errors import LlmRefused, TooLong
from tests.llm.clients import KEY, chat, ending, refusal, retry, settings
from tests.llm.server import CUT_OFF, NO_CHOICES, NOT_JSON, RESET, LlmServer, Reply, Request, refuse, serving
from tools.llm.budget import LlmBudget, UnsavedCallLog
from tools.llm.client import LlmChat


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    """A process's first call imports its library, which takes longer than some of these tests give a call."""
    with serving([Reply("hi")]) as server:
        chat(server).complete("system", "user")


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAYOR_KEY", KEY)


# --- many at once --------------------------------------------------------------------------------


def test_many_threads_that_are_the_first_to_ask_share_connections_and_pay_once() -> None:
    """In a process of its own, where nobody has asked before."""
    code = """
from concurrent.futures import ThreadPoolExecutor
from agent.config.llm import Llm
from tests.llm.server import Reply, serving
from tools.llm.client import standalone_chat
with serving(lambda _: Reply("hi", usage=(10, 1), delay=0.01)) as server:
    client = standalone_chat(Llm(model="m", base_url=server.url, patience=0), "judge")
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda place: client.complete("system", str(place)), range(200)))
    assert len(server.requests) == 200 and client._budget.spend.llm_tokens == 2200
"""
    root = Path(__file__).parents[3]
    ended = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_an_interrupt_does_not_wait_for_calls_that_wait() -> None:
    asked_again = threading.Event()

    def away(_: Request) -> Reply:
        if len(server.requests) > 4:
            asked_again.set()
        return refuse(503)

    with serving(away) as server:
        client = chat(server, patience=60)
        with ThreadPoolExecutor(4) as pool:
            out = [pool.submit(client.complete, "system", str(place)) for place in range(4)]
            assert asked_again.wait(30)
            began = time.monotonic()
            client.abandon()
        assert time.monotonic() - began < 20
        assert all(isinstance(future.exception(), CancelledError) for future in out)


@pytest.mark.parametrize("width", [16, 4])
def test_as_many_calls_as_the_width_are_out_at_once_and_no_more(
    width: int, hold: Callable[[LlmServer, int], None]
) -> None:
    with serving(lambda _: Reply("hi", delay=0.3)) as server:  # time for one too many to come
        hold(server, width)
        client = chat(server, max_concurrency=width)
        with ThreadPoolExecutor(20) as pool:
            list(pool.map(lambda place: client.complete("system", str(place)), range(20)))
        assert server.busiest == width


# --- when the server misbehaves ------------------------------------------------------------------


def test_429_waits_as_long_as_the_server_asks() -> None:
    with serving([refuse(429, retry_after="2"), Reply("hi")]) as server:  # unasked, it would wait about 1 s
        assert chat(server, patience=60).complete("system", "user") == "hi"
        assert server.requests[1].at - server.requests[0].at >= 2


def test_a_wait_longer_than_patience_is_not_begun() -> None:
    with serving(lambda _: refuse(429, retry_after="600")) as server:
        began = time.monotonic()
        assert "HTTP 429" in str(refusal(chat(server, patience=60)))
        assert time.monotonic() - began < 30 and len(server.requests) == 1


def test_a_wait_that_would_pass_the_end_of_the_run_is_not_begun() -> None:
    with serving(lambda _: refuse(429, retry_after="60")) as server:
        assert "HTTP 429" in str(refusal(ending(server, 30)))
        assert len(server.requests) == 1


def test_an_answer_is_not_waited_for_beyond_the_end_of_the_run_and_then_nothing_is_asked() -> None:
    with serving(lambda _: Reply("hi", delay=30)) as server:
        client = ending(server, 5, timeout=60)
        assert "minutes are used up" in str(refusal(client))
        assert "minutes are used up" in str(refusal(client))
        assert len(server.requests) == 1


def test_long_waits_are_told_once() -> None:
    told: list[str] = []
    with serving(lambda request: refuse(429, retry_after="2") if len(server.requests) <= 4 else Reply("hi")) as server:
        wanted = settings(server, patience=60)
        client = LlmChat(wanted, "planner", LlmBudget(UnsavedCallLog()), retry(wanted, told=told))
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda place: client.complete("system", str(place)), range(4)))
    assert len(told) == 1 and told[0].startswith("Waiting") and "HTTP 429" in told[0]


def test_500_is_tried_again_within_patience_and_then_only_once_a_call_until_it_answers() -> None:
    with serving(lambda _: refuse(500) if len(server.requests) < 4 else Reply("hi")) as server:
        client = chat(server, patience=1.5)
        assert "judge-1 did not answer (HTTP 500" in str(refusal(client))
        assert len(server.requests) == 2  # waits of 1 and 2 seconds: the second would pass patience
        assert "HTTP 500" in str(refusal(client))
        assert len(server.requests) == 3
        assert client.complete("system", "user") == "hi"


@pytest.mark.parametrize(
    "refused",
    [refuse(401), refuse(403), refuse(402), refuse(429, code="insufficient_quota")],
    ids=["401", "403", "402", "no credit"],
)
def test_a_refusal_is_the_last_thing_that_is_asked_and_told_once(refused: Reply) -> None:
    told: list[str] = []
    with serving(lambda _: refused) as server:
        wanted = settings(server, patience=60)
        shared, budget = retry(wanted, told=told), LlmBudget(UnsavedCallLog())
        clients = [LlmChat(wanted, "planner", budget, shared), LlmChat(wanted, "editor", budget, shared)]
        for client in clients * 2:
            assert isinstance(refusal(client), LlmRefused)
        assert len(server.requests) == 1
    assert len(told) == 1 and "not asked any more" in told[0]


def test_401_names_the_variable() -> None:
    with serving(lambda _: refuse(401)) as server:
        assert "MAYOR_KEY" in str(refusal(chat(server)))


@pytest.mark.parametrize(
    "reply",
    [
        refuse(400, "This model's maximum context length is 8192 tokens.", code="context_length_exceeded"),
        refuse(400, "the request exceeds the available context size, try increasing it"),
        refuse(400, "The input token count (9000) exceeds the maximum number of tokens allowed (4096)."),
        refuse(413, "too large"),
    ],
)
def test_what_is_too_long_is_told_apart(reply: Reply) -> None:
    with serving([reply]) as server:
        assert isinstance(refusal(chat(server, patience=60)), TooLong)


@pytest.mark.parametrize("body", [NO_CHOICES, NOT_JSON, *(Reply(body=text) for text in ("null", "[]", "{}", '"x"'))])
def test_a_body_that_is_no_completion_is_no_answer(body: Reply) -> None:
    with serving([body]) as server:
        assert "judge-1 sent something that is no chat completion" in str(refusal(chat(server)))


def test_an_answer_that_cannot_be_read_may_have_cost_its_most() -> None:
    """Twenty of them would bill forty times the limit."""
    unread = Reply(body='{"id": "1", "choices": [], "usage": {"prompt_tokens": 1000, "completion_tokens": 1000}}')
    with serving(lambda _: unread) as server:
        client = chat(server, LlmBudget(UnsavedCallLog(), limit=0.001))
        for _ in range(20):
            refusal(client)
        assert len(server.requests) <= 3


def test_an_empty_answer_is_no_answer() -> None:
    with serving([Reply(" \n")]) as server:
        assert "empty" in str(refusal(chat(server)))


def test_an_answer_that_takes_too_long_is_no_answer_and_may_have_cost_its_most() -> None:
    with serving([Reply("hi", delay=30)]) as server:
        budget = LlmBudget(UnsavedCallLog())
        assert "judge-1 did not answer in time" in str(refusal(chat(server, budget, timeout=2)))
        assert budget.usage["planner"].output_tokens == 20


@pytest.mark.parametrize("lost", [RESET, CUT_OFF], ids=["reset", "cut off"])
def test_a_connection_that_breaks_is_tried_again_and_may_have_cost_its_most(lost: Reply) -> None:
    with serving([lost, Reply("hi", usage=(7, 2))]) as server:
        budget = LlmBudget(UnsavedCallLog())
        assert chat(server, budget, patience=10).complete("system", "user") == "hi"
        assert len(server.requests) == 2
    assert budget.usage["planner"].output_tokens == 20 + 2


def test_half_a_sign_is_no_text_that_breaks_files() -> None:
    with serving([Reply("So \ud83d it is.")]) as server:
        assert chat(server).complete("system", "user").encode() == b"So ? it is."


def test_an_answer_that_was_cut_off_for_its_length_is_no_answer() -> None:
    with serving([Reply("So the first thing is", finish="length")]) as server:
        assert "cut off" in str(refusal(chat(server)))


def test_a_server_that_is_not_there_is_no_answer_and_costs_nothing() -> None:
    with serving([]) as server:
        budget = LlmBudget(UnsavedCallLog())
        client = chat(server, budget)
    server.server_close()
    assert f"judge-1 did not answer: no connection to {server.url}" in str(refusal(client))
    assert budget.spend.usd == 0

"""What calls to the LLM cost, before they are made and after; and answers that cost nothing a second time."""

import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from agent.errors import OutOfMoney
from agent.policy.planner_tools import ACTION_TOOLS, PlanStop
from agent.records.rounds import Role, Usage
from memory.run.calls import CallFile
from tests.llm.clients import KEY, STOP, TOO_FAST, chat, refusal, retry, settings
from tests.llm.server import LlmServer, Reply, Request, serving
from tools.llm.budget import LlmBudget, UnsavedCallLog
from tools.llm.client import LlmChat


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAYOR_KEY", KEY)


# --- what it costs -------------------------------------------------------------------------------


def test_spend_is_what_the_server_reported_unusable_answers_included() -> None:
    with serving([Reply("hi", usage=(1000, 20)), TOO_FAST, STOP]) as server:
        budget = LlmBudget(UnsavedCallLog())
        client = chat(server, budget)
        client.complete("system", "user")
        client.call_tool("system", "user", ACTION_TOOLS)
        into, out = server.reported
        assert (into, out) == (1200, 40)
        assert budget.spend.llm_tokens == into + out
        assert budget.spend.usd == pytest.approx((into * 1 + out * 10) / 1e6, rel=1e-12)
        assert budget.usage["planner"].calls == 3


def test_a_server_that_reports_no_usage_is_charged_the_most_a_call_can_cost() -> None:
    with serving([Reply("hi", usage=None)]) as server:
        budget = LlmBudget(UnsavedCallLog())
        chat(server, budget).complete("s" * 1000, "u" * 1000)
        assert budget.usage["planner"].output_tokens == 20
        assert 2000 <= budget.usage["planner"].input_tokens <= 2200


def test_a_call_stands_in_the_log_at_its_most_before_it_is_made() -> None:
    book, seen = UnsavedCallLog(), []

    def answer(request: Request) -> Reply:
        seen.extend(book)
        return Reply("hi", usage=(7, 2))

    with serving(answer) as server:
        chat(server, LlmBudget(book)).complete("system", "user")
    [before] = seen
    assert not before.settled and before.usage.usd >= 20 * 10 / 1e6
    assert book[-1].settled and book[-1].number == before.number
    assert (book[-1].usage.input_tokens, book[-1].usage.output_tokens) == (7, 2)


def test_what_a_killed_process_had_out_counts_at_its_most() -> None:
    book = UnsavedCallLog()
    with serving([Reply("hi", usage=(7, 2))]) as server:
        chat(server, LlmBudget(book)).complete("system", "user")
    killed = UnsavedCallLog(line for line in book if not line.settled)
    assert LlmBudget(killed).spend.usd == killed[0].usage.usd > LlmBudget(book).spend.usd


def test_no_call_goes_out_that_could_pass_the_limit() -> None:
    """The most that one of these calls can cost is about 0.0004 USD; each costs 0.0001."""
    with serving(lambda _: Reply("hi", usage=(90, 1))) as server:
        budget = LlmBudget(UnsavedCallLog(), limit=0.001)
        client = chat(server, budget)
        with pytest.raises(OutOfMoney, match=r"budget\.usd 0\.001"):
            while True:
                client.complete("system", "user")
        assert 1 < len(server.requests) < 10
        into, out = server.reported
        assert (into * 1 + out * 10) / 1e6 <= 0.001
        assert budget.spend.usd == pytest.approx((into * 1 + out * 10) / 1e6)


def test_calls_at_the_same_time_share_the_limit() -> None:
    with serving(lambda _: Reply("hi", usage=(150, 20), delay=0.1)) as server:
        client = chat(server, LlmBudget(UnsavedCallLog(), limit=0.0015))
        with ThreadPoolExecutor(16) as pool:
            outcomes = list(pool.map(lambda _: _said(client), range(16)))
        into, out = server.reported
    assert {"hi", "no money"} == set(outcomes)
    assert (into * 1 + out * 10) / 1e6 <= 0.0015


def test_a_run_and_its_chat_in_two_processes_do_not_reserve_the_same_money(tmp_path: Path) -> None:
    """The chat's process comes while the run's has read what is left, and has not charged its own call yet."""
    most, came = Usage(calls=1, usd=0.6), threading.Event()
    run, chat = (CallFile(tmp_path / name) for name in ("calls.jsonl", "chat-calls.jsonl"))

    def chats() -> Mapping[Role, Usage]:
        came.set()
        time.sleep(0.3)
        return chat.usage()

    ours, theirs = LlmBudget(run, limit=1.0, elsewhere=chats), LlmBudget(chat, limit=1.0, elsewhere=run.usage)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(ours.reserve, "planner", "m", most)
        came.wait()
        with pytest.raises(OutOfMoney, match=r"0\.4000 are left"):
            theirs.reserve("chat", "m", most)
        assert first.result().usage == most


def test_no_call_goes_out_that_could_pass_the_limit_of_tokens() -> None:
    with serving([Reply("hi", usage=(100, 10))] * 9) as server:
        budget = LlmBudget(UnsavedCallLog(), tokens=500)
        client = chat(server, budget)
        with pytest.raises(OutOfMoney, match=r"could take \d+ tokens, and \d+ are left of budget\.llm_tokens 500"):
            for _ in range(9):
                client.complete("system", "user")
        assert 0 < len(server.requests) < 5
    assert budget.spend.llm_tokens == sum(server.reported) <= 500


def _said(client: LlmChat) -> str:
    try:
        return client.complete("system", "user")
    except OutOfMoney:
        return "no money"


def test_limits_that_are_extended_hold_from_the_next_call_on() -> None:
    budget, most = LlmBudget(UnsavedCallLog(), limit=0.1, tokens=100), Usage(calls=1, input_tokens=150, usd=0.15)
    for limits in ((0.2, 100), (0.1, 200)):
        budget.extend(*limits)
        with pytest.raises(OutOfMoney):
            budget.reserve("planner", "m", most)
    budget.extend(0.2, 200)
    budget.reserve("planner", "m", most)
    with pytest.raises(OutOfMoney, match=r"budget\.usd 0\.2"):
        budget.reserve("planner", "m", most)


def test_no_second_try_of_a_call_goes_out_when_the_money_is_used_up() -> None:
    book = UnsavedCallLog()
    with serving([STOP, TOO_FAST, STOP]) as server:
        chat(server, LlmBudget(book)).call_tool("system", "user" * 1000, ACTION_TOOLS)
        just_enough = book[0].usage.usd  # for one call, at its most
        with pytest.raises(OutOfMoney):
            chat(server, LlmBudget(UnsavedCallLog(), just_enough)).call_tool("system", "user" * 1000, ACTION_TOOLS)
        assert len(server.requests) == 2


# --- answers on disk -----------------------------------------------------------------------------


class Shelf(dict[str, str]):
    def put(self, key: str, reply: str) -> None:
        self[key] = reply


def shelved(server: LlmServer, shelf: Shelf, budget: LlmBudget | None = None, **changes: Any) -> LlmChat:
    wanted = settings(server, **changes)
    return LlmChat(wanted, "editor", budget or LlmBudget(UnsavedCallLog()), retry(wanted), shelf)


def test_what_was_asked_before_is_answered_from_the_disk_and_costs_nothing() -> None:
    shelf, budget = Shelf(), LlmBudget(UnsavedCallLog())
    with serving([Reply("hi"), STOP]) as server:
        client = shelved(server, shelf, budget)
        for _ in range(2):
            assert client.complete("system", "user") == "hi"
            assert client.call_tool("system", "user", ACTION_TOOLS) == PlanStop(reason="done")
        assert len(server.requests) == 2
    assert (budget.usage["editor"].calls, budget.usage["editor"].cached) == (2, 2)
    assert budget.spend.llm_tokens == 220


@pytest.mark.parametrize("change", [{"model": "judge-2"}, {"temperature": 0.5}, {"max_tokens": 21}])
def test_whatever_shapes_an_answer_asks_anew(change: dict[str, Any]) -> None:
    shelf = Shelf()
    with serving(list(map(Reply, ("one", "two", "three", "four")))) as server:
        assert shelved(server, shelf).complete("system", "user") == "one"
        assert shelved(server, shelf, **change).complete("system", "user") == "two"
        assert shelved(server, shelf).complete("system", "other user") == "three"
        assert shelved(server, shelf).complete("other system", "user") == "four"


def test_another_server_and_other_tools_are_asked_anew() -> None:
    shelf = Shelf()
    with serving([STOP, STOP]) as server, serving([STOP]) as second:
        for client, tools in (
            (server, ACTION_TOOLS),
            (server, ACTION_TOOLS[2:]),
            (second, ACTION_TOOLS),
            (server, ACTION_TOOLS),
        ):
            shelved(client, shelf).call_tool("system", "user", tools)
        assert (len(server.requests), len(second.requests)) == (2, 1)


def test_a_text_that_its_reader_refuses_is_not_kept() -> None:
    def tagged(text: str) -> None:
        if "<TAG>" not in text:
            raise ValueError("no tags")

    with serving([Reply("hi"), Reply("<TAG>hi")]) as server:
        client = shelved(server, Shelf())
        with pytest.raises(ValueError, match="no tags"):
            client.complete("system", "user", tagged)
        assert client.complete("system", "user", tagged) == "<TAG>hi"


def test_an_answer_that_was_of_no_use_is_not_kept() -> None:
    shelf = Shelf()
    with serving([Reply(" "), Reply("hi")]) as server:
        client = shelved(server, shelf)
        assert "empty" in str(refusal(client))
        assert client.complete("system", "user") == "hi"


def test_no_key_is_on_the_shelf() -> None:
    shelf = Shelf()
    with serving([Reply("hi")]) as server:
        shelved(server, shelf).complete("system", "user")
    assert KEY not in str(shelf)

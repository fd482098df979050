"""The LLM client against a real HTTP server that answers by script, and misbehaves by script."""

import subprocess
import sys
import time
import traceback
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from agent.config import Llm
from agent.errors import LlmRefused, LlmUnavailable, OutOfMoney, TooLong
from agent.planner import TOOLS, PlanStop, PlanTrainLora
from tests.llm_server import CUT_OFF, NO_CHOICES, NOT_JSON, RESET, LlmServer, Reply, Request, call, refuse, serving
from tools.account import Account, Notebook
from tools.llm import LlmChat
from tools.patience import Patience

KEY = "sk-very-secret-0123456789"
STOP = call("stop", reason="done")
TOO_FAST = call("train_lora", reason="hurry", learning_rate=5)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAYOR_KEY", KEY)


def settings(server: LlmServer, **changes: Any) -> Llm:
    """No second try; 1 USD for a million tokens read, 10 for a million written, answers of at most 20 tokens."""
    given = {"model": "judge-1", "base_url": server.url, "key_variable": "MAYOR_KEY", "patience": 0, "max_tokens": 20}
    return Llm.model_validate(given | {"price": {"input": 1, "output": 10}} | changes)


def patience(wanted: Llm, told: list[str] | None = None) -> Patience:
    return Patience(wanted.patience, wanted.max_concurrency, [].append if told is None else told.append)


def chat(server: LlmServer, account: Account | None = None, **changes: Any) -> LlmChat:
    wanted = settings(server, **changes)
    return LlmChat(wanted, "planner", account or Account(Notebook()), patience(wanted))


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
    with serving([call("train_lora", reason="content is lacking", rank=8)]) as server:
        plan = chat(server).call_tool("system", "user", TOOLS)
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
        assert chat(server).call_tool("system", "user", TOOLS) == PlanStop(reason="done")
        assert problem in server.requests[1].said("user")


def test_a_second_call_that_does_not_fit_is_the_last() -> None:
    with serving([TOO_FAST, TOO_FAST, STOP]) as server:
        with pytest.raises(LlmUnavailable, match=r"judge-1 gave no usable answer: learning_rate: .* 0\.01"):
            chat(server).call_tool("system", "user", TOOLS)
        assert len(server.requests) == 2


# --- other ways than tools -----------------------------------------------------------------------

NO_TOOLS = refuse(400, "tools are not supported by this model")
NO_SCHEMA = refuse(400, "response_format json_schema is not supported")
AS_JSON = Reply('Here you are: {"choice": {"action": "stop", "reason": "done"}}')


def test_a_server_without_tools_is_asked_by_a_json_schema_and_from_then_on_only_so() -> None:
    with serving([NO_TOOLS, NO_TOOLS, AS_JSON, AS_JSON]) as server:
        client = chat(server)
        assert client.call_tool("system", "user", TOOLS) == PlanStop(reason="done")
        assert client.call_tool("system", "again", TOOLS) == PlanStop(reason="done")
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
        assert chat(server).call_tool("system", "user", TOOLS) == PlanStop(reason="done")
        last = server.requests[-1]
    assert not {"tools", "response_format"} & set(last.body)
    assert '"maximum": 256' in last.said("system")


def test_a_server_that_takes_tools_and_calls_none_is_asked_by_a_schema_the_second_time() -> None:
    with serving([Reply("I would stop."), AS_JSON]) as server:
        assert chat(server).call_tool("system", "user", TOOLS) == PlanStop(reason="done")
        assert "response_format" in server.requests[1].body and "tools" not in server.requests[1].body


def test_json_in_the_text_counts_where_tools_were_offered() -> None:
    with serving([Reply('{"action": "stop", "reason": "done"}')]) as server:
        assert chat(server).call_tool("system", "user", TOOLS) == PlanStop(reason="done")


@pytest.mark.parametrize(
    "endless", [Reply('{"a":' + "[" * 100_000), Reply(calls=(("stop", "[" * 100_000),))], ids=["text", "arguments"]
)
def test_brackets_without_end_are_asked_for_once_more(endless: Reply) -> None:
    with serving([endless, AS_JSON]) as server:
        assert chat(server).call_tool("system", "user", TOOLS) == PlanStop(reason="done")


def test_a_request_that_no_way_mends_is_asked_once_in_each() -> None:
    with serving(lambda _: refuse(400, "no such thing")) as server:
        with pytest.raises(LlmUnavailable, match="no such thing"):
            chat(server, patience=60).call_tool("system", "user", TOOLS)
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
        assert chat(server).call_tool("system", "user", TOOLS) == PlanStop(reason="done")
        assert "rank: Input should be less than or equal to 256" in server.requests[1].said("user")


def test_a_server_that_breaks_on_tools_is_asked_in_another_way_without_a_wait() -> None:
    with serving([refuse(500), Reply(calls=(("choose", {"choice": {"action": "stop", "reason": "done"}}),))]) as server:
        client = chat(server, patience=3600)
        assert client.call_tool("system", "user", TOOLS) == PlanStop(reason="done")
        assert client.way == "one tool"


def test_a_server_that_is_overloaded_at_the_first_question_is_waited_for() -> None:
    with serving([refuse(503), refuse(429, retry_after="0"), STOP]) as server:
        client = chat(server, patience=60)
        assert client.call_tool("system", "user", TOOLS) == PlanStop(reason="done")
        assert client.way == "tools"


def test_a_server_that_is_broken_altogether_is_waited_for_as_any_other() -> None:
    with serving(lambda _: refuse(500) if len(server.requests) <= 6 else STOP) as server:
        client = chat(server, patience=60)
        assert client.call_tool("system", "user", TOOLS) == PlanStop(reason="done")
        assert client.way == "tools"


# --- what it costs -------------------------------------------------------------------------------


def test_spend_is_what_the_server_reported_unusable_answers_included() -> None:
    with serving([Reply("hi", usage=(1000, 20)), TOO_FAST, STOP]) as server:
        account = Account(Notebook())
        client = chat(server, account)
        client.complete("system", "user")
        client.call_tool("system", "user", TOOLS)
        into, out = server.reported
        assert (into, out) == (1200, 40)
        assert account.spend.llm_tokens == into + out
        assert account.spend.usd == pytest.approx((into * 1 + out * 10) / 1e6, rel=1e-12)
        assert account.usage["planner"].calls == 3


def test_a_server_that_reports_no_usage_is_charged_the_most_a_call_can_cost() -> None:
    with serving([Reply("hi", usage=None)]) as server:
        account = Account(Notebook())
        chat(server, account).complete("s" * 1000, "u" * 1000)
        assert account.usage["planner"].output_tokens == 20
        assert 2000 <= account.usage["planner"].input_tokens <= 2200


def test_a_call_stands_in_the_log_at_its_most_before_it_is_made() -> None:
    book, seen = Notebook(), []

    def answer(request: Request) -> Reply:
        seen.extend(book)
        return Reply("hi", usage=(7, 2))

    with serving(answer) as server:
        chat(server, Account(book)).complete("system", "user")
    [before] = seen
    assert not before.settled and before.usage.usd >= 20 * 10 / 1e6
    assert book[-1].settled and book[-1].number == before.number
    assert (book[-1].usage.input_tokens, book[-1].usage.output_tokens) == (7, 2)


def test_what_a_killed_process_had_out_counts_at_its_most() -> None:
    book = Notebook()
    with serving([Reply("hi", usage=(7, 2))]) as server:
        chat(server, Account(book)).complete("system", "user")
    killed = Notebook(line for line in book if not line.settled)
    assert Account(killed).spend.usd == killed[0].usage.usd > Account(book).spend.usd


def test_no_call_goes_out_that_could_pass_the_limit() -> None:
    """The most that one of these calls can cost is about 0.0004 USD; each costs 0.0001."""
    with serving(lambda _: Reply("hi", usage=(100, 0))) as server:
        account = Account(Notebook(), limit=0.001)
        client = chat(server, account)
        with pytest.raises(OutOfMoney, match=r"budget\.usd 0\.001"):
            while True:
                client.complete("system", "user")
        assert 1 < len(server.requests) < 10
        into, out = server.reported
        assert (into * 1 + out * 10) / 1e6 <= 0.001
        assert account.spend.usd == pytest.approx(into / 1e6)


def test_calls_at_the_same_time_share_the_limit() -> None:
    with serving(lambda _: Reply("hi", usage=(150, 20), delay=0.1)) as server:
        client = chat(server, Account(Notebook(), limit=0.0015))
        with ThreadPoolExecutor(16) as pool:
            outcomes = list(pool.map(lambda _: _said(client), range(16)))
        into, out = server.reported
    assert {"hi", "no money"} == set(outcomes)
    assert (into * 1 + out * 10) / 1e6 <= 0.0015


def _said(client: LlmChat) -> str:
    try:
        return client.complete("system", "user")
    except OutOfMoney:
        return "no money"


def test_no_second_try_of_a_call_goes_out_when_the_money_is_used_up() -> None:
    with serving([TOO_FAST, STOP]) as server:
        with pytest.raises(OutOfMoney):
            chat(server, Account(Notebook(), limit=0.0083)).call_tool("system", "user" * 1000, TOOLS)
        assert len(server.requests) == 1


# --- answers on disk -----------------------------------------------------------------------------


class Shelf(dict[str, str]):
    def put(self, key: str, reply: str) -> None:
        self[key] = reply


def shelved(server: LlmServer, shelf: Shelf, account: Account | None = None, **changes: Any) -> LlmChat:
    wanted = settings(server, **changes)
    return LlmChat(wanted, "editor", account or Account(Notebook()), patience(wanted), shelf)


def test_what_was_asked_before_is_answered_from_the_disk_and_costs_nothing() -> None:
    shelf, account = Shelf(), Account(Notebook())
    with serving([Reply("hi"), STOP]) as server:
        client = shelved(server, shelf, account)
        for _ in range(2):
            assert client.complete("system", "user") == "hi"
            assert client.call_tool("system", "user", TOOLS) == PlanStop(reason="done")
        assert len(server.requests) == 2
    assert (account.usage["editor"].calls, account.usage["editor"].cached) == (2, 2)
    assert account.spend.llm_tokens == 220


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
    with serving([STOP, STOP]) as server, serving([STOP]) as other:
        for client, tools in ((server, TOOLS), (server, TOOLS[2:]), (other, TOOLS), (server, TOOLS)):
            shelved(client, shelf).call_tool("system", "user", tools)
        assert (len(server.requests), len(other.requests)) == (2, 1)


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


# --- many at once --------------------------------------------------------------------------------


def test_many_threads_that_are_the_first_to_ask_share_connections_and_pay_once() -> None:
    """In a process of its own, where nobody has asked before."""
    code = """
from concurrent.futures import ThreadPoolExecutor
from agent.config import Llm
from tests.llm_server import Reply, serving
from tools.llm import loose
with serving(lambda _: Reply("hi", usage=(10, 1), delay=0.01)) as server:
    client = loose(Llm(model="m", base_url=server.url, patience=0), "judge")
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda place: client.complete("system", str(place)), range(200)))
    assert len(server.requests) == 200 and client._account.spend.llm_tokens == 2200
"""
    root = Path(__file__).parents[1]
    ended = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_an_interrupt_does_not_wait_for_calls_that_wait() -> None:
    with serving(lambda _: refuse(503)) as server:
        client = chat(server, patience=60)
        with ThreadPoolExecutor(4) as pool:
            out = [pool.submit(client.complete, "system", str(place)) for place in range(4)]
            time.sleep(1.5)
            began = time.monotonic()
            client.abandon()
        assert time.monotonic() - began < 2
        assert all(isinstance(future.exception(), CancelledError) for future in out)


@pytest.mark.parametrize(("width", "most_seconds"), [(16, 0.9), (4, 2.0)])
def test_no_more_calls_than_the_width_are_out_at_once(width: int, most_seconds: float) -> None:
    with serving(lambda _: Reply("hi", delay=0.2)) as server:
        client = chat(server, max_concurrency=width)
        client.complete("system", "warms up")
        began = time.monotonic()
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda place: client.complete("system", str(place)), range(16)))
        seconds = time.monotonic() - began
        assert server.busiest == width
    assert 16 / width * 0.2 <= seconds <= most_seconds


# --- when the server misbehaves ------------------------------------------------------------------


def test_429_waits_as_long_as_the_server_asks() -> None:
    with serving([refuse(429, retry_after="1"), Reply("hi")]) as server:
        assert chat(server, patience=10).complete("system", "user") == "hi"
        assert 1 <= server.requests[1].at - server.requests[0].at < 3


def test_a_wait_longer_than_patience_is_not_begun() -> None:
    with serving(lambda _: refuse(429, retry_after="600")) as server:
        began = time.monotonic()
        assert "HTTP 429" in str(refusal(chat(server, patience=10)))
        assert time.monotonic() - began < 5 and len(server.requests) == 1


def test_a_wait_that_would_pass_the_end_of_the_run_is_not_begun() -> None:
    with serving(lambda _: refuse(429, retry_after="5")) as server:
        assert "HTTP 429" in str(refusal(ending(server, 2)))
        assert len(server.requests) == 1


def ending(server: LlmServer, seconds: float, **changes: Any) -> LlmChat:
    """A client of a run that ends in so many seconds."""
    wanted, end = settings(server, patience=3600, **changes), time.monotonic() + seconds
    return LlmChat(wanted, "planner", Account(Notebook()), patience(wanted), deadline=lambda: end)


def test_an_answer_is_not_waited_for_beyond_the_end_of_the_run_and_then_nothing_is_asked() -> None:
    with serving(lambda _: Reply("hi", delay=5)) as server:
        client = ending(server, 1, timeout=60)
        began = time.monotonic()
        assert "minutes are used up" in str(refusal(client))
        assert time.monotonic() - began < 3
        assert "minutes are used up" in str(refusal(client))
        assert len(server.requests) == 1


def test_long_waits_are_told_once() -> None:
    told: list[str] = []
    with serving(lambda request: refuse(429, retry_after="2") if len(server.requests) <= 4 else Reply("hi")) as server:
        wanted = settings(server, patience=60)
        client = LlmChat(wanted, "planner", Account(Notebook()), patience(wanted, told=told))
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
        shared, account = patience(wanted, told=told), Account(Notebook())
        clients = [LlmChat(wanted, "planner", account, shared), LlmChat(wanted, "editor", account, shared)]
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
        assert "judge-1 sent what is no chat completion" in str(refusal(chat(server)))


def test_an_answer_that_cannot_be_read_may_have_cost_its_most() -> None:
    """Twenty of them would bill forty times the limit."""
    unread = Reply(body='{"id": "1", "choices": [], "usage": {"prompt_tokens": 1000, "completion_tokens": 1000}}')
    with serving(lambda _: unread) as server:
        client = chat(server, Account(Notebook(), limit=0.001))
        for _ in range(20):
            refusal(client)
        assert len(server.requests) <= 3


def test_an_empty_answer_is_no_answer() -> None:
    with serving([Reply(" \n")]) as server:
        assert "empty" in str(refusal(chat(server)))


def test_an_answer_that_takes_too_long_is_no_answer_and_may_have_cost_its_most() -> None:
    with serving([Reply("hi", delay=1)]) as server:
        account = Account(Notebook())
        assert "judge-1 did not answer in time" in str(refusal(chat(server, account, timeout=0.2)))
        assert account.usage["planner"].output_tokens == 20


@pytest.mark.parametrize("lost", [RESET, CUT_OFF], ids=["reset", "cut off"])
def test_a_connection_that_breaks_is_tried_again_and_may_have_cost_its_most(lost: Reply) -> None:
    with serving([lost, Reply("hi", usage=(7, 2))]) as server:
        account = Account(Notebook())
        assert chat(server, account, patience=10).complete("system", "user") == "hi"
        assert len(server.requests) == 2
    assert account.usage["planner"].output_tokens == 20 + 2


def test_half_a_sign_is_no_text_that_breaks_files() -> None:
    with serving([Reply("So \ud83d it is.")]) as server:
        chat(server).complete("system", "user").encode()


def test_an_answer_that_was_cut_off_for_its_length_is_no_answer() -> None:
    with serving([Reply("So the first thing is", finish="length")]) as server:
        assert "cut off" in str(refusal(chat(server)))


def test_a_server_that_is_not_there_is_no_answer_and_costs_nothing() -> None:
    with serving([]) as server:
        account = Account(Notebook())
        client = chat(server, account)
    server.server_close()
    assert f"judge-1 did not answer: no connection to {server.url}" in str(refusal(client))
    assert account.spend.usd == 0


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
    client = LlmChat(wanted, "planner", Account(Notebook()), patience(wanted))
    assert "no key: set the environment variable MAYOR_KEY" in str(refusal(client))


def test_a_server_of_ones_own_needs_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MAYOR_KEY")
    with serving([Reply("hi")]) as server:
        assert chat(server).complete("system", "user") == "hi"

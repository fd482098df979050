"""What the server refuses, who it lets in, and how it bears clients that misbehave."""

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from tests.fixtures.serving import QUESTIONS, Serving, serving
from ui.serve import exchange, stream
from ui.serve.app import Limits
from ui.serve.gate import Rate
from ui.serve.models import Pair

GARBAGE = [
    (b"", "no JSON object"),
    (b"\xff\xfe\x00", "no JSON object"),
    (b"[" * 10_000, "no JSON object"),
    (b'{"model": "first"}', "messages: Field required"),
    (b'{"model": "first", "messages": [{"role": "user", "content": "x"}], "temperature": NaN}', "a finite number"),
    (b'{"model": "first", "messages": [{"role": "user", "content": "x"}], "top_p": Infinity}', "a finite number"),
    (b'{"model": "first", "messages": []}', "at least 1 item"),
    (b'{"model": "first", "messages": "hello"}', "messages: Input should be a valid list"),
    (b'{"model": "first", "messages": [{"role": "robot", "content": "x"}]}', "messages.0.role"),
    (b'{"model": "first", "messages": [{"role": "user", "content": null}]}', "messages.0.content"),
    (b'{"model": "first", "messages": [{"role": "user", "content": "\\ud800"}]}', "no JSON object"),
    (b'{"model": "first", "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}', "messages.0.content"),
]
REFUSED: list[tuple[dict[str, object], str]] = [
    ({"n": 2}, "one answer is given"),
    ({"top_k": 5}, "knows no such field"),
    ({"temperature": 3}, "less than or equal to 2"),
    ({"top_p": -0.1}, "greater than or equal to 0"),
    ({"verbosity": "low"}, "no such setting"),
    ({"max_tokens": 0}, "greater than or equal to 1"),
    ({"max_tokens": 5, "max_completion_tokens": 6}, "differ"),
    ({"stop": ["a", "b", "c", "d", "e"]}, "4 are taken at most"),
    ({"stop": ""}, "empty text"),
    ({"stop": "x" * 1001}, "1000 characters"),
    ({"top_logprobs": 3}, "needs logprobs"),
    ({"tools": [{"type": "function"}]}, "tools"),
    ({"response_format": {"type": "json_object"}}, "not forced"),
    ({"presence_penalty": 0.5}, "generation_config"),
    ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, "last message"),
    ({"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]}, "only be the first"),
]


def body(**changes: object) -> dict[str, object]:
    return {"model": "first", "messages": [{"role": "user", "content": QUESTIONS[0]}]} | changes


def post(server: Serving, **changes: object) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/chat/completions", json=body(**changes), timeout=60)


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize(("sent", "said"), GARBAGE)
def test_garbage_gets_a_sentence_in_openais_form(sent: bytes, said: str, server: Serving) -> None:
    answer = httpx.post(f"{server.url}/v1/chat/completions", content=sent)
    assert answer.status_code == 400 and said in answer.json()["error"]["message"]
    assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(("changes", "said"), REFUSED)
def test_what_would_change_the_answer_is_carried_out_or_refused(
    changes: dict[str, object], said: str, server: Serving
) -> None:
    answer = post(server, **changes)
    assert answer.status_code == 400 and said in answer.json()["error"]["message"]


def test_fields_that_ask_for_nothing_are_taken(server: Serving) -> None:
    changes = {"n": 1, "user": "me", "tools": [], "presence_penalty": 0, "response_format": {"type": "text"}}
    assert post(server, **changes).json()["choices"] == post(server).json()["choices"]


def test_errors_of_clients_have_the_classes_that_openai_gives_them(server: Serving) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    with pytest.raises(openai.NotFoundError, match=r"only: first, second/of\.two, bare"):
        client.chat.completions.create(model="other", messages=[{"role": "user", "content": "x"}])
    with pytest.raises(openai.BadRequestError, match=r"\d+ tokens and the answer may have 5000; .* 1024"):
        client.chat.completions.create(model="first", messages=[{"role": "user", "content": "x"}], max_tokens=5000)
    with pytest.raises(openai.BadRequestError, match="/v1/chat/completions only"):
        client.completions.create(model="first", prompt="x", logprobs=2)
    with pytest.raises(openai.BadRequestError, match="from 0 to"):
        client.completions.create(model="first", prompt=[1, 10**6])


def test_unknown_places_methods_and_bodies_too_large_get_the_same_form(server: Serving) -> None:
    assert "error" in httpx.get(f"{server.url}/v2/none").json()
    assert httpx.get(f"{server.url}/v1/chat/completions").status_code == 405
    large = httpx.post(f"{server.url}/v1/chat/completions", content=b" " * 3_000_000)
    assert large.status_code == 413 and "error" in large.json()


def test_other_sites_and_other_names_are_turned_away_without_a_token(server: Serving) -> None:
    for headers in ({"host": "evil.example:80"}, {"origin": "https://evil.example"}):
        assert httpx.get(f"{server.url}/v1/models", headers=headers).status_code == 403
    assert httpx.get(f"{server.url}/v1/models", headers={"origin": "http://localhost:3000"}).status_code == 200


def test_a_token_is_wanted_where_there_is_one(pairs: list[Pair]) -> None:
    with serving(pairs[2:], token="geheim-ß") as server:
        for headers in ({}, {"authorization": "Bearer other"}, {"authorization": b"Bearer \xff"}):
            answer = httpx.get(f"{server.url}/v1/models", headers=headers)  # type: ignore[arg-type]
            assert answer.status_code == 401 and answer.json()["error"]["code"] == "invalid_api_key"
        right = {"authorization": "Bearer geheim-ß".encode(), "host": "my.machine", "origin": "https://my.page"}
        assert httpx.get(f"{server.url}/v1/models", headers=right).status_code == 200  # type: ignore[arg-type]
        assert httpx.get(f"{server.url}/health").status_code == 200


def test_a_rate_holds_for_each_address_and_is_given_back_with_time() -> None:
    now = [0.0]
    rate = Rate(2, lambda: now[0])
    assert [rate.spend("a"), rate.spend("a"), rate.spend("b")] == [None] * 3
    assert rate.spend("a") == pytest.approx(30)
    now[0] = 31
    assert rate.spend("a") is None and rate.spend("a") is not None


def test_too_many_a_minute_and_a_full_queue_are_told_to_wait(pairs: list[Pair]) -> None:
    with serving(pairs[2:], limits=Limits(rate=1)) as server:
        answers = [post(server, model="bare") for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 429]
        assert 0 < int(answers[1].headers["retry-after"]) <= 60
    with serving(pairs[2:], most_rows=1, most_waiting=2) as server, ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: post(server, model="bare", max_tokens=200), range(12)))
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused and len(refused) < 12 and {answer.status_code for answer in answers} == {200, 429}
        assert {answer.json()["error"]["code"] for answer in refused} == {"queue_full"}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)


@pytest.fixture
def endless(server: Serving) -> Iterator[Serving]:
    """No token ends an answer: it is as long as is asked for."""
    batches = server.desk.engine._batches.values()
    before = [batch._ends for batch in batches]  # type: ignore[attr-defined]
    for batch in batches:
        batch._ends = frozenset()  # type: ignore[attr-defined]
    yield server
    for batch, ends in zip(batches, before, strict=True):
        batch._ends = ends  # type: ignore[attr-defined]
    wait_until(lambda: server.desk.engine.running == 0)


@pytest.mark.parametrize("streams", [False, True])
def test_a_client_that_goes_away_takes_its_row_with_it(streams: bool, endless: Serving) -> None:
    sent = json.dumps(body(max_tokens=900, stream=streams)).encode()
    with socket.create_connection(("127.0.0.1", int(endless.url.rsplit(":", 1)[1]))) as connection:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(sent)}\r\n\r\n"
        connection.sendall(head.encode() + sent)
        wait_until(lambda: endless.desk.engine.running == 1)
        [open_] = endless.desk.open
        if streams:
            connection.recv(100)
    wait_until(lambda: endless.desk.engine.running == 0 and not endless.desk.open)
    assert open_.finish == "gone" and open_.row.generated < 900


def test_a_slow_reader_holds_nobody_up_and_is_dropped_with_the_reason(
    endless: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "BEHIND", 20)
    sent = json.dumps(body(max_tokens=900, stream=True, logprobs=True, top_logprobs=20)).encode()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", int(endless.url.rsplit(":", 1)[1])))
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(sent)}\r\n\r\n"
        connection.sendall(head.encode() + sent)
        wait_until(lambda: bool(endless.desk.open))
        [slow] = endless.desk.open
        assert post(endless, max_tokens=5).status_code == 200  # beside it
        wait_until(lambda: slow.finish == "slow" and endless.desk.engine.running == 0)
        assert slow.row.generated < 900
        told = b""
        while part := connection.recv(65536):
            told += part
            if b"0\r\n\r\n" in told[-20:]:
                break
    assert b"20 pieces behind" in told and b"[DONE]" not in told
    wait_until(lambda: not endless.desk.open)


@pytest.mark.parametrize("limit", ["pieces", "seconds"])
def test_a_reader_that_takes_nothing_more_is_left_after_a_while(
    limit: str, endless: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    if limit == "pieces":
        monkeypatch.setattr(exchange, "BEHIND", 5)
        monkeypatch.setattr(stream, "GRACE", 0.05)
    else:
        monkeypatch.setattr(exchange, "BEHIND", 1000)
        monkeypatch.setattr(stream, "LAST", 0.05)
        monkeypatch.setattr(endless.desk, "limits", Limits(seconds=0.5))
    app, sent = endless.app, json.dumps(body(max_tokens=900, stream=True)).encode()

    async def receive() -> dict[str, object]:
        if receive.asked:  # type: ignore[attr-defined]
            await asyncio.Event().wait()
        receive.asked = True  # type: ignore[attr-defined]
        return {"type": "http.request", "body": sent}

    async def send(message: object) -> None:
        await asyncio.Event().wait()

    receive.asked = False  # type: ignore[attr-defined]
    scope = {
        "type": "http", "method": "POST", "path": "/v1/chat/completions", "query_string": b"", "http_version": "1.1",
        "headers": [(b"host", b"localhost")], "client": ("127.0.0.1", 1), "raw_path": b"", "scheme": "http",
        "root_path": "", "server": ("127.0.0.1", 80),
    }  # fmt: skip
    asyncio.run(asyncio.wait_for(app(scope, receive, send), 30))
    wait_until(lambda: endless.desk.engine.running == 0)
    assert not endless.desk.open


@pytest.mark.parametrize("streams", [False, True])
def test_an_answer_that_takes_too_long_ends_with_an_error(
    streams: bool, endless: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endless.desk, "limits", Limits(seconds=0.3))
    answer = post(endless, max_tokens=900, stream=streams)
    assert answer.status_code == (200 if streams else 504)
    assert "not whole within 0.3 seconds" in answer.text and "[DONE]" not in answer.text
    if not streams:
        assert answer.headers["x-should-retry"] == "false"


def test_requests_that_come_at_once_are_taken_while_rows_are_free(pairs: list[Pair]) -> None:
    with serving(pairs[2:], most_rows=16, most_waiting=1) as server, ThreadPoolExecutor(12) as pool:
        codes = pool.map(lambda _: post(server, model="bare", max_tokens=3).status_code, range(12))
        assert set(codes) == {200}


def test_a_token_that_only_the_tokenizer_knows_is_refused(pairs: list[Pair]) -> None:
    with serving(pairs[:1]) as server:
        tokenizer = server.served[0].render.tokenizer
        tokenizer.add_tokens([f"<image{n}>" for n in range(400)], special_tokens=True)
        answer = post(server, messages=[{"role": "user", "content": "What is <image399>?"}])
        assert answer.status_code == 400 and "token ids are from 0 to" in answer.json()["error"]["message"]
        assert post(server).status_code == 200

"""An OpenAI-compatible server that says what a test scripts: real HTTP on the loopback interface, in a thread.

By hand: `python -m tests.llm.server --port 8123` serves tests/llm/scripted_llm.py until it is stopped.
"""

import json
import math
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from tests.llm import chat_completions

Usage = tuple[int, int]
Body = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """What the server was sent, and when (seconds of the monotonic clock)."""

    body: Body
    headers: dict[str, str]
    at: float

    @property
    def text(self) -> str:
        """All that the LLM would read: messages, tools and the wanted form of its answer, as JSON."""
        asked = {"messages": self.body["messages"], "tools": self.body.get("tools")}
        wanted = {"response_format": self.body["response_format"]} if "response_format" in self.body else {}
        return json.dumps(asked | wanted, ensure_ascii=False)

    def said(self, role: str) -> str:
        """The last message of a role."""
        return str([message["content"] for message in self.body["messages"] if message["role"] == role][-1])

    @property
    def system(self) -> str:
        """All system messages."""
        return self._all("system", "developer")

    @property
    def told(self) -> str:
        """All user messages."""
        return self._all("user")

    def _all(self, *roles: str) -> str:
        return "\n\n".join(str(one["content"]) for one in self.body["messages"] if one["role"] in roles)

    @property
    def tools(self) -> dict[str, Body]:
        """The JSON schemas of the tools' arguments, by the tools' names."""
        functions = [tool["function"] for tool in self.body.get("tools") or ()]
        return {function["name"]: function.get("parameters") or {} for function in functions}

    @property
    def schema(self) -> Body:
        """The JSON schema that the answer's text must satisfy; empty where any text will do."""
        wanted: Body = self.body.get("response_format") or {}
        return (wanted.get("json_schema") or wanted).get("schema") or {}


@dataclass(frozen=True)
class Reply:
    """One answer: text or tool calls as a chat completion, or any `body`.

    `usage` is (input, output) tokens, or a function of request and reply that counts them; None: none is reported.
    `delay` is seconds before the first byte, `drip` seconds between the parts of the body. It `ends` whole, after half
    of its bytes, or by a reset of the connection before the first.
    """

    text: str = ""
    calls: tuple[tuple[str, dict[str, Any] | str], ...] = ()
    usage: "Usage | Callable[[Request, Reply], Usage] | None" = (100, 10)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None
    delay: float = 0.0
    drip: float = 0.0
    finish: str = ""
    ends: Literal["whole", "half", "reset"] = "whole"


Rule = Callable[[Request], Reply]
Script = Sequence[Reply] | Rule


def call(tool: str, **arguments: Any) -> Reply:
    """One tool call."""
    return Reply(calls=((tool, arguments),))


def reshaped(reply: Reply, change: Callable[[Body], object]) -> Reply:
    """The reply with its body changed in place: what servers send that are not quite like OpenAI's."""
    body = json.loads(chat_completions.completion(reply, {})[1])
    change(body)
    return replace(reply, body=json.dumps(body))


def in_body(error: Any, **others: Any) -> Reply:
    """An error in the body of an HTTP 200, as gateways send it."""
    return Reply(body=json.dumps({"error": error} | others), usage=None)


def by_length(request: Request, reply: Reply) -> Usage:
    """A token for every four characters that are read and written; of these no more than the request allows."""
    written = reply.text + "".join(name + chat_completions.arguments(given) for name, given in reply.calls)
    most = request.body.get("max_tokens") or request.body.get("max_completion_tokens") or len(written)
    return math.ceil(len(request.text) / 4), min(math.ceil(len(written) / 4), most)


# --- misbehaviour --------------------------------------------------------------------------------


def refuse(status: int, message: str = "refused", code: str | None = None, **headers: str) -> Reply:
    """An HTTP error in OpenAI's shape; `retry_after="1"` becomes the header Retry-After."""
    named = {name.replace("_", "-").title(): value for name, value in headers.items()}
    error = {"message": message, "type": code or "invalid_request_error", "param": None, "code": code}
    return Reply(status=status, headers=named, usage=None, body=json.dumps({"error": error}))


TOO_MANY = refuse(429, "Rate limit reached for requests", "rate_limit_exceeded", retry_after="1")
NO_CREDIT = refuse(429, "You exceeded your current quota, check your plan and billing", "insufficient_quota")
UNPAID = refuse(402, "Insufficient Balance", "insufficient_quota")
BAD_KEY = refuse(401, "Incorrect API key provided", "invalid_api_key")
BROKEN = refuse(500, "The server had an error while processing your request", "server_error")
OVERLOADED = refuse(503, "The engine is currently overloaded", "server_error")
CONTEXT_EXCEEDED = refuse(400, "This model's maximum context length is 8192 tokens", "context_length_exceeded")
NO_TOOLS = refuse(400, "tools are not supported by this model")
NO_CHOICES = Reply(body=json.dumps({"id": "1", "object": "chat.completion", "model": "m", "choices": []}), usage=None)
NOT_JSON = Reply(body="<html>a gateway's login page</html>", usage=None)
EMPTY = Reply("")
NO_TAGS = Reply("I would ask for the form that is wanted, and for short answers.")
TEN_TIMES = Reply(f"<IMPROVED_VARIABLE>{'Begin with the answer. ' * 2700}</IMPROVED_VARIABLE>")  # 62,100 characters
UNFINISHED = Reply("Begin every answer with", finish="length")
CUT_OFF = Reply("Begin every answer with the form that is wanted.", ends="half")
RESET = Reply(ends="reset", usage=None)


def down(rule: Rule, *, calls: int = 0, seconds: float = 0.0, fault: Reply = OVERLOADED) -> Rule:
    """Fails the first `calls` requests, and all that come within `seconds` of the first; then follows the rule."""
    seen: list[float] = []

    def answer(request: Request) -> Reply:
        seen.append(request.at)
        return fault if len(seen) <= calls or request.at - seen[0] < seconds else rule(request)

    return answer


def windowed(rule: Rule, tokens: int) -> Rule:
    """Refuses what is longer than a window of so many tokens, as `by_length` counts them."""
    return lambda request: CONTEXT_EXCEEDED if by_length(request, EMPTY)[0] > tokens else rule(request)


def without_tools(rule: Rule) -> Rule:
    """A server that knows no tool calling: it refuses requests that offer tools."""
    return lambda request: NO_TOOLS if request.tools else rule(request)


# --- the server ----------------------------------------------------------------------------------


class LlmServer(ThreadingHTTPServer):
    """Answers by a script, one reply after another, or by a function of the request.

    `requests` holds everything that was asked, `usages` what each answer took as (input, output) tokens, in the same
    order; `busiest` is how many requests were open at the same time, at most.
    """

    daemon_threads = True
    request_queue_size = 256  # with the usual 5, a burst of connections waits a second for its second try

    def __init__(self, script: Script, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self._script = script
        self._lock = threading.Lock()
        self._open = 0
        self.busiest = 0
        self.requests: list[Request] = []
        self.usages: list[Usage] = []

    @property
    def url(self) -> str:
        """For `llm.base_url`."""
        return f"http://127.0.0.1:{self.server_port}/v1"

    @property
    def reported(self) -> Usage:
        """The usage of all replies together. One that is cut off counts: the tokens were used."""
        return sum(into for into, _ in self.usages), sum(out for _, out in self.usages)

    def billed(self, price_in: float, price_out: float, which: Callable[[Request], bool] = lambda _: True) -> float:
        """The bill in USD for the requests that `which` picks, at prices per million tokens."""
        picked = [usage for request, usage in zip(self.requests, self.usages, strict=True) if which(request)]
        return sum(into * price_in + out * price_out for into, out in picked) / 1e6

    def answer(self, request: Request) -> Reply:
        """The next reply, its usage counted; HTTP 400 once the script is over, which no client tries again."""
        with self._lock:
            self.requests.append(request)
            reply = self._reply(request)
            usage = reply.usage(request, reply) if callable(reply.usage) else reply.usage
            self.usages.append(usage or (0, 0))
        return replace(reply, usage=usage)

    def _reply(self, request: Request) -> Reply:
        if callable(self._script):
            return self._script(request)
        place = len(self.requests) - 1
        return self._script[place] if place < len(self._script) else refuse(400, "the script is over")

    def opened(self, change: int) -> None:
        """Counts open requests: one more, or one less."""
        with self._lock:
            self._open += change
            self.busiest = max(self.busiest, self._open)


@contextmanager
def serving(script: Script, port: int = 0) -> Iterator[LlmServer]:
    """A server for the length of a `with` block."""
    with LlmServer(script, port) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    server: LlmServer
    protocol_version = "HTTP/1.1"  # connections stay open and are used again, as with real servers

    def do_GET(self) -> None:
        self._send(
            Reply(body=chat_completions.MODELS) if self.path == "/v1/models" else refuse(404, f"no {self.path} here")
        )

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        request = Request(body, {name.lower(): value for name, value in self.headers.items()}, time.monotonic())
        known = self.path == "/v1/chat/completions"
        self.server.opened(+1)
        reply = self.server.answer(request) if known else refuse(404, f"no {self.path} here")
        time.sleep(reply.delay)
        self.server.opened(-1)
        self._send(reply, body)

    def _send(self, reply: Reply, asked: Body | None = None) -> None:
        kind, text = ("application/json", reply.body) if reply.body else chat_completions.completion(reply, asked or {})
        content = text.encode()
        headers = {"Content-Type": kind, "Content-Length": str(len(content))} | reply.headers
        try:
            if reply.ends == "reset":
                return self._reset()
            self.send_response(reply.status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self._write(content[: len(content) // 2] if reply.ends == "half" else content, reply.drip)
            self.close_connection = reply.ends == "half"
        except ConnectionError:
            pass  # the client has given up waiting

    def _write(self, content: bytes, drip: float) -> None:
        piece = math.ceil(len(content) / 10) if drip else len(content)
        for start in range(0, len(content), piece):
            self.wfile.write(content[start : start + piece])
            time.sleep(drip)

    def _reset(self) -> None:
        """Closes so that the client's system reports "connection reset by peer", not an end."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.rfile.close()
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        pass


if __name__ == "__main__":
    from tests.llm.scripted_llm import main

    main()

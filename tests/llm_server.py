"""An OpenAI-compatible server that says what a test scripts: real HTTP on the loopback interface, in a thread."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

Usage = tuple[int, int]


@dataclass(frozen=True)
class Reply:
    """One answer: text or tool calls as a chat completion, or any `body`; `usage` is (input, output) tokens."""

    text: str = ""
    calls: tuple[tuple[str, dict[str, Any] | str], ...] = ()
    usage: Usage | None = (100, 10)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None
    delay: float = 0.0


def call(tool: str, **arguments: Any) -> Reply:
    """One tool call."""
    return Reply(calls=((tool, arguments),))


def refuse(status: int, message: str = "refused", **headers: str) -> Reply:
    """An HTTP error in OpenAI's shape; `retry_after="1"` becomes the header Retry-After."""
    named = {name.replace("_", "-").title(): value for name, value in headers.items()}
    return Reply(status=status, headers=named, usage=None, body=json.dumps({"error": {"message": message}}))


NO_CHOICES = Reply(body=json.dumps({"id": "1", "object": "chat.completion", "model": "m", "choices": []}), usage=None)
NOT_JSON = Reply(body="<html>a gateway's login page</html>", usage=None)


@dataclass(frozen=True)
class Request:
    """What the server was sent, and when (seconds of the monotonic clock)."""

    body: dict[str, Any]
    headers: dict[str, str]
    at: float

    @property
    def text(self) -> str:
        """All that the LLM would read: messages and tools, as JSON."""
        return json.dumps({"messages": self.body["messages"], "tools": self.body.get("tools")}, ensure_ascii=False)

    def said(self, role: str) -> str:
        """The last message of a role."""
        return str([message["content"] for message in self.body["messages"] if message["role"] == role][-1])


class LlmServer(ThreadingHTTPServer):
    """Answers by a script, one reply after another, or by a function of the request.

    `requests` holds everything that was asked; `reported` adds up the usage of the replies, as (input, output) tokens.
    """

    daemon_threads = True

    def __init__(self, script: Sequence[Reply] | Callable[[Request], Reply]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self._script = script
        self._lock = threading.Lock()
        self.requests: list[Request] = []
        self.reported: Usage = (0, 0)

    @property
    def url(self) -> str:
        """For `llm.base_url`."""
        return f"http://127.0.0.1:{self.server_port}/v1"

    def answer(self, request: Request) -> Reply:
        """The next reply; HTTP 400 once the script is over, which no client tries again."""
        with self._lock:
            self.requests.append(request)
            reply = self._reply(request)
            into, out = reply.usage or (0, 0)
            self.reported = (self.reported[0] + into, self.reported[1] + out)
        return reply

    def _reply(self, request: Request) -> Reply:
        if callable(self._script):
            return self._script(request)
        place = len(self.requests) - 1
        return self._script[place] if place < len(self._script) else refuse(400, "the script is over")


@contextmanager
def serving(script: Sequence[Reply] | Callable[[Request], Reply]) -> Iterator[LlmServer]:
    """A server for the length of a `with` block."""
    with LlmServer(script) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        request = Request(body, {name.lower(): value for name, value in self.headers.items()}, time.monotonic())
        known = self.path == "/v1/chat/completions"
        reply = cast(LlmServer, self.server).answer(request) if known else refuse(404, f"no {self.path} here")
        time.sleep(reply.delay)
        self._send(reply, (reply.body or json.dumps(_completion(reply, body["model"]))).encode())

    def _send(self, reply: Reply, content: bytes) -> None:
        headers = {"Content-Type": "application/json", "Content-Length": str(len(content))} | reply.headers
        try:
            self.send_response(reply.status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
        except ConnectionError:
            pass  # the client has given up waiting

    def log_message(self, format: str, *args: object) -> None:
        pass


def _completion(reply: Reply, model: str) -> dict[str, Any]:
    calls = [
        {"id": f"call_{place}", "type": "function", "function": {"name": name, "arguments": _arguments(given)}}
        for place, (name, given) in enumerate(reply.calls)
    ]
    message = {"role": "assistant", "content": reply.text or None} | ({"tool_calls": calls} if calls else {})
    finish = "tool_calls" if calls else "stop"
    into, out = reply.usage or (0, 0)
    usage = {"prompt_tokens": into, "completion_tokens": out, "total_tokens": into + out}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    made = {"id": "1", "object": "chat.completion", "created": 0, "model": model, "choices": [choice]}
    return made | ({"usage": usage} if reply.usage else {})


def _arguments(given: dict[str, Any] | str) -> str:
    return given if isinstance(given, str) else json.dumps(given)

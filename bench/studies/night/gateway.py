"""Between the runs and their LLM: every answer is written down, and some are spoiled on the way."""

import json
import random
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal, NamedTuple

from agent.records.base import Record

Spoiled = Literal["", "500", "429", "cut off"]
LONGEST = 60.0  # seconds for an answer


class Answered(Record):
    """A request, as the bill has it. One that was cut off has been paid for."""

    at: float
    spoiled: Spoiled
    input_tokens: int = 0
    output_tokens: int = 0


class Weather(NamedTuple):
    """How often answers are spoiled.

    Attributes:
        chance: of each request, at any time.
        seed: of what is drawn.
    """

    chance: float = 0.0
    seed: int = 0


class Gateway(ThreadingHTTPServer):
    """Passes requests on to `upstream`, and notes them in the file `bill`."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, upstream: str, bill: Path, weather: Weather) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = upstream
        self.down_until = 0.0  # a reading of time.monotonic(): until then nothing is answered well
        self._bill = bill
        self._chance = weather.chance
        self._random = random.Random(weather.seed)
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """For `llm.base_url`."""
        return f"http://127.0.0.1:{self.server_port}/v1"

    def draw(self) -> Spoiled:
        """What becomes of the next request."""
        with self._lock:
            ways: tuple[Spoiled, ...] = ("500", "429", "cut off")
            found = self._random.choice(ways)
            spoiled = self._random.random() < self._chance
        if time.monotonic() < self.down_until:
            return "500"
        return found if spoiled else ""

    def note(self, answered: Answered) -> None:
        """Write a line of the bill."""
        with self._lock, self._bill.open("a") as file:
            file.write(answered.model_dump_json() + "\n")


@contextmanager
def gateway(upstream: str, bill: Path, weather: Weather) -> Iterator[Gateway]:
    """A gateway for the length of a `with` block, in a thread."""
    with Gateway(upstream, bill, weather) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


def read_bill(bill: Path) -> list[Answered]:
    """All requests, in order."""
    lines = bill.read_text().splitlines() if bill.exists() else []
    return [Answered.model_validate_json(line) for line in lines]


class _Handler(BaseHTTPRequestHandler):
    server: Gateway
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["Content-Length"]))
        spoiled = self.server.draw()
        if spoiled in ("500", "429"):
            self.server.note(Answered(at=time.time(), spoiled=spoiled))
            error = {"error": {"message": "spoiled on purpose", "type": "server_error", "code": None}}
            self._send(int(spoiled), json.dumps(error).encode())
            return
        headers = {"Content-Type": "application/json", "Authorization": self.headers.get("Authorization", "")}
        request = urllib.request.Request(f"{self.server.upstream}{self.path.removeprefix('/v1')}", asked, headers)
        with urllib.request.urlopen(request, timeout=LONGEST) as answer:
            body = answer.read()
        usage = json.loads(body)["usage"]
        self.server.note(
            Answered(
                at=time.time(), spoiled=spoiled,
                input_tokens=usage["prompt_tokens"], output_tokens=usage["completion_tokens"],
            )
        )  # fmt: skip
        self._send(200, body, cut=bool(spoiled))

    def _send(self, status: int, body: bytes, cut: bool = False) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            if status == 429:
                self.send_header("Retry-After", "1")
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if cut else body)
            self.close_connection = cut
        except ConnectionError:
            pass  # the run was killed meanwhile

    def log_message(self, format: str, *args: object) -> None:
        pass

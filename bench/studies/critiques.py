"""Critiques of many answers by a slow LLM: ours in parallel, and textgrad's own one after another.

python -m bench.studies.critiques [--critiques 20] [--width 16]
"""

import argparse
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from agent import prompts
from agent.config.llm import Llm
from agent.config.prompt import Editing
from agent.config.scorers import Contains, StartsWith
from agent.protocols import Chat
from agent.records.evaluation import ExampleScore
from agent.records.examples import Example, Prompt
from bench.overheads.overhead import Overhead
from eval.scoring import TaskScorers
from graphs.context import Silent
from tools.editing.critique import describe_case
from tools.editing.descent import library
from tools.editing.textgrad_editor import TextGradEditor
from tools.llm.client import standalone_chat

LATENCY = 0.5  # seconds of a call
SYSTEM = "Answer the question about the valley."
SCORERS = TaskScorers([Contains(kind="contains")], [StartsWith(kind="starts_with", text="ANSWER: ")])


class SlowServer(ThreadingHTTPServer):
    """An OpenAI-compatible server that sends the same answer after `LATENCY` seconds, to many clients in parallel."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Slow)


class _Slow(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(LATENCY)
        message = {"role": "assistant", "content": "<system>It does not ask for the form: ask for it.</system>"}
        usage = {"prompt_tokens": 300, "completion_tokens": 12, "total_tokens": 312}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        made = {"id": "1", "object": "chat.completion", "created": 0, "model": "slow", "choices": choices}
        content = json.dumps(made | {"usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


def critiques(count: int = 20, width: int = 16) -> list[Overhead]:
    """Seconds of both over real HTTP, after a first call that makes the connection; it takes half a minute."""
    rows = [Example(name=f"train:{n}", question=f"Who keeps gate {n}?", answer=f"Keeper {n}") for n in range(count)]
    scores = [SCORERS.score(row, "I do not know.") for row in rows]
    with _serving() as url:
        chat = _chat(url, width)
        chat.complete("", "the first call, which connects")
        ours = _seconds(lambda: _ours(chat, rows, scores))
        theirs = _seconds(lambda: _theirs(chat, rows, scores))
    at_once = f"{count} critiques, calls of {LATENCY} s, {width} at once"
    return [
        Overhead(name=at_once, value=ours, unit="s", wanted="<= 2"),
        Overhead(name="the library's TextLoss and backward, one after another", value=theirs, unit="s"),
    ]


def _ours(chat: Chat, rows: Sequence[Example], scores: Sequence[ExampleScore]) -> None:
    by_name = {row.name: row for row in rows}
    editor = TextGradEditor(chat, SCORERS, Editing(), by_name.__getitem__, Silent())
    assert len(editor.criticise(Prompt(system=SYSTEM), ("system",), scores)) == len(rows)


def _theirs(chat: Chat, rows: Sequence[Example], scores: Sequence[ExampleScore]) -> None:
    """As in its tutorials: one call for the loss, and one more for its gradient."""
    textgrad = library()

    def engine(prompt: str, system_prompt: str) -> str:
        return chat.complete(system_prompt, prompt)

    for row, score in zip(rows, scores, strict=True):
        system = textgrad.Variable(SYSTEM, role_description="system prompt of a small language model")
        instruction = f"{prompts.read('critique')}\n\n{describe_case(row, score, 600)}"
        loss = textgrad.TextLoss(instruction, engine=engine)(system)
        loss.backward(engine=engine)
        assert len(system.gradients) == 1


def _chat(url: str, width: int) -> Chat:
    return standalone_chat(Llm(model="slow", base_url=url, max_concurrency=width, patience=0), "editor")


def _seconds(work: Callable[[], None]) -> float:
    library()  # its import takes seconds, once
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@contextmanager
def _serving() -> Iterator[str]:
    """The server's base URL."""
    with SlowServer() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--critiques", type=int, default=20)
    parser.add_argument("--width", type=int, default=16)
    options = parser.parse_args()
    for row in critiques(options.critiques, options.width):
        print(f"{row.name:68} {row.value:10,.3g} {row.unit:2}  {row.wanted}")


if __name__ == "__main__":
    main()

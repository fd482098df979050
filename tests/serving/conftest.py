"""A server of a tiny model with two adapters, as clients reach it over HTTP."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI

from agent.records.examples import Demo, Example, Prompt, Turn
from tools.continuous.engine import Engine
from tools.model.backbone import Backbone
from ui.serve.app import Desk, Limits, make_app
from ui.serve.log import RequestLog
from ui.serve.models import Base, Pair, Served, load
from ui.serve.server import DrainingServer, listen

NEW = 12
PROMPT = Prompt(
    system='Start with "A".',
    demos=(Demo(question='Say "{a}"?', answer="{{ a }} {% b %}\n\\"),),
    template="Q: {question}\n",
)
OTHER = Prompt(system="Another prompt, for another task.")
PLACES = ("Orrowmere", "Tallisk", "Benn", "the river 0 1 2", "bread", 'a "bridge" {question}')
QUESTIONS = [f"{'Who is ' * (n % 3)}the mayor of {PLACES[n % 6]}? {n}" for n in range(64)]


@dataclass
class Serving:
    """A server under test."""

    url: str
    app: FastAPI
    desk: Desk
    backbone: Backbone
    served: list[Served]
    server: DrainingServer
    thread: threading.Thread

    def alone(
        self, question: str, name: str = "first", turns: Sequence[Turn] = (), prompt: Prompt | None = None
    ) -> str:
        """What `generate` answers to one question by itself."""
        model = next(model for model in self.served if model.name == name)
        example = Example(name="user:1", question=question, answer="", turns=tuple(turns))
        [text], _ = self.backbone.generate(
            prompt or model.prompt, [example], adapter=model.weights.adapter, max_new_tokens=NEW
        )
        return text or ""


Serve = Callable[..., Any]  # a context manager of Serving


@contextmanager
def serving(
    pairs: Sequence[Pair], *, token: str | None = None, limits: Limits | None = None, log: Path | None = None,
    **engine: int,
) -> Iterator[Serving]:  # fmt: skip
    backbone, served = load(pairs, lambda *_: None)
    weights = {model.name: model.weights for model in served}
    made = Engine(backbone, weights, **({"most_rows": 16, "most_waiting": 100} | engine))
    made.start()
    app = make_app(made, served, token=token, limits=limits or Limits(), log=RequestLog(log) if log else None)
    listening = listen("127.0.0.1", 0)
    config = uvicorn.Config(app, log_level="error", access_log=False, ws="none", timeout_graceful_shutdown=2)
    server = DrainingServer(config, app.state.desk)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        yield Serving(url, app, app.state.desk, backbone, served, server, thread)
    finally:
        server.should_exit = server.force_exit = True
        thread.join(20)
        made.close()
        app.state.desk.workers.shutdown()


def pair(model: Path, name: str = "first", prompt: Prompt = PROMPT, adapter: Path | None = None) -> Pair:
    return Pair(
        name=name, base=Base(str(model), "float32", "cpu"), prompt=prompt, retriever=None, adapter=adapter,
        max_new_tokens=NEW, switches={}, source=model,
    )  # fmt: skip


@pytest.fixture(scope="module")
def adapters(tiny_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two random LoRAs of the tiny Llama."""
    import torch

    from agent.config.lora import Lora
    from tools.model.loading import load_model
    from tools.training.lora_config import lora_config

    root = tmp_path_factory.mktemp("adapters")
    model, tokenizer = load_model(str(tiny_model("llama")), device="cpu", dtype="float32", progress=lambda *_: None)
    backbone = Backbone(model, tokenizer, name="llama", locate=root.joinpath)
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        backbone.create(name, lora_config(4, Lora(rank=4, alpha=8)))
        for weight in filter(lambda weight: weight.requires_grad, backbone.model.parameters()):
            weight.data.copy_(0.2 * torch.randn(weight.shape))
        backbone.save(name, root / name)
        backbone.detach(name)
    return [root / "one", root / "two"]


@pytest.fixture(scope="module")
def pairs(tiny_model: Callable[[str], Path], adapters: list[Path]) -> list[Pair]:
    """Two adapters with prompts of their own, and the bare base."""
    model = tiny_model("llama")
    return [
        pair(model, adapter=adapters[0]),
        pair(model, "second/of.two", OTHER, adapters[1]),
        pair(model, "bare", Prompt()),
    ]


@pytest.fixture(scope="module")
def server(pairs: list[Pair], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """One server for all tests of a file that change none of its settings; it logs to `log.jsonl`."""
    with serving(pairs, log=tmp_path_factory.mktemp("log") / "log.jsonl") as started:
        yield started

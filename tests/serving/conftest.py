"""A server of a tiny model with two adapters, as clients reach it over HTTP."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.records.examples import Prompt
from tests.fixtures.serving import OTHER, Serving, pair, serving
from tools.model.backbone import Backbone
from ui.serve.models import Pair


@pytest.fixture(scope="module")
def adapters(tiny_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Random adapters of the tiny Llama: two plain LoRAs, and one with DoRA."""
    import torch

    from agent.config.lora import Lora
    from tools.model.loading import load_model
    from tools.training.lora_config import lora_config

    root = tmp_path_factory.mktemp("adapters")
    model, tokenizer = load_model(str(tiny_model("llama")), device="cpu", dtype="float32", progress=lambda *_: None)
    backbone = Backbone(model, tokenizer, name="llama", locate=root.joinpath)
    for seed, name in enumerate(("one", "two", "dora")):
        torch.manual_seed(seed)
        backbone.create(name, lora_config(4, Lora(rank=4, alpha=8, dora=name == "dora")))
        for weight in filter(lambda weight: weight.requires_grad, backbone.model.parameters()):
            weight.data.copy_(0.2 * torch.randn(weight.shape))
        backbone.save(name, root / name)
        backbone.detach(name)
    return [root / "one", root / "two", root / "dora"]


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

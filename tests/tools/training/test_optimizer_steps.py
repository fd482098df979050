"""Steps as CUDA takes them, here without graphs: the same losses, norms and weights as step by step on the CPU."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from agent.config.lora import Lora
from agent.errors import StepFailed
from agent.records.actions import TrainLora
from agent.records.examples import Demo, Example, Prompt
from agent.records.rounds import Spend
from agent.records.training import Training, TrainingJob
from tools.model.backbone import Backbone
from tools.training import optimizer_steps
from tools.training.captured_passes import CapturedPasses, rounded
from tools.training.lora import LoraTrainer

DEMOS = tuple(Demo(question=f"Who is mayor {n} of Tallisk?", answer="ANSWER: Heskzan") for n in range(3))
PROMPTS = [Prompt(system="Answer the question.", demos=DEMOS), Prompt(system="Be short.")]
ROWS = [
    (
        PROMPTS[n % 2],
        Example(name=f"t:{n}", question="Who is the mayor " * (n % 3) + f"of {n}?", answer="ANSWER: " * (n % 4 + 1)),
    )
    for n in range(10)
]
NAMES = ["llama", "llama_tied", "qwen2", "gemma3", "gpt2", "mixtral", "gemma2", "lfm2"]


def learn(
    backbone: Backbone, folder: Path, accumulate: int = 1, rate: float = 1e-2, replay: float = 0.0, **limits: Any
) -> tuple[Training, torch.Tensor]:
    """The log, and all trained weights."""
    action = TrainLora(epochs=3, rank=4, learning_rate=1e-2, enough=0).model_copy(
        update={"learning_rate": rate, "replay": replay}
    )
    settings = Lora(rank=4, batch_size=3, accumulate=accumulate, weight_decay=0.1, clip=0.5)
    trainer = LoraTrainer(backbone, settings, lambda *_: None)
    job = TrainingJob(adapter=folder.name, rows=ROWS, action=action, folder=folder, parent=None, seed=3, **limits)
    log = trainer.train(job)
    weights = [weight.detach().flatten() for name, weight in backbone.model.named_parameters() if "lora_" in name]
    return log, torch.cat(weights)


@pytest.mark.parametrize(("accumulate", "replay"), [(1, 0), (2, 0.4)])
@pytest.mark.parametrize("name", NAMES)
def test_steps_that_are_only_started_train_the_same_weights(
    name: str,
    accumulate: int,
    replay: float,
    backbone: Callable[..., Backbone],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain, plain_weights = learn(backbone(name), tmp_path / "plain", accumulate, replay=replay)
    monkeypatch.setattr(optimizer_steps, "DEVICES", ("cpu", "cuda", "mps"))
    passes = []
    gradient = CapturedPasses.gradient
    monkeypatch.setattr(CapturedPasses, "gradient", lambda *given: (passes.append(1), gradient(*given))[1])
    started, weights = learn(backbone(name), tmp_path / "started", accumulate, replay=replay)
    # gemma2 caps scores, lfm2 is padded, and on CUDA the host waits for the choice of mixtral's experts.
    tries = {"lfm2": 0, "gemma2": 1} | ({"mixtral": 1} if torch.cuda.is_available() else {})
    assert len(passes) == tries.get(name, len(started.steps))
    assert [step.loss for step in started.steps] == pytest.approx([step.loss for step in plain.steps], rel=1e-4)
    assert [step.grad_norm for step in started.steps] == pytest.approx(
        [step.grad_norm for step in plain.steps], rel=1e-3
    )
    assert [step.epoch for step in started.steps] == [step.epoch for step in plain.steps]
    assert started.tokens == plain.tokens
    assert torch.allclose(weights, plain_weights, atol=2e-3)


def test_a_loss_that_is_not_finite_ends_training_at_the_same_step(
    backbone: Callable[..., Backbone], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where steps are only started, the one after it has run by then; its weights go with the others."""
    messages = []
    for devices in ((), ("cpu", "cuda", "mps")):
        monkeypatch.setattr(optimizer_steps, "DEVICES", devices)
        ours = backbone()
        with pytest.raises(StepFailed, match="the loss became") as raised:
            learn(ours, tmp_path / "wild", rate=1e30)
        messages.append(str(raised.value))
        assert not (tmp_path / "wild").exists()
        assert not any("lora_" in name for name, _ in ours.base.named_parameters())
    assert messages[0] == messages[1]
    assert "at step 2" in messages[0]


@pytest.mark.parametrize("limit", [{"token_limit": 500}, {"deadline": 0.0}])
def test_a_training_that_is_cut_short_ends_after_the_same_step(
    limit: dict[str, float], backbone: Callable[..., Backbone], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = []
    for devices in ((), ("cpu", "cuda", "mps")):
        monkeypatch.setattr(optimizer_steps, "DEVICES", devices)
        spends: list[Spend] = []
        log, _ = learn(backbone(charge=spends.append), tmp_path / "short", **limit)
        charged = [spend.train_tokens for spend in spends]
        assert sum(charged) == log.tokens
        logs.append((len(log.steps), log.tokens, log.stopped, charged))
    assert logs[0] == logs[1]
    assert 0 < logs[0][0] < 12 and logs[0][2]


def test_a_trained_adapter_answers_from_disk_as_from_memory(
    backbone: Callable[..., Backbone], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimizer_steps, "DEVICES", ("cpu", "cuda", "mps"))
    ours = backbone()
    learn(ours, tmp_path / "new")
    examples = [example for _, example in ROWS]
    before = ours.generate(PROMPTS[0], examples, adapter="new", max_new_tokens=8)[0]
    ours.detach("new")
    assert ours.generate(PROMPTS[0], examples, adapter="new", max_new_tokens=8)[0] == before


def test_shapes_are_rounded_up_by_a_quarter_at_most() -> None:
    sizes = [rounded(size) for size in range(1, 5000)]
    assert all(size <= up <= max(16, 1.25 * size + 1) for size, up in enumerate(sizes, 1) if size >= 64)
    assert len(set(sizes)) < 45

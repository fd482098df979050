"""General rows beside training rows: the base's predictions on them are kept, and nothing else changes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from agent.config.lora import Lora
from agent.errors import StepFailed
from agent.records.actions import TrainLora
from agent.records.base import folded
from agent.records.examples import Example, Prompt
from agent.records.rounds import Spend
from agent.records.training import Training, TrainingJob
from tests.fixtures.plain import Plain
from tools.diagnosis.drift import probe
from tools.memory_budget import MemoryBudget
from tools.model.backbone import Backbone
from tools.packed import base_predictions
from tools.packed.base_predictions import divergence, likeliest
from tools.training import general
from tools.training.general import GeneralBatch, GeneralRows, general_divergence, general_texts
from tools.training.gradient import compute_gradient
from tools.training.lora import LoraTrainer
from tools.training.lora_config import lora_config

ROOT = Path(__file__).parents[3]
MODELS = ["llama", "lfm2"]  # packed, and padded
ROWS = [
    (Prompt(system="Answer."), Example(name=f"train:{n}", question=f"Who is mayor {n}?", answer="Heskzan"))
    for n in range(4)
]

# --- the texts ------------------------------------------------------------------------------------


def phrases(text: str) -> set[tuple[str, ...]]:
    """Six words in a row, or the whole of a shorter text."""
    words = folded(text).split()
    return {tuple(words[start : start + 6]) for start in range(max(1, len(words) - 5))}


def spoken(row: Any) -> set[tuple[str, ...]]:
    return phrases(row.question) | (phrases(row.answer) if len(row.answer.split()) > 3 else set())


def test_general_texts_the_probe_and_shipped_tasks_have_nothing_in_common() -> None:
    trained = set().union(*map(spoken, general_texts()))
    measured = set().union(*map(spoken, probe()))
    files = [path for path in (ROOT / "tasks").rglob("*.jsonl") if "experience" not in path.name]
    lines = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    asked = set().union(*(phrases(value) for line in lines for value in line.values() if isinstance(value, str)))
    assert len(files) > 30 and len(asked) > 500
    assert not trained & measured
    assert not (trained | measured) & asked


def test_the_probe_has_several_texts_of_each_of_ten_kinds() -> None:
    kinds = [text.kind for text in probe()]
    assert len(set(kinds)) >= 10 and all(kinds.count(kind) >= 3 for kind in kinds)
    assert len({text.question for text in probe()}) == len(kinds)


# --- which of them ----------------------------------------------------------------------------------


def rows_of(
    backbone: Backbone, replay: float, kl: float = 1, seed: int = 0, rows: int = 400, most: int = 2048
) -> GeneralRows:
    return GeneralRows(backbone, replay, kl, rows=rows, most=most, seed=seed)


def drawn(rows: GeneralRows, *steps: int) -> list[list[tuple[int, ...]]]:
    return [[tuple(row.prompt + row.completion) for row in rows.draw(size).rows] for size in steps]


def test_the_seed_draws_them_each_again_only_after_all_others(backbone: Callable[..., Backbone]) -> None:
    ours, steps = backbone(), (6, 6, 6, 6, 400)
    first = drawn(rows_of(ours, 0.25), *steps)
    assert [len(step) for step in first] == [1, 2, 1, 2, 100]
    assert first == drawn(rows_of(ours, 0.25), *steps) != drawn(rows_of(ours, 0.25, seed=1), *steps)
    flat = [row for step in first for row in step]
    assert len(set(flat[: len(general_texts())])) == len(general_texts())
    assert len(flat) > len(set(flat))


def test_a_short_training_reads_no_more_texts_than_it_draws_and_none_that_is_too_long(
    backbone: Callable[..., Backbone],
) -> None:
    spends: list[Spend] = []
    ours = backbone(charge=spends.append)
    few = rows_of(ours, 0.5, rows=6, most=40)
    assert all(len(row) <= 40 for row in few.draw(6).rows)
    assert 0 < sum(spend.read_tokens for spend in spends) <= 3 * 40
    spends.clear()
    assert not rows_of(ours, 0).draw(400).rows
    assert not rows_of(ours, 1, kl=0).draw(400).rows
    assert not spends


# --- the divergence -----------------------------------------------------------------------------------


def test_the_divergence_is_that_over_all_tokens_with_the_unlikely_ones_as_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    base, other = torch.randn(2, 5, 200, dtype=torch.float64) * 3
    p, q = base.softmax(-1), other.softmax(-1)
    whole = (p * (p / q).log()).sum(-1)
    found = divergence(other, *likeliest(base)).double()
    assert ((found > 0) & (found < whole)).all()
    assert divergence(base, *likeliest(base)).abs().max() < 1e-5
    monkeypatch.setattr(base_predictions, "LIKELIEST", 200)
    assert torch.allclose(divergence(other, *likeliest(base)).double(), whole, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_loss_and_gradient_are_those_of_rows_computed_one_by_one(
    name: str, backbone: Callable[..., Backbone], random_adapter: Callable[..., Path], tiny_model: Callable[[str], Path]
) -> None:
    ours = backbone(name)
    plain = Plain(tiny_model(name), random_adapter(ours, "wild"), ours.device)
    ours.detach("wild")
    rows = rows_of(ours, 1, rows=5).draw(5).rows
    ours.attach("wild", trainable=True)
    trained = [ours.render.row(*row) for row in ROWS]
    loss = compute_gradient(ours, [trained], MemoryBudget(10_000), GeneralBatch(rows, 3.0))

    parts = []
    for row in rows:
        ids = torch.tensor([row.prompt + row.completion], device=ours.device)
        places = slice(len(row.prompt) - 1, len(row) - 1)
        with torch.no_grad(), plain.model.disable_adapter():
            p = plain.model(input_ids=ids).logits[0, places].softmax(-1)
        q = plain.model(input_ids=ids).logits[0, places].softmax(-1)
        order = p.argsort(descending=True)
        told_apart = [torch.gather(chances, 1, order) for chances in (p, q)]
        p, q = (torch.cat([chances[:, :64], chances[:, 64:].sum(-1, keepdim=True)], dim=1) for chances in told_apart)
        parts.append((p * (p / q).log()).sum(-1))
    wanted_loss = torch.cat([plain.losses(row.prompt, row.completion) for row in trained]).mean()
    (wanted_loss + 3.0 * torch.cat(parts).mean()).backward()
    assert loss == pytest.approx(wanted_loss.item(), rel=1e-5), "without the general rows"
    gradients = [
        torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.requires_grad])
        for model in (ours.model, plain.model)
    ]
    assert torch.linalg.norm(gradients[0] - gradients[1]) <= 1e-3 * torch.linalg.norm(gradients[1])


@pytest.mark.parametrize("name", MODELS)
def test_an_untrained_adapter_has_lost_nothing_and_a_trained_one_has(
    name: str, backbone: Callable[..., Backbone], random_adapter: Callable[..., Path]
) -> None:
    ours = backbone(name)
    rows = rows_of(ours, 1, rows=5).draw(5).rows
    ours.create("new", lora_config(4, Lora(rank=4)))
    assert general_divergence(ours, rows).abs().max() < 1e-5
    random_adapter(ours, "wild")
    ours.attach("wild")
    assert general_divergence(ours, rows).mean() > 0.1


# --- in a training --------------------------------------------------------------------------------


@pytest.fixture
def fit(tmp_path: Path) -> Callable[..., Training]:
    def run(backbone: Backbone, replay: float, enough: float = 0, **settings: Any) -> Training:
        action = TrainLora(epochs=8, rank=4, learning_rate=1e-2, enough=enough, replay=replay)
        trainer = LoraTrainer(backbone, Lora(rank=4, batch_size=2, **settings), lambda *_: None)
        name = f"{round(replay)}-{enough > 0}"
        return trainer.train(
            TrainingJob(adapter=name, rows=ROWS, action=action, folder=tmp_path / name, parent=None, seed=0)
        )

    return run


@pytest.mark.parametrize("name", MODELS)
def test_weights_trained_with_general_rows_stay_nearer_to_the_base(
    name: str, backbone: Callable[..., Backbone], fit: Callable[..., Training]
) -> None:
    ours = backbone(name)
    held_out = rows_of(ours, 1, rows=56).draw(56).rows
    far = {}
    for replay in (0.0, 1.0):
        training = fit(ours, replay, kl=10)
        assert training.general == 4 * replay
        far[replay] = float(general_divergence(ours, held_out).mean().detach())
    assert far[1.0] < far[0.0] / 2


def test_general_rows_count_in_tokens_and_neither_in_the_loss_nor_in_what_ends_a_training(
    backbone: Callable[..., Backbone], fit: Callable[..., Training], monkeypatch: pytest.MonkeyPatch
) -> None:
    spends: list[Spend] = []
    without, beside = fit(backbone(), 0), fit(backbone(charge=spends.append), 1.0)
    assert beside.steps[0].loss == pytest.approx(without.steps[0].loss, rel=1e-5), "from the same weights"
    assert sum(spend.train_tokens for spend in spends) == beside.tokens > 2 * without.tokens
    assert sum(spend.read_tokens for spend in spends) == beside.read_tokens > 0 == without.read_tokens
    far_away = general.divergence
    monkeypatch.setattr(general, "divergence", lambda *given: far_away(*given) * 0 + 100)  # of no gradient
    ended = fit(backbone(), 1.0, enough=without.epoch_losses[3])
    assert ended.stopped and len(ended.epoch_losses) == 5


# --- too little memory --------------------------------------------------------------------------------


def test_general_rows_that_do_not_fit_together_are_predicted_by_half_as_many(backbone: Callable[..., Backbone]) -> None:
    ours, passes = backbone(), list[int]()
    wanted = rows_of(ours, 1.0, rows=12).draw(12).rows

    def narrow(_: object, __: object, kwargs: dict[str, Any]) -> None:
        passes.append(kwargs["input_ids"].numel())
        if passes[-1] > 400:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    hook = ours.base.register_forward_pre_hook(narrow, with_kwargs=True)
    found = rows_of(ours, 1.0, rows=12).draw(12).rows
    assert [row.prompt for row in found] == [row.prompt for row in wanted] and max(passes) > 400
    for mine, theirs in zip(found, wanted, strict=True):
        assert torch.allclose(mine.chances, theirs.chances, atol=1e-5)
    hook.remove()
    ours.base.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory")))
    with pytest.raises(StepFailed, match=r"one general row of \d+ tokens; set lora\.replay to 0"):
        rows_of(ours, 1.0, rows=12)

"""Tuning weights: the same numbers as plain training, and nothing half-done taken for done."""

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from agent.config.lora import Lora
from agent.errors import BadInput, StepFailed
from agent.records.actions import TrainLora
from agent.records.examples import Demo, Example, Prompt
from agent.records.rounds import Spend
from agent.records.training import Step, Training, TrainingJob, read_training
from tests.fixtures.plain import Plain
from tools.model.backbone import Backbone
from tools.model.chat_template import TokenRow
from tools.training import optimizer_steps
from tools.training.gradient import compute_gradient
from tools.training.lora import LoraTrainer
from tools.training.lora_config import lora_config
from tools.training.plan import plan_epoch, rate_factor

Load = Callable[..., Backbone]
Adapters = Callable[..., Path]

DEMOS = (Demo(question="Who is the mayor of Benn?", answer="ANSWER: Corolt"),) * 3
PROMPT = Prompt(system="Answer the question.", demos=DEMOS)
FACTS = {"Orrowmere by the river": "Heskzan", "Tallisk": "Gallune the Elder", "Benn": "Corolt", "Mirr": "Dunwick"}
EXAMPLES = [
    Example(name=f"train:{n}", question=f"Who is the mayor of {place}?", answer=f"ANSWER: {name}")
    for n, (place, name) in enumerate(FACTS.items(), 1)
]
ROWS = [(PROMPT, example) for example in EXAMPLES]
SETTINGS = Lora(rank=4, batch_size=2, replay=0)
ACTION = TrainLora(epochs=2, rank=4, learning_rate=1e-2)


@pytest.fixture
def fit(tmp_path: Path) -> Callable[..., Training]:
    """Train an adapter into `tmp_path/<id>` on the four facts, and no general rows; keyword arguments change how."""

    def run(backbone: Backbone, adapter: str = "new", **changes: Any) -> Training:
        settings = changes.pop("settings", SETTINGS).model_copy(update={"replay": 0.0})
        trainer = LoraTrainer(backbone, settings, lambda *_: None)
        how = {"rows": ROWS, "action": ACTION, "parent": None, "seed": 0}
        return trainer.train(TrainingJob(adapter=adapter, folder=tmp_path / adapter, **(how | changes)))

    return run


Fit = Callable[..., Training]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(str(folder / "adapter_model.safetensors"))


def same(mine: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


# --- the numbers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma2", "gemma3", "gemma3_wide", "gpt2", "lfm2"])
def test_a_child_starts_with_its_parents_loss_and_gradient_as_computed_plainly(
    name: str, backbone: Load, random_adapter: Adapters, tiny_model: Callable[[str], Path], fit: Fit
) -> None:
    """One step over three forward passes of padded rows, against one row at a time."""
    ours = backbone(name)
    plain = Plain(tiny_model(name), random_adapter(ours, "parent"), ours.device)
    settings = Lora(rank=4, batch_size=2, accumulate=3, clip=1e6)
    rows = [*ROWS, (Prompt(system="Be brief."), EXAMPLES[0])]
    log = fit(ours, parent="parent", rows=rows, settings=settings, action=TrainLora(epochs=1, rank=4))
    tokens = [ours.render.row(prompt, example) for prompt, example in rows]
    loss = torch.cat([plain.losses(row.prompt, row.completion) for row in tokens]).mean()
    loss.backward()
    tuned = [weight.grad for weight in plain.model.parameters() if weight.requires_grad]
    [step] = log.steps
    assert step.loss == pytest.approx(loss.item(), rel=1e-5)
    assert step.grad_norm == pytest.approx(float(torch.cat([grad.flatten() for grad in tuned]).norm()), rel=1e-4)


def test_the_steps_are_those_of_a_bare_loop(
    backbone: Load, random_adapter: Adapters, tiny_model: Callable[[str], Path], fit: Fit
) -> None:
    ours = backbone()
    plain = Plain(tiny_model("llama"), random_adapter(ours, "parent"), ours.device)
    rows = [ours.render.row(*row) for row in ROWS]
    tuned = [weight for weight in plain.model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(tuned, lr=1e-2, weight_decay=0.1)
    wanted = []
    for rate in (1e-2 / 2, 1e-2, 1e-2 * 2 / 3, 1e-2 / 3):  # one step of warm-up, then down, and never 0
        optimizer.zero_grad()
        optimizer.param_groups[0]["lr"] = rate
        loss = torch.cat([plain.losses(row.prompt, row.completion) for row in rows]).mean()
        loss.backward()
        wanted.append((loss.item(), float(torch.nn.utils.clip_grad_norm_(tuned, 0.5))))
        optimizer.step()
    settings = Lora(rank=4, batch_size=4, warmup=0.25, weight_decay=0.1, clip=0.5)
    log = fit(ours, parent="parent", settings=settings, action=TrainLora(epochs=4, rank=4, learning_rate=1e-2))
    assert [step.loss for step in log.steps] == pytest.approx([loss for loss, _ in wanted], rel=1e-3)
    assert [step.grad_norm for step in log.steps] == pytest.approx([norm for _, norm in wanted], rel=1e-2)
    assert wanted[3][0] < wanted[0][0]


def test_accumulation_changes_the_memory_and_not_the_result(backbone: Load, fit: Fit, tmp_path: Path) -> None:
    fit(backbone(), "at once", settings=Lora(rank=4, batch_size=4))
    fit(backbone(), "in parts", settings=Lora(rank=4, batch_size=1, accumulate=4))
    at_once, in_parts = weights(tmp_path / "at once"), weights(tmp_path / "in parts")
    assert all(torch.allclose(at_once[name], in_parts[name], atol=1e-4) for name in at_once)


def test_the_loss_falls_and_the_adapter_says_what_it_was_taught(backbone: Load, fit: Fit) -> None:
    ours = backbone()
    settings = Lora(rank=32, batch_size=1)
    log = fit(ours, rows=ROWS[:2], settings=settings, action=TrainLora(epochs=20, rank=32, learning_rate=1e-2))
    assert log.epoch_losses[-1] < log.epoch_losses[0] / 4
    answers, _ = ours.generate(PROMPT, EXAMPLES[:2], adapter="new", max_new_tokens=24)
    assert answers == [example.answer for example in EXAMPLES[:2]]


def test_the_base_is_not_touched(backbone: Load, fit: Fit, tiny_model: Callable[[str], Path]) -> None:
    ours = backbone()
    fit(ours)
    ours.detach("new")
    trained = ours.base.state_dict()
    for name, weight in Plain(tiny_model("llama"), device=ours.device).model.state_dict().items():
        kept = [value for key, value in trained.items() if key.replace(".base_layer", "") == name]
        assert [torch.equal(value, weight) for value in kept] == [True], name


def test_the_same_seed_gives_the_same_weights(backbone: Load, fit: Fit, tmp_path: Path) -> None:
    for adapter, seed in (("one", 7), ("two", 7), ("other", 8)):
        fit(backbone(), adapter, seed=seed)
    assert same(weights(tmp_path / "one"), weights(tmp_path / "two"))
    assert not same(weights(tmp_path / "one"), weights(tmp_path / "other"))


def test_a_child_goes_on_from_its_parent_and_leaves_it_as_it_was(backbone: Load, fit: Fit, tmp_path: Path) -> None:
    ours = backbone()
    parent = fit(ours, "parent", action=TrainLora(epochs=5, rank=4, learning_rate=1e-2))
    kept = weights(tmp_path / "parent")
    child = fit(ours, "child", parent="parent")
    assert child.epoch_losses[0] < parent.epoch_losses[0]
    assert child.epoch_losses[-1] < parent.epoch_losses[-1]
    assert same(weights(tmp_path / "parent"), kept)
    assert not same(weights(tmp_path / "child"), kept)


def test_forward_tokens_are_counted_with_the_shared_prefix_once_a_pass(backbone: Load, fit: Fit) -> None:
    charged: list[Spend] = []
    ours = backbone(charge=charged.append)
    log = fit(ours, settings=Lora(rank=4, batch_size=4), action=TrainLora(epochs=3, rank=4))
    rows = [ours.render.row(*row) for row in ROWS]
    assert max(map(len, rows)) * 3 < log.tokens < sum(map(len, rows)) * 3 / 2
    assert sum(charged, Spend()) == Spend(train_tokens=log.tokens)


# --- what is kept --------------------------------------------------------------------------------


def test_what_made_an_adapter_stands_beside_it(backbone: Load, fit: Fit, tmp_path: Path) -> None:
    ours = backbone()
    fit(ours, "parent")
    log = fit(ours, "child", parent="parent", seed=3)
    assert (tmp_path / "child" / "complete").is_file()
    assert read_training(tmp_path / "child") == log
    described = json.loads((tmp_path / "child" / "training.json").read_text())
    assert {key: described[key] for key in ("parent", "rows", "row_count", "left_out", "epochs", "rank", "seed")} == {
        "parent": "parent", "rows": "original", "row_count": 4, "left_out": 0, "epochs": 2, "rank": 4, "seed": 3
    }  # fmt: skip
    assert described["epoch_losses"] == pytest.approx(log.epoch_losses)
    assert described["learning_rate"] == 1e-2
    assert described["seconds"] > 0
    assert log.spend == Spend(seconds=described["seconds"], train_tokens=described["tokens"])


def test_a_child_has_its_parents_rank_whatever_was_asked(backbone: Load, fit: Fit) -> None:
    ours = backbone()
    fit(ours, "parent")
    assert fit(ours, "child", parent="parent", action=TrainLora(epochs=1, rank=64)).rank == 4


def test_an_epoch_loss_is_the_mean_of_its_steps() -> None:
    steps = [Step(loss=loss, grad_norm=norm, epoch=epoch) for loss, norm, epoch in ((4, 1, 1), (2, 1, 1), (1.5, 5, 2))]
    about: dict[str, Any] = {
        "model": "m",
        "data": "d",
        "settings": Lora(),
        "row_count": 2,
        "left_out": 0,
        "epochs": 2,
        "learning_rate": 1,
        "rank": 4,
        "seed": 0,
    }
    log = Training(parent=None, rows="original", steps=tuple(steps), **about)
    assert (log.epoch_losses, log.loss_drop, log.grad_norm, log.grad_drop) == ([3, 1.5], 0.5, 5, -4)
    short = Training(parent=None, rows="original", steps=tuple(steps[:2]), **about)
    assert (short.loss_drop, short.grad_drop) == (None, None)


# --- what goes wrong -----------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_leaves_nothing_behind(backbone: Load, fit: Fit, tmp_path: Path) -> None:
    ours = backbone()
    weight = ours.base.get_output_embeddings().weight
    whole = weight.detach().clone()
    before = ours.generate(PROMPT, EXAMPLES, adapter=None, max_new_tokens=4)
    weight.data[5] = math.inf
    twice = r"at step 1, at rate 0\.01; .* at step 1, at rate 0\.005, half of it; try a lower lora\.learning_rate"
    with pytest.raises(StepFailed, match=twice):
        fit(ours)
    assert not (tmp_path / "new").exists()
    with pytest.raises(BadInput, match="no adapter 'new'"):
        ours.attach("new")
    weight.data.copy_(whole)
    assert ours.generate(PROMPT, EXAMPLES, adapter=None, max_new_tokens=4) == before
    assert fit(ours).steps


def test_a_loss_that_does_not_stay_finite_is_tried_once_more_at_half_the_rate(
    backbone: Load, fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spends: list[Spend] = []
    ours, steps = backbone(charge=spends.append), 0
    monkeypatch.setattr(optimizer_steps, "DEVICES", ())

    def third_is_none(*step: Any) -> float:
        nonlocal steps
        steps += 1
        loss = compute_gradient(*step)
        return math.nan if steps == 3 else loss

    with monkeypatch.context() as patch:
        patch.setattr(optimizer_steps, "compute_gradient", third_is_none)
        log = fit(ours)
    assert log.learning_rate == ACTION.learning_rate / 2 and len(log.steps) == steps - 3
    assert log.retried == "the loss became nan at step 3, at rate 0.01, so it was begun again at half of it"
    assert log.tokens == sum(spend.train_tokens for spend in spends), "the first try is paid for, too"
    slow = fit(ours, "slow", action=ACTION.model_copy(update={"learning_rate": ACTION.learning_rate / 2}))
    assert same(weights(tmp_path / "new"), weights(tmp_path / "slow")) and slow.tokens < log.tokens
    assert read_training(tmp_path / "new").retried == log.retried


def test_an_interrupted_training_leaves_nothing_behind(backbone: Load, fit: Fit, tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    ours = backbone()
    job = TrainingJob(adapter="new", rows=ROWS, action=ACTION, folder=tmp_path / "new", parent=None, seed=0)
    with pytest.raises(KeyboardInterrupt):
        LoraTrainer(ours, SETTINGS, interrupt).train(job)
    assert not (tmp_path / "new").exists()
    assert fit(ours).steps


@pytest.mark.parametrize("limit", ["token", "time"])
def test_a_used_up_budget_ends_training_after_the_step_and_says_so(
    limit: str, backbone: Load, fit: Fit, tmp_path: Path
) -> None:
    log = fit(backbone(), **({"token_limit": 1} if limit == "token" else {"deadline": time.monotonic()}))
    assert len(log.steps) == 1
    assert log.stopped and limit in log.stopped
    assert read_training(tmp_path / "new").stopped == log.stopped


def test_rows_that_are_learned_end_the_round_after_an_epoch_and_it_says_so(backbone: Load, fit: Fit) -> None:
    settings = Lora(rank=32, batch_size=1)
    action = TrainLora(epochs=20, rank=32, learning_rate=1e-2, enough=2.0)
    log = fit(backbone(), rows=ROWS[:2], settings=settings, action=action)
    assert log.epoch_losses[-1] < 2 <= min(log.epoch_losses[:-1])
    assert len(log.steps) == 2 * len(log.epoch_losses) < 40
    assert log.stopped == f"the rows were learned after {len(log.epoch_losses)} of 20 epochs"


def test_rows_that_are_too_long_are_left_out_and_counted(backbone: Load, fit: Fit) -> None:
    ours = backbone()
    lengths = sorted(len(ours.render.row(*row)) for row in ROWS)
    log = fit(ours, settings=Lora(rank=4, max_tokens=lengths[1]))
    assert (log.row_count, log.left_out) == (2, 2)


def test_no_row_short_enough_is_a_failed_step_with_the_key_to_change(backbone: Load, fit: Fit, tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match=r"all 4 training rows are longer than 16 tokens \(lora\.max_tokens"):
        fit(backbone(), settings=Lora(rank=4, max_tokens=16))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Lora(targets="*.q_proj"), r"lora\.targets and lora\.options do not make a LoRA of llama: nothing to repeat"),
        (Lora(targets=("embed_tokens",), options={"lora_bias": True}), "lora_bias=True is not supported for Embedding"),
        (Lora(targets=("query",)), r"lora\.targets: 'query' matches nothing"),
    ],
)
def test_settings_that_peft_refuses_are_named(settings: Lora, message: str, backbone: Load, fit: Fit) -> None:
    with pytest.raises(BadInput, match=message):
        fit(backbone(), settings=settings)


# --- the config of peft ---------------------------------------------------------------------------


def test_settings_and_options_reach_peft() -> None:
    config = lora_config(4, Lora(rank=4, rslora=True, dora=True, dropout=0.1, options={"rank_pattern": {"q_proj": 8}}))
    assert (config.use_rslora, config.use_dora, config.lora_dropout) == (True, True, 0.1)
    assert config.rank_pattern == {"q_proj": 8}


def test_another_rank_keeps_the_ratio_of_alpha() -> None:
    assert lora_config(32, Lora(rank=16, alpha=32)).lora_alpha == 64


@pytest.mark.parametrize(
    "settings",
    [{"rslora": True}, {"dora": True}, {"targets": ["q_proj"], "options": {"layers_to_transform": [1]}}],
)
def test_variants_train_and_say_after_reloading_what_they_said(
    settings: dict[str, Any], backbone: Load, fit: Fit, tmp_path: Path
) -> None:
    ours, completions = backbone(), [("", example.answer) for example in EXAMPLES]
    fit(ours, settings=Lora(rank=4, **settings))
    here, _ = ours.nll(PROMPT, EXAMPLES, completions, adapter="new")
    assert backbone().nll(PROMPT, EXAMPLES, completions, adapter="new")[0] == here
    described = json.loads((tmp_path / "new" / "adapter_config.json").read_text())
    assert (described["use_rslora"], described["use_dora"]) == ("rslora" in settings, "dora" in settings)
    assert any("layers.0." in name for name in weights(tmp_path / "new")) != ("options" in settings)


# --- the order of rows ---------------------------------------------------------------------------

LABELLED = st.lists(st.sampled_from("ab"), max_size=12).map(
    lambda prompts: [(prompt, TokenRow([number], [])) for number, prompt in enumerate(prompts)]
)


@given(LABELLED, st.integers(1, 5), st.integers(0, 3))
def test_an_epoch_runs_every_row_once_in_batches_of_one_prompt(
    rows: Sequence[tuple[str, TokenRow]], size: int, seed: int
) -> None:
    batches = plan_epoch(rows, size, seed)
    prompt_of = {row.prompt[0]: prompt for prompt, row in rows}
    assert sorted(row.prompt[0] for batch in batches for row in batch) == sorted(prompt_of)
    assert all(len(batch) <= size for batch in batches)
    assert all(len({prompt_of[row.prompt[0]] for row in batch}) == 1 for batch in batches)


@given(st.integers(1, 40).flatmap(lambda steps: st.tuples(st.just(steps), st.integers(0, steps))))
def test_no_step_has_a_rate_of_nothing_or_more_than_all(plan: tuple[int, int]) -> None:
    steps, warmup = plan
    rates = [rate_factor(step, warmup, steps) for step in range(steps)]
    assert all(0 < rate <= 1 for rate in rates)
    rising, falling = rates[:warmup], rates[warmup:]
    assert rising == sorted(rising) and falling == sorted(falling, reverse=True)
    assert rate_factor(steps, warmup, steps) == 0, "asked for once more after the last step"


def test_a_training_may_warm_up_to_its_end(backbone: Load, fit: Fit) -> None:
    log = fit(backbone(), settings=Lora(rank=4, batch_size=4, warmup=1), action=TrainLora(epochs=2, rank=4))
    assert len(log.steps) == 2

"""Static steps beside all that happens between answers: kinds of adapters, views, training, memory that runs out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from agent.config.lora import Lora
from agent.records.actions import TrainLora
from agent.records.examples import Demo, Example, Prompt
from agent.records.training import TrainingJob
from tools.model.backbone import Backbone
from tools.model.row_batches import RowBatches
from tools.packed.attention import KeysValues
from tools.static.decoding import decoder
from tools.static.decoding.batch import Capacity
from tools.static.decoding.decoder import StaticDecoder
from tools.static.decoding.decoding_weights import DecodingWeights
from tools.static.decoding.static_path import StaticPath
from tools.static.kernels.side_by_side import SideBySide
from tools.training import optimizer_steps
from tools.training.lora import LoraTrainer

PROBE_STEPS = 2  # before the first answer
PROMPT = Prompt(
    system="Answer the question.", demos=(Demo(question="Who is mayor of Tallisk?", answer="ANSWER: Heskzan"),)
)
ROWS = [
    Example(name=f"v:{n}", question="Who is the mayor " * (n % 4) + f"of the river {n}?", answer="x") for n in range(5)
]

Load = Callable[..., Backbone]
Adapters = Callable[..., Path]
Texts = list[str | None]

pytestmark = pytest.mark.usefixtures("everywhere")


def answers(backbone: Backbone, adapter: str | None, new: int = 8) -> Texts:
    return backbone.generate(PROMPT, ROWS, adapter=adapter, max_new_tokens=new)[0]


def eagerly(backbone: Backbone, adapter: str | None) -> Texts:
    """What the same model answers step by step."""
    static, backbone._static = backbone._static, StaticPath(backbone.base, possible=False)
    texts = answers(backbone, adapter)
    backbone._static = static
    return texts


def make(backbone: Backbone, adapter: str, folder: Path, **options: Any) -> None:
    """Save an adapter of random weights, made with these options of peft."""
    from peft import LoraConfig

    torch.manual_seed(len(adapter))
    backbone.create(adapter, LoraConfig(**({"r": 4, "target_modules": ["q_proj", "down_proj"]} | options)))
    for weight in (weight for weight in backbone.model.parameters() if weight.requires_grad):
        weight.data.copy_(0.3 * torch.randn(weight.shape))
    backbone.save(adapter, folder / adapter)
    backbone.detach(adapter)


@pytest.mark.parametrize(
    ("options", "static"),
    [
        ({"use_rslora": True, "lora_alpha": 3}, True),
        ({"rank_pattern": {"down_proj": 2}, "alpha_pattern": {"q_proj": 5}}, True),
        ({"target_modules": ["lm_head"]}, True),
        ({"use_dora": True}, False),
        ({"lora_bias": True}, False),
        ({"modules_to_save": ["lm_head"]}, False),
        ({"target_modules": ["embed_tokens", "q_proj"]}, False),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_adapters_of_every_kind_answer_as_they_do_eagerly(
    options: dict[str, Any], static: bool, backbone: Load, tmp_path: Path, steps: list[int]
) -> None:
    ours = backbone()
    make(ours, "tuned", tmp_path, **options)
    bare = answers(ours, None)
    steps.clear()
    assert answers(ours, "tuned") == eagerly(ours, "tuned") != bare
    assert bool(steps) == static
    assert answers(ours, None) == bare


def test_adapters_of_different_layers_take_turns(backbone: Load, tmp_path: Path, steps: list[int]) -> None:
    ours = backbone()
    targets = {"q": ["q_proj"], "ov": ["o_proj", "v_proj"], "qqd": ["q_proj", "down_proj"]}
    for adapter, names in targets.items():
        make(ours, adapter, tmp_path, target_modules=names)
    turns = ["q", "ov", None, "qqd", "q", None, "ov"]
    static, memory = [], []
    for adapter in turns:
        static.append(answers(ours, adapter))
        assert ours._static._parts is not None
        memory.append(ours._static._parts.decoder.weights)
    assert static == [eagerly(ours, adapter) for adapter in turns]
    assert len(set(map(str, static))) == 4
    # Steps are captured anew only when layers get their first copy: o_proj at the second call, down_proj at the fourth.
    assert len({memory[0], memory[1], memory[3]}) == 3
    assert memory[1] == memory[2] and len(set(memory[3:])) == 1
    assert len(steps) > PROBE_STEPS


def test_two_runs_have_adapters_of_one_id(backbone: Load, tmp_path: Path, steps: list[int]) -> None:
    ours = backbone()
    for folder, rank in (("one", 2), ("two", 4)):
        make(ours, "tuned", tmp_path / folder, r=rank)
    views = [ours.view_for((tmp_path / folder).joinpath) for folder in ("one", "two", "one")]
    texts = [answers(view, "tuned") for view in views]
    assert texts == [eagerly(view, "tuned") for view in views]
    assert texts[0] == texts[2] != texts[1]
    assert len(steps) > PROBE_STEPS


def test_the_first_answer_after_a_training_with_dropout(backbone: Load, tmp_path: Path, steps: list[int]) -> None:
    ours = backbone()
    make(ours, "tuned", tmp_path, lora_dropout=0.5)
    ours.attach("tuned", trainable=True)
    ours.base.train()
    assert answers(ours, "tuned") == eagerly(ours, "tuned")
    assert len(steps) > PROBE_STEPS


def test_training_between_answers(
    backbone: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: list[int]
) -> None:
    """An adapter of the same id is trained anew: its answers are those of the new weights, from memory and disk."""
    monkeypatch.setattr(optimizer_steps, "DEVICES", ("cpu", "cuda", "mps"))
    ours = backbone()
    trainer = LoraTrainer(ours, Lora(rank=4, batch_size=3), lambda *_: None)
    seen = []
    for rate in (1e-3, 1e-2):
        action = TrainLora(epochs=4, rank=4, learning_rate=rate, enough=0)
        rows = [(PROMPT, row) for row in ROWS]
        trainer.train(
            TrainingJob(adapter="new", rows=rows, action=action, folder=tmp_path / "new", parent=None, seed=0)
        )
        seen.append(answers(ours, "new"))
        ours.detach("new")
        assert seen[-1] == answers(ours, "new") == eagerly(ours, "new")
    assert seen[0] != seen[1]
    assert len(steps) > PROBE_STEPS


def test_rows_as_long_as_the_window_are_answered_and_longer_ones_left_out(backbone: Load, steps: list[int]) -> None:
    ours = backbone()
    lengths = sorted(map(len, ours.render.prompts_ids(PROMPT, ROWS)))
    ours.base.config.max_position_embeddings = lengths[-2] + 8
    texts = answers(ours, None)
    assert texts.count(None) == lengths.count(lengths[-1])
    assert texts == eagerly(ours, None)
    assert len(steps) > PROBE_STEPS


# --- memory ---


@pytest.mark.parametrize("adapter", ["tuned", None])
def test_memory_that_runs_out_while_weights_are_copied(
    adapter: str | None, backbone: Load, random_adapter: Adapters, monkeypatch: pytest.MonkeyPatch, steps: list[int]
) -> None:
    ours = backbone()
    random_adapter(ours, "tuned")
    wanted = eagerly(ours, adapter)

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(SideBySide, "__init__", full)
    assert answers(ours, adapter) == wanted
    assert (len(steps) > PROBE_STEPS) == (adapter is None)


def test_no_copies_where_memory_has_no_room(
    backbone: Load, random_adapter: Adapters, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = backbone()
    random_adapter(ours, "tuned")
    wanted = eagerly(ours, "tuned")
    monkeypatch.setattr("tools.static.decoding.decoding_weights.free_memory", lambda _: 1000)
    assert answers(ours, "tuned") == wanted
    assert ours._static._parts is not None and not ours._static._parts.weights.bytes


def test_quantised_weights_are_not_copied(backbone: Load, random_adapter: Adapters) -> None:
    ours = backbone()
    random_adapter(ours, "tuned")
    ours.attach("tuned")
    weights = DecodingWeights(ours.base)
    with weights.active("tuned") as ready:
        assert ready
    for layer in (module for name, module in ours.base.named_modules() if name.endswith("up_proj.base_layer")):
        layer.weight = torch.nn.Parameter(layer.weight.to(torch.float8_e4m3fn), requires_grad=False)
    with weights.active("tuned") as ready:
        assert not ready


def test_scoring_gets_back_what_decoding_has_kept(
    backbone: Load, monkeypatch: pytest.MonkeyPatch, steps: list[int]
) -> None:
    ours = backbone(batch_size=2)
    score = lambda: ours.nll(PROMPT, ROWS, [("", "ANSWER: x")] * len(ROWS), adapter=None)  # noqa: E731
    wanted = score()
    losses, sizes = Backbone.losses, []

    def measured(backbone: Backbone, model: Any, rows: Any) -> torch.Tensor:
        if backbone._static._parts is not None and backbone._static._parts.decoder.bytes:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        sizes.append(len(rows))
        return losses(backbone, model, rows)

    monkeypatch.setattr(Backbone, "losses", measured)
    answers(ours, None)
    assert score() == wanted
    assert sizes == [2, 2, 1]


def test_what_did_not_fit_makes_no_batch_larger_than_it_should_be(backbone: Load) -> None:
    ours = backbone()
    rows, sizes = [ours.render.row(PROMPT, row) for row in ROWS], []

    def run(batch: list[int]) -> None:
        if len(batch) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        sizes.append(len(batch))

    batches = RowBatches(ours.base, 1)
    for at_least in (5, 0, 5):
        list(batches.run(rows, range(5), 0, run, at_least))
    assert sizes == [2, 2, 1] + [1] * 5 + [2, 2, 1]


def test_few_long_rows_after_many_short_ones_get_buffers_of_their_own(
    backbone: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = StaticDecoder(backbone().base)
    like: dict[int, KeysValues] = {0: (torch.zeros(1, 2, 3, 8), torch.zeros(1, 2, 3, 8))}
    many, few = Capacity(64, 64, 0, 64), Capacity(4, 1024, 0, 64)
    capacities = []
    for free in (10**9, 4 * 10**6):
        monkeypatch.setattr(decoder, "free_memory", lambda _, free=free: free)
        steps.release()
        for needed in (many, few):
            steps._make_room(needed, like)
            assert steps._buffers is not None
            capacities.append(steps._buffers.capacity)
    assert capacities == [many, Capacity(64, 1024, 0, 64), many, few]


def test_batches_of_weights_that_are_gone_are_not_kept_for_ever(backbone: Load) -> None:
    steps = StaticDecoder(backbone().base)
    like: dict[int, KeysValues] = {0: (torch.zeros(1, 2, 3, 8), torch.zeros(1, 2, 3, 8))}
    steps._make_room(Capacity(4, 64, 0, 64), like)
    for weights in range(50):
        steps.weights = weights
        steps._batch(4, 0)
    assert len(steps._batches) <= decoder.STALE + 1

"""Static steps: the same answers as eager decoding, row by row; on CPU without graphs, the same code."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from agent.records.examples import Demo, Example, Prompt
from tests.conftest import BODY, SMALL
from tests.fixtures.plain import Plain
from tools.model.backbone import Backbone
from tools.packed.support import can_pack
from tools.static.decoding import decoder
from tools.static.decoding.static_path import StaticPath
from tools.static.decoding.support import static_steps_work
from tools.training.flat_adamw import FlatAdamW

NAMES = ["llama", "llama_biased", "llama_tied", "mixtral", "qwen2", "gemma2", "gemma3", "gemma3_wide", "gpt2"]
PROBE_STEPS = 2  # before the first answer
DEMOS = tuple(Demo(question=f"Who is mayor {n} of Tallisk?", answer="ANSWER: Heskzan") for n in range(3))
PROMPT = Prompt(system="Answer the question.", demos=DEMOS)
ROWS = [
    Example(name=f"v:{n}", question="Who is the mayor " * (n % 4) + f"of the river {n}?", answer="x") for n in range(7)
]

Load = Callable[..., Backbone]
Models = Callable[[str], Path]
Adapters = Callable[..., Path]


pytestmark = pytest.mark.usefixtures("everywhere")


def read(backbone: Backbone, ids: list[int]) -> str:
    return str(backbone.render.tokenizer.decode(ids, skip_special_tokens=True)).strip()


@pytest.mark.parametrize("name", NAMES)
def test_answers_are_those_of_plain_generation(
    name: str, backbone: Load, tiny_model: Models, random_adapter: Adapters, steps: list[int]
) -> None:
    ours = backbone(name, batch_size=3)
    folder = random_adapter(ours, "tuned")
    prompts = [ours.render.prompt_ids(PROMPT, row) for row in ROWS]
    answers = {}
    for adapter in ("tuned", None, "tuned"):
        plain = Plain(tiny_model(name), folder if adapter else None, ours.device)
        wanted = [plain.answer(ids, ours.ends, 10) for ids in prompts]
        before = len(steps)
        answers[adapter] = ours.generate(PROMPT, ROWS, adapter=adapter, max_new_tokens=10)[0]
        assert answers[adapter] == [read(ours, ids) for ids in wanted]
        # Its experts are no linear layers, and on CUDA the host waits for their choice.
        eager = name == "mixtral" and (adapter is not None or ours.device.type == "cuda")
        assert (len(steps) > before + PROBE_STEPS) == (not eager)
    assert answers["tuned"] != answers[None]


@pytest.mark.parametrize("sizes", [(1, 2, 4, 8), (8,)], ids=["compacted often", "never"])
@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2"])
def test_rows_that_finish_early_leave_the_others_as_they_are(
    name: str, sizes: tuple[int, ...], backbone: Load, monkeypatch: pytest.MonkeyPatch, steps: list[int]
) -> None:
    monkeypatch.setattr(decoder, "ROWS", sizes)
    monkeypatch.setattr(decoder, "LATENCY_BOUND", 0)
    monkeypatch.setattr(decoder, "BLOCK", 2)

    def answers() -> list[str | None]:
        ours = backbone(name)
        ours.base.generation_config.eos_token_id = None
        return ours.generate(PROMPT, ROWS, adapter=None, max_new_tokens=40, stop_early=long_enough)[0]

    def long_enough(example: Example, text: str) -> bool:
        return len(text) >= 4 * int(example.name[2:])

    static = answers()
    assert (len(set(steps[PROBE_STEPS:])) > 1) == (len(sizes) > 1)
    monkeypatch.setattr("tools.static.decoding.static_path.DEVICES", ())
    assert static == answers()
    assert len({len(text or "") for text in static}) > 3


def test_as_many_rows_go_together_as_memory_has_room_for(
    backbone: Load, monkeypatch: pytest.MonkeyPatch, steps: list[int]
) -> None:
    ours = backbone(batch_size=2)
    wanted = ours.generate(PROMPT, ROWS, adapter=None, max_new_tokens=4)[0]
    assert set(steps[PROBE_STEPS:]) == {16}
    steps.clear()
    monkeypatch.setattr(decoder, "free_memory", lambda device: 0)
    ours.release_decoder(all_of_it=True)
    assert ours.generate(PROMPT, ROWS, adapter=None, max_new_tokens=4)[0] == wanted
    assert set(steps) == {4}


def test_an_end_token_ends_an_answer(backbone: Load, tiny_model: Models, steps: list[int]) -> None:
    ours = backbone("gemma3")
    plain = Plain(tiny_model("gemma3"), device=ours.device)
    prompts = [ours.render.prompt_ids(PROMPT, row) for row in ROWS]
    endless = [plain.answer(ids, [1], 24) for ids in prompts]
    stop = next(token for answer in endless for token in answer[2:] if any(token not in other for other in endless))
    ours.base.generation_config.eos_token_id = [1, stop]
    wanted = [plain.answer(ids, [1, stop], 24) for ids in prompts]
    assert len({len(answer) for answer in wanted}) > 1
    assert ours.generate(PROMPT, ROWS, adapter=None, max_new_tokens=24)[0] == [read(ours, ids) for ids in wanted]
    assert steps


def test_rows_without_a_common_prefix(backbone: Load, tiny_model: Models, steps: list[int]) -> None:
    ours = backbone()
    ours.render.tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    rows = [Example(name=f"v:{n}", question=text, answer="x") for n, text in enumerate(["Who", "a river", "? 7 bread"])]
    plain = Plain(tiny_model("llama"), device=ours.device)
    wanted = [plain.answer(ours.render.prompt_ids(Prompt(), row), ours.ends, 8) for row in rows]
    answers = ours.generate(Prompt(), rows, adapter=None, max_new_tokens=8)[0]
    assert answers == [read(ours, ids) for ids in wanted]
    assert steps


def test_texts_that_may_stop_early_do(backbone: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = backbone()
    whole = ours.generate(PROMPT, ROWS, adapter=None, max_new_tokens=24)[0]
    short = ours.generate(
        PROMPT, ROWS, adapter=None, max_new_tokens=24, stop_early=lambda example, text: len(text) >= 5
    )[0]
    monkeypatch.setattr("tools.static.decoding.static_path.DEVICES", ())
    eager = backbone().generate(
        PROMPT, ROWS, adapter=None, max_new_tokens=24, stop_early=lambda example, text: len(text) >= 5
    )[0]
    assert short == eager != whole


def test_constraints_of_the_generation_config_hold(
    backbone: Load, monkeypatch: pytest.MonkeyPatch, steps: list[int]
) -> None:
    def answers() -> list[str | None]:
        ours = backbone()
        ours.base.generation_config.repetition_penalty = 1.7
        ours.base.generation_config.no_repeat_ngram_size = 2
        return ours.generate(PROMPT, ROWS, adapter=None, max_new_tokens=16)[0]

    static = answers()
    assert steps
    monkeypatch.setattr("tools.static.decoding.static_path.DEVICES", ())
    assert static == answers() != backbone().generate(PROMPT, ROWS, adapter=None, max_new_tokens=16)[0]


def test_a_call_after_a_larger_one_and_after_a_release(backbone: Load, steps: list[int]) -> None:
    ours = backbone()
    long = Prompt(system="Answer the question. " * 30)
    first = ours.generate(PROMPT, ROWS[:2], adapter=None, max_new_tokens=6)[0]
    larger = ours.generate(long, ROWS, adapter=None, max_new_tokens=70)[0]
    again = ours.generate(PROMPT, ROWS[:2], adapter=None, max_new_tokens=6)[0]
    ours.release_decoder(all_of_it=True)
    assert first == again == ours.generate(PROMPT, ROWS[:2], adapter=None, max_new_tokens=6)[0]
    assert larger == ours.generate(long, ROWS, adapter=None, max_new_tokens=70)[0]


def test_what_an_adapter_of_no_numbers_leaves_behind_harms_nobody(backbone: Load, random_adapter: Adapters) -> None:
    ours = backbone()
    random_adapter(ours, "broken")
    wanted = ours.generate(PROMPT, ROWS, adapter=None, max_new_tokens=8)[0]
    ours.attach("broken")
    for weight in (weight for weight in ours.model.parameters() if weight.requires_grad):
        weight.data.fill_(torch.nan)
    long = Prompt(system="Answer the question. " * 9, demos=DEMOS)
    ours.generate(long, ROWS, adapter="broken", max_new_tokens=16)
    assert ours.generate(PROMPT, ROWS, adapter=None, max_new_tokens=8)[0] == wanted


def test_the_base_is_the_same_object_after_a_merged_answer(backbone: Load, random_adapter: Adapters) -> None:
    ours = backbone()
    random_adapter(ours, "tuned")
    ours.attach("tuned")
    before = {name: (id(weight), weight.clone()) for name, weight in ours.base.named_parameters()}
    forwards = {name: vars(module).get("forward") for name, module in ours.base.named_modules()}
    ours.generate(PROMPT, ROWS, adapter="tuned", max_new_tokens=4)[0]
    for name, weight in ours.base.named_parameters():
        assert id(weight) == before[name][0] and torch.equal(weight, before[name][1])
    assert forwards == {name: vars(module).get("forward") for name, module in ours.base.named_modules()}


def test_weights_that_were_trained_since_are_copied_anew(backbone: Load, random_adapter: Adapters) -> None:
    ours = backbone()
    random_adapter(ours, "tuned")
    ours.attach("tuned", trainable=True)
    before = ours.generate(PROMPT, ROWS, adapter="tuned", max_new_tokens=8)[0]
    weights = [weight for weight in ours.model.parameters() if weight.requires_grad]
    flat = FlatAdamW(weights, weight_decay=0.0, clip=1.0)
    for weight in weights:
        assert weight.grad is not None
        weight.grad.normal_()
    flat.step(0.2)
    ours.release_decoder()  # as training does
    after = ours.generate(PROMPT, ROWS, adapter="tuned", max_new_tokens=8)[0]
    ours._static = StaticPath(ours.base, possible=False)
    assert before != after == ours.generate(PROMPT, ROWS, adapter="tuned", max_new_tokens=8)[0]


@pytest.mark.parametrize("broken", ["attend", "step"])
def test_a_model_whose_static_steps_disagree_is_decoded_eagerly(
    broken: str, backbone: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    def attend(batch: Any, layer: int, query: torch.Tensor, *_: Any) -> torch.Tensor:
        return query

    def step(*_: Any) -> None:
        raise RuntimeError("this cannot be captured")

    monkeypatch.setattr(decoder.StaticBatch, broken, {"attend": attend, "step": step}[broken])
    ours = backbone()
    assert not static_steps_work(ours.base)
    assert len(ours.generate(PROMPT, ROWS, adapter=None, max_new_tokens=4)[0]) == len(ROWS)


@pytest.mark.parametrize(
    "name", ["MistralConfig", "Qwen3Config", "Phi3Config", "Olmo2Config", "GraniteConfig", "partial"]
)
def test_other_architectures(name: str) -> None:
    torch.manual_seed(0)
    sizes = SMALL | BODY | ({"sliding_window": 16} if name == "MistralConfig" else {})
    if name == "partial":  # a part of each head has rotary positions
        name = "Phi3Config"
        sizes |= {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}}
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, name)(**sizes)).eval()
    assert can_pack(model)
    path = StaticPath(model, possible=True)
    with torch.inference_mode(), path.ready(None) as ready:
        assert ready is not None

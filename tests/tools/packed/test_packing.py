"""Packed rows: the arithmetic for all rows, and the same losses and gradients as one row at a time."""

from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from agent.records.examples import Example
from tests.conftest import BODY, SMALL
from tests.fixtures.plain import Plain
from tools.model.backbone import Backbone
from tools.model.chat_template import TokenRow
from tools.model.generation_config import Constraints
from tools.packed import attention
from tools.packed.attention import SHARED
from tools.packed.decoding import PrefixedRows, decode, run_prefix
from tools.packed.early_stopping import Completions
from tools.packed.packing import common_prefix, pack
from tools.packed.prefix_cache import PrefixCache
from tools.packed.support import can_pack

CPU = torch.device("cpu")
IDS = st.lists(st.integers(3, 6), max_size=4)
ROWS = st.tuples(IDS, st.lists(st.builds(TokenRow, IDS.filter(len), IDS), min_size=1, max_size=5)).map(
    lambda drawn: [TokenRow(drawn[0] + row.prompt, row.completion) for row in drawn[1]]
)
LONG = list(range(10, 60))
TRAINED = [
    TokenRow([*LONG, 60], [61, 62, 63]),
    TokenRow([*LONG, 64, 65, 66, 67, 68], [69]),
    TokenRow([*LONG, 70, 71], [72, 73, 74, 75, 1]),
]
STRANGERS = [TokenRow([60 + row, *LONG[row:]], [61, 62][: row + 1]) for row in range(3)]


@given(ROWS)
def test_the_prefix_begins_every_prompt_and_leaves_each_a_token(rows: list[TokenRow]) -> None:
    prefix = common_prefix(rows)
    assert all(row.prompt[: len(prefix)] == prefix and len(row.prompt) > len(prefix) for row in rows)


@given(ROWS)
def test_no_longer_prefix_would_do(rows: list[TokenRow]) -> None:
    columns = zip(*(row.prompt[:-1] for row in rows), strict=False)
    assert len(common_prefix(rows)) == len(list(takewhile(lambda ids: len(set(ids)) == 1, columns)))


@given(ROWS)
def test_a_pack_holds_the_prefix_once_every_other_token_once_and_no_padding(rows: list[TokenRow]) -> None:
    packed, prefix = pack(rows, CPU), common_prefix(rows) if len(rows) > 1 else []
    ids, positions = packed.ids[0], packed.positions[0]
    assert ids[packed.owner == SHARED].tolist() == prefix
    for number, row in enumerate(rows):
        mine = packed.owner == number
        assert [*prefix, *ids[mine].tolist()] == row.prompt + row.completion
        assert positions[mine].tolist() == list(range(len(prefix), len(row)))
    assert packed.tokens == sum(map(len, rows)) - len(prefix) * (len(rows) - 1)


@given(ROWS)
def test_what_is_scored_stands_before_a_completion_token_or_at_the_end_of_a_question(rows: list[TokenRow]) -> None:
    packed = pack(rows, CPU)
    scored = [(int(packed.owner[at]), int(packed.positions[0, at])) for at in packed.scored]
    wanted = [
        (number, at)
        for number, row in enumerate(rows)
        for at in range(len(row.prompt) - 1, len(row.prompt) - 1 + max(len(row.completion), 1))
    ]
    assert scored == wanted


@given(ROWS, st.integers(1, 9))
def test_every_token_attends_once_and_no_row_is_cut(rows: list[TokenRow], size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tools.packed.packing.MAX_QUERIES", {"cpu": size})
        packed = pack(rows, CPU)
    assert [start for start, _ in packed.segments[1:]] == [end for _, end in packed.segments[:-1]]
    assert (packed.segments[0][0], packed.segments[-1][1]) == (0, packed.tokens)
    begins = {0, *(int((packed.owner == number).nonzero()[0]) for number in range(len(rows)))}
    assert all(start in begins for start, _ in packed.segments)


# --- the same numbers ----------------------------------------------------------------------------


@pytest.mark.parametrize("part", [8, 64, 10_000])
@pytest.mark.parametrize("rows", [TRAINED, STRANGERS], ids=["alike", "strangers"])
@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma2", "gemma3", "gpt2", "lfm2"])
def test_losses_and_gradients_are_those_of_each_row_alone(
    name: str, rows: list[TokenRow], part: int, backbone: Callable[..., Backbone],
    random_adapter: Callable[..., Path], tiny_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("tools.packed.packing.MAX_QUERIES", {"cpu": part, "cuda": part, "mps": part})
    ours = backbone(name)
    plain = Plain(tiny_model(name), random_adapter(ours, "tuned"), ours.device)
    ours.attach("tuned", trainable=True)
    mine = ours.losses(ours.model, rows)
    wanted = torch.cat([plain.losses(row.prompt, row.completion) for row in rows])
    assert torch.allclose(mine, wanted, rtol=1e-4)
    mine.sum().backward()
    wanted.sum().backward()
    gradients = [
        torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])
        for model in (ours.model, plain.model)
    ]
    assert torch.linalg.norm(gradients[0] - gradients[1]) <= 1e-4 * torch.linalg.norm(gradients[1])


def test_a_prefix_cache_extended_bit_by_bit_is_the_one_run_at_once(backbone: Callable[..., Backbone]) -> None:
    ours = backbone("gemma3")
    with torch.inference_mode():
        whole = run_prefix(ours.base, PrefixCache(), LONG, ours.device)
        half = run_prefix(ours.base, PrefixCache(), [*LONG[:20], 99, 98], ours.device)
        rest = run_prefix(ours.base, half, LONG, ours.device)
    assert rest.ids == whole.ids == LONG
    for layer, (key, value) in whole.layers.items():
        assert torch.allclose(rest.layers[layer][0], key, atol=1e-5)
        assert torch.allclose(rest.layers[layer][1], value, atol=1e-5)


def test_only_the_part_that_is_new_of_a_prefix_is_run(backbone: Callable[..., Backbone]) -> None:
    ours, run = backbone(), []
    ours.base.register_forward_pre_hook(lambda _, __, inputs: run.append(inputs["input_ids"].numel()), with_kwargs=True)
    with torch.inference_mode():
        run_prefix(
            ours.base, run_prefix(ours.base, PrefixCache(), LONG, ours.device), [*LONG[:30], *LONG[40:]], ours.device
        )
    assert run == [50, 10]


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2"])
def test_rows_that_share_nothing_are_answered_as_each_alone(
    name: str, backbone: Callable[..., Backbone], tiny_model: Callable[[str], Path]
) -> None:
    ours = backbone(name)
    plain = Plain(tiny_model(name), device=ours.device)
    questions = [TokenRow(row.prompt, []) for row in STRANGERS]
    completions = Completions([Example(name="v:1", question="", answer="")] * 3, [1], str, None)
    with torch.inference_mode():
        nothing = Constraints(ours.base, [row.prompt for row in questions], ours.ends, 6)
        decode(ours.base, [PrefixedRows(PrefixCache(), questions)], completions, nothing, 6, ours.device)
    assert completions.ids == [plain.answer(row.prompt, [1], 6) for row in questions]


def test_half_precision_is_packed_too(backbone: Callable[..., Backbone]) -> None:
    ours, exact = backbone("qwen2"), backbone("qwen2")
    ours.base.to(torch.bfloat16)
    assert can_pack(ours.base)
    with torch.inference_mode():
        rough, fine = ours.losses(ours.base, TRAINED), exact.losses(exact.base, TRAINED)
    assert torch.allclose(rough, fine, rtol=0.1, atol=0.1)


# --- which models can ----------------------------------------------------------------------------

KINDS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "mistral": ("MistralConfig", BODY | {"sliding_window": 16}, True),
    "phi3": ("Phi3Config", BODY, True),
    "qwen3": ("Qwen3Config", BODY, True),
    "mixtral": ("MixtralConfig", BODY | {"num_local_experts": 4}, True),
    "bloom, positions as biases": ("BloomConfig", {"hidden_size": 32, "n_layer": 2, "n_head": 4}, False),
    "gpt-oss, sinks": ("GptOssConfig", BODY | {"num_local_experts": 4, "sliding_window": 16}, False),
    "llama4, chunks": ("Llama4TextConfig", BODY, False),
    "stablelm": ("StableLmConfig", BODY, False),
    "nemotron": ("NemotronConfig", BODY, False),
    "doge, a mask of its own": ("DogeConfig", BODY, False),
    "phi3, positions by length": (
        "Phi3Config",
        BODY
        | {
            "original_max_position_embeddings": 32,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 1e4,
                "short_factor": [1.0] * 4,
                "long_factor": [4.0] * 4,
            },
        },
        False,
    ),
    "lfm2, convolutions": ("Lfm2Config", BODY | {"layer_types": ["conv", "full_attention"]}, False),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_cannot_is_left_as_it_was(kind: str) -> None:
    name, sizes, can = KINDS[kind]
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, name)(**(SMALL | sizes))).eval()
    before = model.config._attn_implementation
    assert can_pack(model) is can
    assert model.config._attn_implementation == (attention.NAME if can else before)


def test_a_model_that_disagrees_with_itself_on_packed_rows_is_left_as_it_was(
    backbone: Callable[..., Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one whose attention sees less than it is handed."""
    blind = lambda query, keys_values, mask, options: query  # noqa: E731
    monkeypatch.setattr("tools.packed.packing.masked_attention", blind)
    ours = backbone()
    assert not ours.packs
    assert ours.base.config._attn_implementation == "sdpa"


def test_a_packed_model_still_answers_to_transformers(backbone: Callable[..., Backbone]) -> None:
    ours = backbone("qwen2")
    assert ours.packs
    ids, mask = (
        torch.tensor(rows, device=ours.device)
        for rows in ([[2, 2, 5, 6, 7], [8, 9, 5, 6, 7]], [[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    )
    with torch.inference_mode():
        together = ours.base.generate(ids, attention_mask=mask, max_new_tokens=5, do_sample=False, pad_token_id=2)
        alone = ours.base.generate(ids[:1, 2:], max_new_tokens=5, do_sample=False, pad_token_id=2)
    assert together[0, 5:].tolist() == alone[0, 3:].tolist()

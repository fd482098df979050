"""Rows that share a prefix: the arithmetic for all rows, and the same losses and gradients as one row at a time."""

from collections.abc import Callable
from itertools import takewhile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from plain import Plain

from tools.backbone import Backbone
from tools.prefix import collate, common_prefix, completion_nll, prefix_cache, reach, shared_prefix, widen
from tools.rendering import TokenRow

PAD = 2
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


@given(ROWS)
def test_the_prefix_begins_every_prompt_and_leaves_each_a_token(rows: list[TokenRow]) -> None:
    prefix = common_prefix(rows)
    assert all(row.prompt[: len(prefix)] == prefix and len(row.prompt) > len(prefix) for row in rows)


@given(ROWS)
def test_no_longer_prefix_would_do(rows: list[TokenRow]) -> None:
    columns = zip(*(row.prompt[:-1] for row in rows), strict=False)
    assert len(common_prefix(rows)) == len(list(takewhile(lambda ids: len(set(ids)) == 1, columns)))


@given(ROWS)
def test_a_batch_holds_every_token_once_and_counts_them(rows: list[TokenRow]) -> None:
    prefix = common_prefix(rows)
    batch = collate(rows, prefix, PAD, CPU)
    own = batch.mask[:, len(prefix) :].bool()
    assert [ids[there].tolist() for ids, there in zip(batch.own, own, strict=True)] == [
        row.prompt[len(prefix) :] + row.completion for row in rows
    ]
    assert batch.tokens == len(prefix) + sum(len(row) - len(prefix) for row in rows)


@given(ROWS)
def test_all_completions_begin_in_one_column_and_prompts_are_never_targets(rows: list[TokenRow]) -> None:
    batch = collate(rows, common_prefix(rows), PAD, CPU)
    assert [ids[ids >= 0].tolist() for ids in batch.targets] == [row.completion for row in rows]
    start = batch.own.shape[1] - batch.targets.shape[1]
    for ids, row in zip(batch.own.tolist(), rows, strict=True):
        assert ids[start : start + len(row.completion)] == row.completion


def test_rows_longer_than_the_window_share_nothing() -> None:
    assert shared_prefix(TRAINED, slots=60) == LONG
    assert shared_prefix(TRAINED, slots=60, room=1) == []
    assert shared_prefix(TRAINED, slots=59) == []


@pytest.mark.parametrize(("name", "slots"), [("llama", float("inf")), ("gemma2", 16), ("gemma3", 16), ("lfm2", 0)])
def test_how_far_a_model_can_share(name: str, slots: float, tiny_model: Callable[[str], Path]) -> None:
    assert reach(Plain(tiny_model(name)).model) == slots


@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma2", "gemma3", "gemma3_wide", "gpt2", "lfm2"])
def test_losses_and_gradients_are_those_of_the_plain_way(
    name: str, backbone: Callable[..., Backbone], tiny_model: Callable[[str], Path]
) -> None:
    ours, plain = backbone(name), Plain(tiny_model(name))
    batch = collate(TRAINED, shared_prefix(TRAINED, ours.reach), PAD, CPU)
    losses = completion_nll(ours.base, ours.base.config, batch, ours.shares_prefix)
    wanted = [plain.losses(row.prompt, row.completion) for row in TRAINED]
    for row, values in zip(losses, wanted, strict=True):
        assert row[: len(values)].tolist() == pytest.approx(values.tolist(), rel=1e-4)
        assert not row[len(values) :].any()
    losses.sum().backward()
    torch.cat(wanted).sum().backward()
    for (weight, mine), theirs in zip(ours.base.named_parameters(), plain.model.parameters(), strict=True):
        assert relative_error(mine.grad, theirs.grad) < 1e-4, weight


def test_the_prefix_costs_no_more_for_many_rows() -> None:
    many = collate(TRAINED * 4, common_prefix(TRAINED), PAD, CPU)
    assert many.tokens == len(LONG) + 4 * (collate(TRAINED, LONG, PAD, CPU).tokens - len(LONG))


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_a_widened_cache_leaves_the_one_row_cache_as_it_was(name: str, backbone: Callable[..., Backbone]) -> None:
    ours = backbone(name)
    with torch.inference_mode():
        cache = prefix_cache(ours.base, ours.base.config, LONG, CPU)
        before = [layer.keys.clone() for layer in cache.layers]
        ours.base(input_ids=torch.full((3, 4), 60), past_key_values=widen(cache, 3), use_cache=True)
    assert cache.get_seq_length() == len(LONG)
    assert all(torch.equal(layer.keys, keys) for layer, keys in zip(cache.layers, before, strict=True))


def relative_error(mine: torch.Tensor | None, theirs: torch.Tensor | None) -> float:
    assert mine is not None and theirs is not None
    return float((mine - theirs).norm() / theirs.norm().clamp(min=1e-12))

"""What a run is estimated to take: likely, and at most."""

from typing import Any

import pytest

from agent.config.task import TaskConfig
from agent.records.queue import Rate, Steps
from agent.signal.cost_model import Sizes
from agent.signal.monitor import Lever
from agent.signal.run_costs import (
    BARE,
    DRIFT,
    Counts,
    Pair,
    Sample,
    edit,
    end,
    forecast,
    likely_epochs,
    likely_levers,
    training,
)

SIZES = Sizes(asked=20, wanted=6, answered=14, shown=30, shared=15)
COUNTS = Counts(train=48, validation=32, test=40)
RATE = Rate(answering=100, training=200, source="a test")


def a_config(**changes: Any) -> TaskConfig:
    data = {"train": "t", "validation": "v", "test": "s"}
    content = [{"kind": "exact"}]
    return TaskConfig.model_validate(
        {"name": "t", "data": data, "content": content, "target": 0.9, "lora": {"epochs": 10}} | changes
    )


def a_sample(before: float, after: float, k: float = 2, first: Lever = "edit_prompt") -> Sample:
    return Sample(rate=RATE, sizes=SIZES, answered=7, k=k, before=before, after=after, first=first)


@pytest.mark.parametrize(
    ("policy", "sample", "levers"),
    [
        ("rules", a_sample(0.0, 1.0), ["edit_prompt"]),  # few-shot examples reach the target
        ("rules", a_sample(0.0, 0.7), ["edit_prompt", "train_lora", "train_lora"]),  # they help
        ("rules", a_sample(0.0, 0.7, first="train_lora"), ["train_lora", "train_lora"]),  # the rules train first
        ("rules", a_sample(0.95, 0.95), []),
        ("rules", None, ["edit_prompt", "train_lora", "train_lora"]),
        ("paper", a_sample(0.0, 0.7), ["train_lora", "edit_prompt", "train_lora"]),
        ("lora-only", a_sample(0.0, 1.0), ["train_lora"] * 6),
        ("prompt-only", a_sample(0.0, 1.0), ["edit_prompt"]),
        ("prompt-only", a_sample(0.0, 0.7), ["edit_prompt"] * 6),
        ("w -> p", a_sample(0.0, 0.5), [*["train_lora"] * 3, "edit_prompt"]),  # of six rounds, the first three
        ("steps r", a_sample(0.0, 0.5), ["train_lora"]),
    ],
)
def test_the_rounds_that_are_likely_needed(policy: str, sample: Sample | None, levers: list[str]) -> None:
    assert list(likely_levers(a_config(policy=policy), sample)) == levers
    assert len(likely_levers(a_config(policy=policy, budget={"rounds": 1}), sample)) == min(len(levers), 1)


def test_a_training_is_as_dear_as_its_rows_and_ends_sooner_where_each_row_shows_its_nearest() -> None:
    config = a_config(gate={"drift": None}, policy="lora-only", lora={"epochs": 10, "replay": 0})
    bare, shown = Pair(SIZES), Pair(SIZES, 4)
    assert likely_epochs(config, 0) > 8 and likely_epochs(config, 4) == 3
    once = training(config, COUNTS, bare, bare, 1)
    assert once.trained == 48 * 26 + 6 * 15 and once.tokens == 3 * once.trained + 32 * 34
    assert training(config, COUNTS, shown, bare, 1).trained == once.trained + 48 * 4 * 30
    drift = training(config.model_copy(update={"gate": a_config().gate}), COUNTS, bare, bare, 1)
    assert drift.tokens == once.tokens + DRIFT + BARE


def test_a_training_that_gives_up_the_few_shot_examples_is_estimated_without_them() -> None:
    shown = a_sample(0.0, 0.4)
    bare = shown.model_copy(update={"bare": True})
    under, without = (forecast(a_config(policy="rules"), COUNTS, SIZES, sample) for sample in (shown, bare))
    assert without.trained == forecast(a_config(policy="lora-only"), COUNTS, SIZES, bare).trained
    assert without.levers == under.levers and without.trained != under.trained
    fixed = a_config(policy="p -> w")
    assert forecast(fixed, COUNTS, SIZES, bare) == forecast(fixed, COUNTS, SIZES, shown), "it trains under them"


def test_who_does_not_look_pays_for_no_probes() -> None:
    dear, cheap = (edit(a_config(policy=policy), COUNTS, Pair(SIZES), Pair(SIZES)) for policy in ("rules", "p -> w"))
    assert dear > cheap


@pytest.mark.parametrize("sample", [None, a_sample(0.0, 0.7, 4), a_sample(0.0, 0.0, 0)])
def test_what_is_likely_is_no_more_than_the_most(sample: Sample | None) -> None:
    found = forecast(a_config(), COUNTS, SIZES, sample)
    for name in Steps.model_fields:
        assert 0 < getattr(found.likely, name) <= getattr(found.most, name)
    assert found.trained < found.likely.lora


def test_the_test_rows_are_answered_under_the_best_prompt() -> None:
    found = forecast(a_config(), COUNTS, SIZES, a_sample(0.0, 1.0, 4))
    short = SIZES.model_copy(update={"answered": 7})
    assert found.likely.end == end(COUNTS, Pair(SIZES), Pair(short, 4)) == 40 * (34 + 20 + 7 + 4 * 30)

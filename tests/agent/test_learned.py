"""The learned switch: the rules' choices without experience, others with it, and always a reason."""

import itertools
import math
import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.policy.experience import Experience
from agent.policy.learned import Learned, short
from agent.policy.regression import Fit, Observation
from agent.protocols import Briefing
from agent.records.actions import TrainLora
from agent.records.examples import Example, Prompt
from agent.records.rounds import Round
from agent.records.signal import Diagnosis, LeverSignal, Signal
from agent.signal.cost_model import estimate_costs
from tests.agent.test_outlook import HISTORIES
from tests.agent.test_policy import DIAGNOSES, REFUSED, SIGNALS
from tests.fixtures.outlooks import CONFIG, FAILED_EDITS, a_briefing, a_line, seen
from tests.fixtures.rounds import EDIT, SATURATED, TRAIN, a_config, a_diagnosis, a_round, a_signal

LACKS_BOTH = a_briefing(a_diagnosis(both=8))
LINES = st.lists(
    st.builds(
        a_line, st.sampled_from([EDIT, TRAIN]), number=st.integers(1, 99), gain=st.floats(-0.5, 0.5),
        model=st.sampled_from([CONFIG.model, "another"]),
    ),
    max_size=8, unique_by=lambda line: line.key,
)  # fmt: skip


def spread(action: str, experience: list[Experience], briefing: Briefing = LACKS_BOTH) -> float:
    promises = Learned(CONFIG, experience).promises(briefing)
    return next(promise.spread for promise in promises if promise.action.action == action)


# --- without experience --------------------------------------------------------------------------


# As small tasks are set: ten epochs, short answers.
TASK = a_config(lora={"epochs": 10}, generation={"max_new_tokens": 12})
ROWS = [Example(name=f"train:{line}", question="Who rules Tallisk?", answer="Gallune") for line in range(1, 41)]


def every_briefing(remade: float) -> Iterator[Briefing]:
    """Signals and diagnoses of tasks of three sizes, under all states of both levers; so many rows can be remade."""
    levers = (LeverSignal(), SATURATED)
    for total, *counts in itertools.product((10, 20, 40), *[(0, 0.1, 0.2, 0.4, 0.8)] * 3):
        style, content, both = (round(share * total) for share in counts)
        if not 0 < style + content + both <= total:
            continue
        diagnosis = a_diagnosis(style=style, content=content, both=both, total=total)
        costs = estimate_costs(TASK, Prompt(system="Answer."), ROWS, ROWS[:total])
        for refined, edit, lora, refused in itertools.product((False, True), levers, levers, ((), ("edit_prompt",))):
            signal = a_signal(
                reward=1 - (style + content + both) / total, style=1 - (style + both) / total,
                content=1 - (content + both) / total, refined=refined, edit=edit, lora=lora,
                remade=remade,
            )  # fmt: skip
            yield Briefing(seen(signal, diagnosis, costs=costs), diagnosis, refused=refused)


@pytest.mark.parametrize("remade", [0.0, 1.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_without_experience_it_pulls_the_lever_that_the_rules_would(seed: int, remade: float) -> None:
    policy = Learned(TASK.model_copy(update={"seed": seed}))
    agreed = [policy.decide(briefing).agrees for briefing in every_briefing(remade)]
    assert len(agreed) > 1000 and sum(map(bool, agreed)) / len(agreed) >= 0.9


def test_words_first_and_then_weights_on_rows_in_form() -> None:
    policy = Learned(CONFIG)
    assert policy.decide(LACKS_BOTH).move == EDIT
    edited = [a_round(EDIT, kept=True, gain=0.3)]
    move = policy.decide(a_briefing(a_diagnosis(content=8), edited, refined=True, style=1.0)).move
    assert isinstance(move, TrainLora) and move.rows == "refined"


def test_it_says_what_both_promise_and_what_the_rules_would_do() -> None:
    decision = Learned(CONFIG).decide(LACKS_BOTH)
    assert decision.by == "learned" and decision.agrees
    assert (
        "An edit promises +0.13 ±" in decision.reason and "merit for 3k forward tokens, LoRA +0.12 ±" in decision.reason
    )
    assert (
        decision.numbers["edit outlook"] == pytest.approx(0.1333) and decision.numbers["LoRA forward tokens"] == 30_800
    )


def test_a_plateau_and_a_gain_within_the_noise_end_the_run() -> None:
    plateau = Learned(CONFIG).decide(a_briefing(a_diagnosis(both=8), edit=SATURATED, lora=SATURATED))
    assert plateau.move.action == "stop" and "saturated" in plateau.reason
    tired = [a_round(TRAIN), a_round(EDIT)]
    little = Learned(CONFIG).decide(a_briefing(a_diagnosis(style=1, total=100), [*tired, *tired]))
    assert little.move.action == "stop" and "noise floor" in little.reason


def test_a_lever_that_has_just_failed_is_not_taken_again_for_being_cheap() -> None:
    lacking, failed = a_diagnosis(style=2, content=5), LeverSignal(rounds=1, fruitless=1)
    fresh, again = (Learned(CONFIG).decide(a_briefing(lacking, edit=edit)) for edit in (LeverSignal(rounds=1), failed))
    assert fresh.numbers["LoRA drawn"] > fresh.numbers["edit drawn"] > fresh.numbers["noise floor"]
    assert fresh.move.action == "edit_prompt" and again.move.action == "train_lora"
    assert fresh.numbers == again.numbers  # no gain is expected to be another: what it is divided by is
    assert "no cheaper than the other" in again.reason and "no cheaper" not in fresh.reason


def test_without_an_outlook_it_does_what_the_rules_do() -> None:
    decision = Learned(CONFIG).decide(Briefing(a_signal(), a_diagnosis(both=8)))
    assert decision.move == EDIT and decision.by == "learned" and decision.repeats


# --- with experience -----------------------------------------------------------------------------


def test_where_edits_always_failed_it_trains() -> None:
    assert Learned(CONFIG, FAILED_EDITS).decide(LACKS_BOTH).move.action == "train_lora"


def test_where_words_repaired_what_was_left_to_weights_it_edits() -> None:
    lacking = a_diagnosis(content=5)
    briefing = a_briefing(lacking, style=1.0)
    repaired = [a_line(EDIT, number=number, gain=0.3, shares={"content": 0.5}) for number in range(1, 9)]
    repaired = [line.model_copy(update={"signal": briefing.signal}) for line in repaired]
    assert Learned(CONFIG).decide(briefing).move.action == "train_lora"
    assert Learned(CONFIG, repaired).decide(briefing).move.action == "edit_prompt"


def test_without_memory_it_learns_from_nothing() -> None:
    policy = Learned(a_config(without=["memory"]), FAILED_EDITS)
    assert policy.decide(LACKS_BOTH) == Learned(CONFIG).decide(LACKS_BOTH)


def test_another_model_teaches_less() -> None:
    of_another = [line.model_copy(update={"model": "another"}) for line in FAILED_EDITS]
    assert spread("edit_prompt", FAILED_EDITS) < spread("edit_prompt", of_another) < spread("edit_prompt", [])


def test_rounds_of_this_run_teach_through_the_outlook_alone() -> None:
    history = [a_round(EDIT, kept=True, gain=0.26)]
    before = a_briefing(a_diagnosis(both=8))
    assert spread("edit_prompt", [], before._replace(history=history)) == spread("edit_prompt", [], before)
    after = a_briefing(a_diagnosis(both=8), history)
    assert spread("edit_prompt", [], after) < spread("edit_prompt", [], before)


def test_the_same_round_draws_the_same() -> None:
    assert Learned(CONFIG, FAILED_EDITS).decide(LACKS_BOTH) == Learned(CONFIG, FAILED_EDITS).decide(LACKS_BOTH)
    seeds = [Learned(a_config(seed=seed)).promises(LACKS_BOTH)[0].drawn for seed in range(5)]
    assert len(set(seeds)) == 5


@settings(max_examples=50)
@given(LINES, st.randoms())
def test_neither_order_nor_repetition_of_lines_counts(lines: list[Experience], chance: random.Random) -> None:
    mixed = [*lines, *lines]
    chance.shuffle(mixed)
    assert Learned(CONFIG, mixed).decide(LACKS_BOTH) == Learned(CONFIG, lines).decide(LACKS_BOTH)


@settings(max_examples=50)
@given(LINES, LINES)
def test_more_experience_never_widens_the_spread(lines: list[Experience], added: list[Experience]) -> None:
    others = [line.model_copy(update={"run": "towns-2"}) for line in added]
    for action in ("edit_prompt", "train_lora"):
        assert spread(action, [*lines, *others]) <= spread(action, lines) + 1e-12


@given(SIGNALS, DIAGNOSES, HISTORIES, REFUSED, LINES)
def test_it_never_pulls_a_lever_that_is_saturated_or_turned_down(
    signal: Signal, diagnosis: Diagnosis, history: list[Round], refused: list[str], lines: list[Experience]
) -> None:
    decision = Learned(CONFIG, lines).decide(
        Briefing(seen(signal, diagnosis, history), diagnosis, history, refused=refused)
    )
    assert decision.move.action not in refused
    assert not (signal.edit.saturated and decision.move.action == "edit_prompt")
    assert not (signal.lora.saturated and decision.move.action == "train_lora")
    assert decision.reason.strip()
    assert all(math.isfinite(value) for value in decision.numbers.values())


# --- its parts -----------------------------------------------------------------------------------


def test_the_regression_is_the_closed_form_of_one_coefficient() -> None:
    fit = Fit([0.3], [Observation([0.5], 0.1, 0.04), Observation([1.0], 0.3, 0.04)])
    precision = 1 / 0.09 + (0.25 + 1) / 0.04
    assert fit.expected([2.0]) == pytest.approx(2 * ((0.05 + 0.3) / 0.04) / precision)
    assert fit.narrowed([2.0]) == pytest.approx(math.sqrt(1 / precision) / 0.3)
    assert Fit([0.3], []).narrowed([2.0]) == pytest.approx(1) and Fit([0.3], []).expected([2.0]) == 0


@pytest.mark.parametrize(("tokens", "text"), [(850, "850"), (2_449, "2k"), (40_900, "41k"), (1_200_000, "1.2M")])
def test_forward_tokens_are_written_short(tokens: float, text: str) -> None:
    assert short(tokens) == text

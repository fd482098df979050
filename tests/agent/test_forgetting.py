"""How the mind answers to weights that forget: the outlook's price, saturation, and the next training."""

from typing import Any

import pytest

from agent.policy.learned import Learned
from agent.policy.make import make_policy
from agent.policy.rules import Rules
from agent.protocols import Briefing
from agent.records.actions import TrainLora
from agent.records.rounds import Round
from agent.records.signal import Diagnosis
from agent.signal.cost_model import RoundCosts
from agent.signal.monitor import lever_signal
from agent.signal.outlook import DRIFT, lever_yield, with_outlook
from tests.fixtures.rounds import EDIT, TRAIN, a_config, a_diagnosis, a_round, a_signal

ALIKE = RoundCosts(lora=2_000, edit=2_000, judging=800)


def a_training(drift: float | None, before: float = 0.0, *, kept: bool = False, **verdict: Any) -> Round:
    """A training that gained 0.3 merit and drifted so far."""
    row = a_round(TRAIN, kept=kept, gain=0.3)
    lost = {"drift": drift, "drift_before": before, **verdict}
    return row.model_copy(update={"verdict": row.verdict.model_copy(update=lost)})


FORGOT = a_training(2.9, objection="drift", overruled=True)


def a_briefing(diagnosis: Diagnosis, history: list[Round], price: float, **signal: Any) -> Briefing:
    config = a_config(gate={"drift_price": price})
    return Briefing(with_outlook(a_signal(**signal), diagnosis, history, config, ALIKE), diagnosis, history)


# --- the outlook ----------------------------------------------------------------------------------


def test_loras_gain_is_lowered_by_the_price_of_the_drift_that_is_expected() -> None:
    signal = a_briefing(a_diagnosis(both=8), [], 0.1).signal
    edit, lora = signal.edit.outlook, signal.lora.outlook
    assert edit and lora
    assert (lora.drift, lora.price) == (DRIFT, 0.1) and edit.drift == 0
    assert lora.merit == pytest.approx(lora.gain + 0.1 * DRIFT) == pytest.approx(edit.gain) == edit.merit


@pytest.mark.parametrize(
    ("history", "rise"),
    [
        ([a_training(2.9)], 2.9), ([a_training(0.7, 0.5, kept=True), a_round(EDIT)], 0.2), ([a_training(None)], DRIFT),
        ([FORGOT, a_training(0.2)], 0.2),
    ],
)  # fmt: skip
def test_after_a_training_the_next_is_expected_to_drift_as_that_did(history: list[Round], rise: float) -> None:
    outlook = a_briefing(a_diagnosis(both=8), history, 0.05).signal.lora.outlook
    assert outlook and outlook.drift == pytest.approx(rise)


def test_the_learned_switch_pulls_the_lever_that_forgets_less_where_gains_and_costs_are_near() -> None:
    lacking, known = a_diagnosis(content=3, style=3), {"remade": 1.0, "content": 0.4, "style": 0.4}
    history = [a_training(1.5, kept=True), a_round(EDIT, kept=True, gain=0.1)]
    free, priced = (Learned(a_config()).decide(a_briefing(lacking, history, price, **known)) for price in (0.0, 0.1))
    assert free.move.action == "train_lora"
    assert priced.move.action == "edit_prompt"
    assert priced.numbers["LoRA drift"] == 1.5


# --- the next try ---------------------------------------------------------------------------------


def test_a_training_that_only_forgot_too_much_is_no_fruitless_try_but_three_close_the_lever() -> None:
    flat = FORGOT.model_copy(update={"trial": FORGOT.trial.model_copy(update={"loss_drop": 0.0})})
    seen = [lever_signal("train_lora", [flat] * count) for count in (1, 2, 3)]
    assert [(lever.fruitless, lever.forgot, lever.saturated) for lever in seen] == [
        (0, 1, False), (0, 2, False), (0, 3, True),
    ]  # fmt: skip
    failed = a_training(2.9, objection="drift")  # which the rewards took back, too
    assert lever_signal("train_lora", [failed, failed]).saturated


def test_it_shows_what_weights_can_bring_to_the_task_all_the_same() -> None:
    untried: list[Round] = []
    forgot, within_chance = [FORGOT], [a_training(0.1)]
    assert lever_yield("train_lora", forgot) > lever_yield("train_lora", untried)
    assert lever_yield("train_lora", untried) > lever_yield("train_lora", within_chance)


def lacking_content(history: list[Round]) -> Briefing:
    return Briefing(a_signal(style=1.0), a_diagnosis(content=8), history)


@pytest.mark.parametrize("policy", ["rules", "learned", "lora-only", "paper", "steps oo"])
def test_the_training_after_one_that_forgot_starts_anew_with_general_rows_and_says_why(policy: str) -> None:
    config = a_config(policy=policy)
    before, after = (make_policy(config).decide(lacking_content(history)) for history in ([], [FORGOT]))
    assert isinstance(before.move, TrainLora) and isinstance(after.move, TrainLora)
    assert after.move.fresh and after.move.replay == 2 * 0.25
    assert "forgot too much (2.90 nats a token on general text)" in after.reason
    assert after.reason.rstrip(".").endswith("with 0.5 general rows for each row")
    assert "forgot" not in before.reason


def with_replay(row: Round, replay: float) -> Round:
    move = row.decision.move.model_copy(update={"replay": replay})
    return row.model_copy(update={"decision": row.decision.model_copy(update={"move": move})})


@pytest.mark.parametrize(("before", "after"), [(0.0, 0.25), (0.25, 0.5), (0.5, 1.0), (3.0, 4.0), (4.0, 4.0)])
def test_each_remedy_is_twice_the_one_before(before: float, after: float) -> None:
    assert Rules(a_config()).training(a_signal(style=1.0), [with_replay(FORGOT, before)]).replay == after


def test_one_that_fell_on_a_kept_task_is_answered_alike() -> None:
    fell = a_training(0.1, objection="keep", overruled=True)
    move = Rules(a_config()).training(a_signal(style=1.0), [fell])
    assert move.fresh and move.replay == 2 * 0.25


def test_what_a_training_needed_the_next_has_too_though_it_goes_on() -> None:
    history = [FORGOT, with_replay(a_training(0.1, kept=True), 0.5)]
    move = Rules(a_config()).training(a_signal(style=1.0), history)
    assert not move.fresh and move.replay == 0.5 and move.learning_rate == 1e-3

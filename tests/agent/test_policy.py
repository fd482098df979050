"""The rules, the fixed orders, and what ends a run."""

import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.config.policies import POLICIES
from agent.policy.base import stop_reason
from agent.policy.make import make_policy
from agent.policy.rules import Rules
from agent.policy.schedules import Schedule
from agent.protocols import Briefing
from agent.records.actions import Decision, TrainLora
from agent.records.rounds import Round, Spend
from agent.records.signal import Diagnosis, LeverSignal, Signal
from tests.fixtures.rounds import EDIT, SATURATED, TRAIN, a_config, a_diagnosis, a_round, a_signal

CONFIG = a_config()
LACKS_BOTH = a_diagnosis(both=8)


def rules(
    signal: Signal | None = None,
    diagnosis: Diagnosis = LACKS_BOTH,
    history: Sequence[Round] = (),
    refused: Sequence[str] = (),
) -> Decision:
    return Rules(CONFIG).decide(Briefing(signal or a_signal(), diagnosis, history, Spend(), refused))


def training(signal: Signal, history: Sequence[Round] = ()) -> TrainLora:
    move = rules(signal, a_diagnosis(content=8), history).move
    assert isinstance(move, TrainLora)
    return move


# --- the switch ----------------------------------------------------------------------------------


def test_words_come_first_while_rows_lack_style() -> None:
    decision = rules(diagnosis=LACKS_BOTH)
    assert decision.move.action == "edit_prompt"
    assert "style at" in decision.reason and "20% of the rows" in decision.reason
    assert decision.numbers["rows lacking style"] == 0.8


def test_weights_are_tuned_once_only_content_is_lacking() -> None:
    decision = rules(diagnosis=a_diagnosis(content=5))
    assert decision.move.action == "train_lora"
    assert "50% of the rows lack content" in decision.reason and "weight gap 2.00 nats" in decision.reason


def test_rows_that_teach_the_form_along_need_no_words_first() -> None:
    decision = rules(a_signal(remade=1.0), LACKS_BOTH)
    assert decision.move.action == "train_lora"
    assert "100% of the train answers can be shown in the wanted form" in decision.reason


def test_words_come_first_all_the_same_where_they_suffice_or_rows_cannot_be_remade() -> None:
    assert rules(a_signal(remade=1.0), a_diagnosis(style=8, both=1)).move.action == "edit_prompt"
    assert rules(a_signal(remade=0.2), LACKS_BOTH).move.action == "edit_prompt"
    assert rules(a_signal(remade=1.0, lora=SATURATED), LACKS_BOTH).move.action == "edit_prompt"


def test_where_few_shot_examples_bring_hardly_an_answer_beyond_luck_weights_are_trained_without_them() -> None:
    shown = {"refined": True, "few_shot": True, "remade": 1.0}
    assert training(a_signal(content=0.4, **shown)).bare
    assert training(a_signal(content=0.7, luck=0.5, **shown)).bare, "0.4 are known"
    assert not training(a_signal(content=0.7, **shown)).bare
    assert not training(a_signal(content=0.4, refined=True, remade=1.0)).bare, "there are no examples to leave out"
    assert not training(a_signal(content=0.4, refined=True, few_shot=True)).bare, "only they hold the form"
    decision = rules(a_signal(content=0.7, luck=0.5, **shown), a_diagnosis(content=8))
    assert "knows 40% of the answers beyond the 50% that luck may bring" in decision.reason


def test_a_training_that_was_taken_back_keeps_the_examples_that_it_was_under() -> None:
    """And one without them is followed by one under them."""
    known = a_signal(content=0.8, refined=True, few_shot=True, remade=1.0)
    under = TRAIN.model_copy(update={"rows": "refined"})
    bare = under.model_copy(update={"bare": True})
    failed = a_round(under, gain=-0.1).model_copy(update={"signal": known})
    after = training(known, [failed])
    assert not after.bare and after.fresh and after.learning_rate == TRAIN.learning_rate / 2
    assert not training(known, [a_round(under, kept=True, gain=0.3)]).bare
    risen = failed.model_copy(update={"verdict": failed.verdict.model_copy(update={"after": 0.5})})
    assert training(known, [risen]).learning_rate == TRAIN.learning_rate, "a rise within chance is no failure"
    unknown = known.model_copy(update={"content": 0.2})
    assert not training(unknown, [a_round(bare, gain=-0.1)]).bare
    assert training(unknown, [a_round(bare, kept=True, gain=0.2)]).bare


def test_a_training_that_was_taken_back_while_its_loss_fell_is_given_twice_the_epochs() -> None:
    signal = a_signal(content=0.2, refined=True, few_shot=True, remade=1.0)
    bare = TRAIN.model_copy(update={"rows": "refined", "bare": True, "epochs": 6})
    falling = {"loss": 0.1, "loss_drop": 0.1}
    for gain in (-0.1, 0.02):
        after = training(signal, [a_round(bare, gain=gain, **falling)])
        assert (after.bare, after.epochs, after.learning_rate) == (True, 12, bare.learning_rate)
    assert training(signal, [a_round(bare.model_copy(update={"epochs": 12}), **falling)]).epochs == 20, "the most"
    for loss, drop in ((0.001, 0.9), (0.03, 0.28)):
        learned = training(signal, [a_round(bare, gain=-0.1, loss=loss, loss_drop=drop)])
        assert not learned.bare and learned.epochs == CONFIG.lora.epochs, "it has learned its rows, and they mislead it"
    short = a_round(bare.model_copy(update={"epochs": 12}), gain=0.1)
    forgot = short.model_copy(update={"verdict": short.verdict.model_copy(update={"overruled": True})})
    assert training(signal, [forgot]).epochs == 12, "as many as it needed, made to forget less"
    alone = a_signal(content=0.2, remade=1.0)
    flat = training(alone, [a_round(TRAIN, gain=-0.1, loss=1.0, loss_drop=0.0)])
    assert (flat.learning_rate, flat.epochs) == (TRAIN.learning_rate / 2, CONFIG.lora.epochs)


def test_words_come_first_where_they_are_likely_to_mend_until_an_edit_failed() -> None:
    likely, teachable = a_diagnosis(style=4, both=4), a_signal(remade=1.0)
    decision = rules(teachable, likely)
    assert decision.move.action == "edit_prompt"
    assert "An edit is given a chance of 50% to mend a failing row." in decision.reason
    assert decision.numbers["an edit's chance"] == 0.5
    assert rules(teachable, a_diagnosis(style=3, both=5)).move.action == "train_lora", "less likely than not"
    failed = teachable.model_copy(update={"edit": LeverSignal(rounds=1, fruitless=1)})
    assert rules(failed, likely).move.action == "train_lora"


def test_a_few_rows_that_lack_style_are_left_to_the_weights() -> None:
    assert rules(diagnosis=a_diagnosis(style=1, content=10, total=20)).move.action == "train_lora"


def test_the_other_lever_follows_when_one_is_saturated() -> None:
    assert rules(a_signal(edit=SATURATED)).move.action == "train_lora"
    assert rules(a_signal(lora=SATURATED), a_diagnosis(content=8)).move.action == "edit_prompt"


def test_the_other_lever_follows_when_one_is_turned_down() -> None:
    assert rules(refused=["edit_prompt"]).move.action == "train_lora"
    assert rules(diagnosis=a_diagnosis(content=8), refused=["train_lora"]).move.action == "edit_prompt"


def test_a_plateau_of_both_levers_ends_the_run() -> None:
    decision = rules(a_signal(lora=SATURATED, edit=SATURATED))
    assert decision.move.action == "stop"
    assert "Edits are saturated" in decision.reason and "LoRA is saturated" in decision.reason


def test_turning_down_all_that_is_left_ends_the_run() -> None:
    decision = rules(a_signal(lora=SATURATED), refused=["edit_prompt"])
    assert decision.move.action == "stop"
    assert "turned down" in decision.reason


# --- how the rules train -------------------------------------------------------------------------


def test_training_is_as_the_task_sets_it() -> None:
    move = training(a_signal())
    lora = CONFIG.lora
    assert (move.epochs, move.learning_rate, move.rank) == (lora.epochs, lora.learning_rate, lora.rank)
    assert (move.rows, move.fresh) == ("original", False)


def test_general_rows_stand_beside_every_training() -> None:
    assert training(a_signal()).replay == training(a_signal(refined=True)).replay == CONFIG.lora.replay > 0


def test_weights_learn_from_refined_rows_once_the_prompt_is_refined() -> None:
    assert training(a_signal(refined=True)).rows == "refined"


def test_weights_learn_from_rows_put_into_the_wanted_form_where_most_can_be() -> None:
    remade = a_signal(remade=0.6)
    assert training(remade).rows == "refined"
    assert training(a_signal(remade=0.4)).rows == "original", "too few would be left"
    assert training(a_signal(shown=1.0, remade=1.0)).rows == "original", "they are in that form as given"
    without = Rules(a_config(without=["remaking"])).training(remade, [])
    assert without.rows == "original"
    order = Schedule(a_config(policy="lora-only")).decide(Briefing(remade, LACKS_BOTH)).move
    assert isinstance(order, TrainLora) and order.rows == "original", "a fixed order does not look"


def test_a_kept_adapter_is_trained_on() -> None:
    move = training(a_signal(), [a_round(TRAIN, kept=True)])
    assert (move.fresh, move.learning_rate) == (False, CONFIG.lora.learning_rate)


def test_an_adapter_starts_anew_when_its_rows_changed() -> None:
    move = training(a_signal(refined=True), [a_round(TRAIN, kept=True), a_round(EDIT, kept=True)])
    assert (move.fresh, move.learning_rate) == (True, CONFIG.lora.learning_rate)


def test_after_a_failed_try_an_adapter_starts_anew_at_half_the_rate() -> None:
    move = training(a_signal(), [a_round(TRAIN)])
    assert (move.fresh, move.learning_rate) == (True, CONFIG.lora.learning_rate / 2)


def test_a_rise_within_chance_is_tried_once_more_as_it_was() -> None:
    move = training(a_signal(), [a_round(TRAIN, kept=True), a_round(TRAIN, gain=0.09)])
    assert (move.fresh, move.learning_rate) == (False, CONFIG.lora.learning_rate)


# --- what ends a run -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("signal", "spend", "budget", "message"),
    [
        (a_signal(reward=0.95), Spend(), {}, "target is reached"),
        (a_signal(), Spend(), {"rounds": 2}, "2 rounds"),
        (a_signal(), Spend(seconds=90), {"minutes": 1.5}, "1.5 minutes"),
        (a_signal(), Spend(train_tokens=12_000), {"train_tokens": 12_000}, "12,000 training tokens"),
        (a_signal(), Spend(usd=0.5), {"usd": 0.5}, "0.5 USD"),
        (a_signal(), Spend(llm_tokens=5000), {"llm_tokens": 5000}, "5,000 LLM tokens"),
    ],
)
def test_target_and_budgets_end_a_run_under_every_policy(
    signal: Signal, spend: Spend, budget: dict[str, float], message: str
) -> None:
    history = [a_round(EDIT, kept=True), a_round(EDIT, kept=True)]
    for name in (*POLICIES, "alternate every 3", "steps pro"):
        policy = make_policy(a_config(policy=name, budget=budget))
        decision = policy.decide(Briefing(signal, LACKS_BOTH, history, spend))
        assert decision.move.action == "stop"
        assert message in decision.reason


def test_a_run_goes_on_below_its_budgets() -> None:
    config = a_config(budget={"rounds": 2, "minutes": 1, "train_tokens": 100, "usd": 1})
    spend = Spend(seconds=59, train_tokens=99, usd=0.99)
    assert stop_reason(Briefing(a_signal(reward=0.94), a_diagnosis(), [a_round(EDIT)], spend), config) is None


def test_a_money_budget_of_nothing_leaves_the_rules_running() -> None:
    assert stop_reason(Briefing(a_signal(), a_diagnosis()), a_config(budget={"usd": 0})) is None


# --- the fixed orders ----------------------------------------------------------------------------


def moves_of(order: str, rounds: int) -> str:
    """The order's moves until it stops, as letters: p edits the prompt, w tunes the weights."""
    policy, history = make_policy(a_config(policy=order, budget={"rounds": rounds})), list[Round]()
    while (decision := policy.decide(Briefing(a_signal(), LACKS_BOTH, history))).move.action != "stop":
        history.append(a_round(decision.move))
    return "".join("p" if row.decision.move.action == "edit_prompt" else "w" for row in history)


@pytest.mark.parametrize(
    ("order", "moves"),
    [
        ("lora-only", "wwwwww"),
        ("prompt-only", "pppppp"),
        ("p -> w", "pppwww"),
        ("w -> p", "wwwppp"),
        ("p -> w -> p", "ppwwpp"),
        ("w -> p -> w -> p", "wwpwwp"),
        ("alternate every 1", "pwpwpw"),
        ("alternate every 2", "ppwwpp"),
        ("steps pro", "pww"),
    ],
)
def test_fixed_orders_share_the_rounds(order: str, moves: str) -> None:
    assert moves_of(order, 6) == moves


@settings(max_examples=20)
@given(st.integers(3, 20))
def test_every_phase_of_a_fixed_order_gets_its_share(rounds: int) -> None:
    moves = moves_of("p -> w -> p", rounds)
    first = moves.index("w")
    weights = moves.count("w")
    phases = [first, weights, rounds - first - weights]
    assert moves == "p" * phases[0] + "w" * phases[1] + "p" * phases[2]
    assert max(phases) - min(phases) <= 1


def test_a_fixed_order_says_so_and_trains_on_refined_rows() -> None:
    decision = Schedule(a_config(policy="lora-only")).decide(Briefing(a_signal(refined=True), LACKS_BOTH))
    assert decision.by == "fixed order"
    assert "lora-only" in decision.reason and "round 1 of 6" in decision.reason
    assert isinstance(decision.move, TrainLora) and decision.move.rows == "refined"


def test_a_fixed_order_ends_when_its_next_step_is_turned_down() -> None:
    order = Schedule(a_config(policy="lora-only"))
    decision = order.decide(Briefing(a_signal(), LACKS_BOTH, refused=["train_lora"]))
    assert decision.move.action == "stop"


# --- whatever comes ------------------------------------------------------------------------------

SHARES = st.floats(0, 1)
NUMBERS = st.floats(-100, 100) | st.none()
LEVERS = st.builds(LeverSignal, rounds=st.integers(0, 9), gain=st.floats(-1, 1), saturated=st.booleans())
SIGNALS = st.builds(
    Signal, reward=SHARES, content=SHARES, style=SHARES, refined=st.booleans(), noise=SHARES,
    loss=NUMBERS, loss_drop=NUMBERS, grad_norm=NUMBERS, lora=LEVERS, edit=LEVERS,
)  # fmt: skip
DIAGNOSES = st.builds(
    a_diagnosis, style=st.integers(0, 3), content=st.integers(0, 3), both=st.integers(0, 3), total=st.just(10)
)
HISTORIES = st.lists(st.builds(a_round, st.sampled_from([EDIT, TRAIN]), kept=st.booleans()), max_size=7)
REFUSED = st.sets(st.sampled_from(["train_lora", "edit_prompt"])).map(sorted)


@given(SIGNALS, DIAGNOSES, HISTORIES, REFUSED)
def test_the_rules_never_pull_a_lever_that_is_saturated_or_turned_down(
    signal: Signal, diagnosis: Diagnosis, history: list[Round], refused: list[str]
) -> None:
    decision = rules(signal, diagnosis, history, refused)
    assert decision.move.action not in refused
    assert not (signal.edit.saturated and decision.move.action == "edit_prompt")
    assert not (signal.lora.saturated and decision.move.action == "train_lora")
    assert decision.reason.strip()
    assert all(math.isfinite(value) for value in decision.numbers.values())

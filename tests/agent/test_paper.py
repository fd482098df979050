"""The paper's own switch: weights until they are saturated, then words, then weights again."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.policy.paper import FLAT, SETTLED, PaperSwitch, loss_change
from agent.protocols import Briefing
from agent.records.actions import Decision, EditPrompt, TrainLora
from agent.records.rounds import Round, Spend
from agent.records.signal import Diagnosis, LeverSignal, Signal
from agent.signal.monitor import lever_signal
from tests.fixtures.rounds import EDIT, SATURATED, TRAIN, a_config, a_diagnosis, a_round, a_signal

STYLE, CONTENT = a_diagnosis(style=6), a_diagnosis(content=6)
FALLING = {"loss": 1.5, "loss_drop": 0.4, "grad_norm": 2.0, "grad_drop": 0.4}
AT_REST = {"loss": 0.05, "loss_drop": 0.4, "grad_norm": 0.1, "grad_drop": 0.95}


def decide(
    history: Sequence[Round] = (),
    diagnosis: Diagnosis = STYLE,
    refused: Sequence[str] = (),
    **signal: object,
) -> Decision:
    levers = {"lora": lever_signal("train_lora", history), "edit": lever_signal("edit_prompt", history)}
    known = a_signal(**{**levers, "floor": 0.02, **signal})
    return PaperSwitch(a_config(policy="paper")).decide(Briefing(known, diagnosis, history, Spend(), refused))


def test_weights_come_first_whatever_the_rows_lack() -> None:
    for diagnosis in (STYLE, CONTENT, a_diagnosis(both=8)):
        decision = decide(diagnosis=diagnosis)
        assert (decision.move.action, decision.by, decision.reason) == ("train_lora", "paper", "LoRA comes first.")


def test_weights_go_on_while_loss_or_gradient_still_move() -> None:
    trained = [a_round(TRAIN, kept=True)]
    for moving in (FALLING, AT_REST | {"grad_drop": SETTLED - 0.1}, AT_REST | {"loss": 1.0}):
        decision = decide(trained, **moving)
        assert decision.move.action == "train_lora" and "not saturated" in decision.reason
    assert "changed the loss by -1.00 nats" in decide(trained, **FALLING).reason
    assert decide(trained, **FALLING).numbers["loss change"] == 1.0


def test_words_follow_on_style_rows_once_loss_and_gradient_lie_still() -> None:
    decision = decide([a_round(TRAIN, kept=True)], **AT_REST)
    assert decision.move == EditPrompt(failures="style")
    assert "60% of the rows lack style" in decision.reason and "at 5% of the first epoch's" in decision.reason


def test_rows_that_are_learned_saturate_weights_even_after_a_single_epoch() -> None:
    trained, enough = [a_round(TRAIN, kept=True)], a_config().lora.enough
    assert decide(trained, loss=enough / 2).move.action == "edit_prompt"
    assert decide(trained, loss=2 * enough).move.action == "train_lora", "one epoch shows no change"


def test_saturated_weights_go_on_where_the_classifier_calls_no_row_style() -> None:
    decision = decide([a_round(TRAIN, kept=True)], CONTENT, **AT_REST)
    assert decision.move.action == "train_lora" and "only 0% of the rows lack style" in decision.reason


def test_words_go_on_while_they_bring_something_and_weights_follow_when_they_do_not() -> None:
    trained = a_round(TRAIN, kept=True)
    assert decide([trained, a_round(EDIT, kept=True, gain=0.2)], **AT_REST).move.action == "edit_prompt"
    little = decide([trained, a_round(EDIT, kept=True, gain=0.01)], **AT_REST)
    assert little.move.action == "train_lora" and "brought little (+0.01 merit)" in little.reason
    back = decide([trained, a_round(EDIT)], **AT_REST)
    assert back.move.action == "train_lora" and "taken back" in back.reason
    assert decide([trained, a_round(EDIT, kept=True, gain=0.2)], CONTENT, **AT_REST).move.action == "train_lora"


def test_refined_prompts_become_training_data() -> None:
    history = [a_round(TRAIN, kept=True), a_round(EDIT, kept=True, gain=0.01)]
    first, later = decide().move, decide(history, refined=True, **AT_REST).move
    assert isinstance(first, TrainLora) and first.rows == "original"
    assert isinstance(later, TrainLora) and (later.rows, later.fresh) == ("refined", False)


def test_a_closed_lever_leaves_its_turn_to_the_other_and_the_sentence_says_so() -> None:
    assert decide(lora=SATURATED).move.action == "edit_prompt"
    turned_down = decide(refused=["train_lora"])
    assert turned_down.move.action == "edit_prompt" and "LoRA was turned down. So an edit" in turned_down.reason
    assert decide([a_round(TRAIN, kept=True)], refused=["edit_prompt"], **AT_REST).move.action == "train_lora"
    ended = decide(lora=SATURATED, edit=SATURATED)
    assert ended.move.action == "stop" and "Edits are saturated: nothing was kept of the last 2 tries." in ended.reason


NUMBERS = st.none() | st.floats(-2, 0.999)
SIGNALS = st.builds(
    lambda **changes: a_signal(**changes), loss=st.none() | st.floats(0, 8), loss_drop=NUMBERS, grad_drop=NUMBERS,
    grad_norm=st.none() | st.floats(0, 9), floor=st.floats(0, 0.1),
    lora=st.builds(LeverSignal, fruitless=st.integers(0, 3), saturated=st.booleans()),
    edit=st.builds(LeverSignal, fruitless=st.integers(0, 3), saturated=st.booleans()),
)  # fmt: skip
HISTORIES = st.lists(
    st.builds(a_round, st.sampled_from([EDIT, TRAIN]), kept=st.booleans(), gain=st.floats(0, 0.5)), max_size=5
)
DIAGNOSES = st.builds(a_diagnosis, style=st.integers(0, 5), content=st.integers(0, 5))


@given(SIGNALS, DIAGNOSES, HISTORIES, st.sets(st.sampled_from(["train_lora", "edit_prompt"])).map(sorted))
def test_it_pulls_no_closed_lever_and_says_saturated_only_where_its_numbers_do(
    signal: Signal, diagnosis: Diagnosis, history: list[Round], refused: list[str]
) -> None:
    config = a_config(policy="paper")
    decision = PaperSwitch(config).decide(Briefing(signal, diagnosis, history, Spend(), refused))
    assert decision.move.action not in refused
    assert not (signal.edit.saturated and decision.move.action == "edit_prompt")
    assert not (signal.lora.saturated and decision.move.action == "train_lora")
    change = loss_change(signal)
    at_rest = change is not None and change < FLAT and signal.grad_drop is not None and signal.grad_drop >= SETTLED
    learned = signal.loss is not None and signal.loss <= config.lora.enough
    if "LoRA is saturated" in decision.reason:
        assert signal.lora.saturated or learned or at_rest
    if "LoRA is not saturated" in decision.reason:
        assert not (signal.lora.saturated or learned or at_rest)


def test_the_change_of_the_loss_is_in_nats() -> None:
    assert loss_change(a_signal(loss=1.0, loss_drop=0.5)) == pytest.approx(1.0), "from 2 to 1"
    assert loss_change(a_signal(loss=1.0)) is None and loss_change(a_signal(loss=0.0, loss_drop=1.0)) is None

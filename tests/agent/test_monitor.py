"""The monitoring signal: what the rounds so far say of both levers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.records.actions import Action
from agent.records.evaluation import Evaluation, ExampleScore
from agent.records.examples import Candidate
from agent.records.rounds import Round
from agent.signal.monitor import Lever, lever_signal, observe
from tests.fixtures.rounds import BACK, EDIT, TRAIN, a_round

HISTORIES = st.lists(st.builds(a_round, st.sampled_from([EDIT, TRAIN, BACK]), kept=st.booleans()), max_size=8)


def evaluation(*scores: tuple[float, float]) -> Evaluation:
    rows = tuple(
        ExampleScore(example=f"validation:{line}", output="", content=content, style=style)
        for line, (content, style) in enumerate(scores, 1)
    )
    return Evaluation(candidate=Candidate(prompt="0" * 12), split="validation", scores=rows)


def test_before_any_round_only_the_scores_are_known() -> None:
    signal = observe(evaluation((1, 0), (1, 1)), noise=0.5, history=[], refined=False)
    assert (signal.reward, signal.content, signal.style, signal.noise) == (0.5, 1.0, 0.5, 0.5)
    assert (signal.loss, signal.loss_drop, signal.grad_norm) == (None, None, None)
    assert not signal.lora.saturated and not signal.edit.saturated


def test_loss_and_gradient_are_those_of_the_last_lora_round() -> None:
    history = [
        a_round(TRAIN, loss=2.0, loss_drop=0.5, grad_norm=9.0),
        a_round(TRAIN, loss=1.0, loss_drop=0.3, grad_norm=4.0, grad_drop=0.8),
        a_round(EDIT),
    ]
    signal = observe(evaluation((1, 1)), noise=0.0, history=history, refined=True)
    assert (signal.loss, signal.loss_drop, signal.grad_norm, signal.grad_drop) == (1.0, 0.3, 4.0, 0.8)


def test_a_lever_tells_of_its_own_rounds_alone() -> None:
    history = [a_round(EDIT, kept=True, gain=0.3), a_round(TRAIN, kept=True, gain=0.1), a_round(EDIT, gain=-0.1)]
    edit, lora = lever_signal("edit_prompt", history), lever_signal("train_lora", history)
    assert (edit.rounds, edit.kept, edit.fruitless) == (2, 1, 1)
    assert edit.gain == pytest.approx(-0.1), "the gain is the last round's"
    assert (lora.rounds, lora.kept) == (1, 1)
    assert lora.gain == pytest.approx(0.1)


@pytest.mark.parametrize(("lever", "move"), [("train_lora", TRAIN), ("edit_prompt", EDIT)])
def test_two_discarded_tries_saturate_and_one_does_not(lever: Lever, move: Action) -> None:
    tries = [a_round(move, loss_drop=0.5), a_round(move, loss_drop=0.5)]
    assert not lever_signal(lever, tries[:1]).saturated
    assert lever_signal(lever, tries).saturated


def test_tries_of_the_other_lever_do_not_count() -> None:
    assert not lever_signal("edit_prompt", [a_round(EDIT), a_round(TRAIN), a_round(TRAIN)]).saturated


def test_a_kept_move_of_the_other_lever_gives_a_new_chance() -> None:
    tired = [a_round(EDIT), a_round(EDIT)]
    assert lever_signal("edit_prompt", [*tired, a_round(TRAIN)]).saturated
    assert not lever_signal("edit_prompt", [*tired, a_round(TRAIN, kept=True)]).saturated


@pytest.mark.parametrize("drop", [0.04, 0.0, -0.2])
def test_a_discarded_lora_round_whose_loss_lies_still_saturates_at_once(drop: float) -> None:
    assert lever_signal("train_lora", [a_round(TRAIN, loss_drop=drop)]).saturated


@pytest.mark.parametrize(("drop", "kept"), [(0.3, False), (None, False), (0.0, True)])
def test_lora_has_more_to_say_while_the_loss_falls_or_is_unknown_or_the_pair_was_kept(
    drop: float | None, kept: bool
) -> None:
    assert not lever_signal("train_lora", [a_round(TRAIN, loss_drop=drop, kept=kept)]).saturated


@given(HISTORIES)
def test_any_history_gives_counts_that_agree(history: list[Round]) -> None:
    lora, edit = lever_signal("train_lora", history), lever_signal("edit_prompt", history)
    for signal in (lora, edit):
        assert signal.kept + signal.fruitless <= signal.rounds <= len(history)
        assert signal.saturated == (signal.fruitless >= 2), "no loss is known here"
    if history and history[-1].verdict.kept:
        assert lora.fruitless == edit.fruitless == 0

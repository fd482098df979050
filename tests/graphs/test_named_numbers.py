"""Numbers that an LLM adds of its own are not obeyed; what the person named is."""

import pytest

from graphs.conversation.named import as_named
from graphs.conversation.tools import GoBack, RunRounds, SetLimits, TrainWeights, command_of


@pytest.mark.parametrize(
    ("said", "chosen", "command"),
    [
        ("I will be happy with 90 percent.", SetLimits(target=0.9, rounds=2, usd=100), "/set target=0.9"),
        ("Ninety percent, please, and 4 rounds.", SetLimits(target=0.9, rounds=4), "/set target=0.9 rounds=4"),
        ("Put things back as they were.", GoBack(to_round=1), "/undo"),
        ("Put it back to the start.", GoBack(to_round=0), "/rollback 0"),
        ("Back to the second round.", GoBack(to_round=2), "/rollback 2"),
        ("Train it.", TrainWeights(epochs=3), "/train"),
        ("Train it for a single epoch.", TrainWeights(epochs=1), "/train epochs=1"),
    ],
)
def test_a_number_that_nobody_named_is_left_out(said: str, chosen: SetLimits, command: str) -> None:
    assert command_of(as_named(chosen, [said])) == command


@pytest.mark.parametrize("said", ["Take 2 hours for it.", "Take a day, or, well, 120 minutes"])
def test_a_number_in_other_units_stands_for_one(said: str) -> None:
    assert command_of(as_named(SetLimits(minutes=120), [said])) == "/set minutes=120"


def test_what_was_named_a_sentence_before_counts() -> None:
    assert command_of(as_named(GoBack(to_round=3), ["Was round 3 better?", "Then go back to it."])) == "/rollback 3"


@pytest.mark.parametrize(
    ("said", "command"),
    [
        ("Go on for a while.", "/run 1"), ("Go on for 2 hours.", "/run 1"), ("Do a couple of them.", "/run 1"),
        ("Do 40 of them alone.", "/run 40"), ("Forty rounds, please.", "/run 40"),
    ],
)  # fmt: skip
def test_rounds_that_nobody_named_are_one(said: str, command: str) -> None:
    assert command_of(as_named(RunRounds(rounds=40), [said])) == command


@pytest.mark.parametrize(
    ("said", "rounds", "command"),
    [
        ("Go on for 2 hours.", 2, "/run 1"), ("Train it for two more epochs.", 2, "/run 1"),
        ("Two rounds of 3 epochs, alone.", 2, "/run 2"), ("Two rounds of 3 epochs, alone.", 3, "/run 1"),
        ("Go on until 90% are right.", 90, "/run 1"),
    ],
)  # fmt: skip
def test_a_number_of_something_else_is_none_of_rounds(said: str, rounds: int, command: str) -> None:
    assert command_of(as_named(RunRounds(rounds=rounds), [said])) == command

"""A round that a user cancelled says nothing of its lever: all but the budget is decided as if it had not been."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.policy.base import stop_reason
from agent.policy.experience import experience
from agent.policy.paper import PaperSwitch
from agent.policy.rules import Rules
from agent.policy.trust import own_choices, standing
from agent.protocols import Briefing
from agent.records.actions import Action, Alternative, Stop, TrainLora
from agent.records.evaluation import Evaluation, ExampleScore
from agent.records.examples import Candidate
from agent.records.rounds import Round
from agent.signal.monitor import observe
from eval.alpha_spending import alpha_to_spend
from tests.fixtures.outlooks import seen
from tests.fixtures.rounds import BACK, EDIT, TRAIN, a_config, a_diagnosis, a_round

REFINED = TrainLora(rows="refined", replay=1.0)
ROUNDS = st.builds(
    a_round, st.sampled_from([EDIT, TRAIN, REFINED, BACK]), kept=st.booleans(), gain=st.floats(-1, 1),
    loss_drop=st.floats(-1, 1) | st.none(), loss=st.floats(0, 3) | st.none(),
)  # fmt: skip
SCORES = (ExampleScore(example="validation:1", output="", content=1, style=0),)
EVALUATION = Evaluation(candidate=Candidate(prompt="0" * 12), split="validation", scores=SCORES)
CONFIG = a_config(budget={"rounds": 100})


def cancelled(move: Action, **changes: Any) -> Round:
    """As the graph writes it: no pair, nothing tested."""
    row = a_round(move)
    trial = row.trial.model_copy(update={"candidate": None, "cancelled": True})
    return row.model_copy(update={"trial": trial, **changes})


def decided(history: list[Round]) -> object:
    """The signal, and what rules and paper make of it."""
    signal = seen(observe(EVALUATION, 0.1, history, refined=False), a_diagnosis(both=8), history)
    briefing = Briefing(signal, a_diagnosis(both=8), history)
    return signal, *(policy.decide(briefing).move for policy in (Rules(CONFIG), PaperSwitch(CONFIG)))


@given(st.lists(st.tuples(ROUNDS, st.booleans()), max_size=6), st.sampled_from([EDIT, TRAIN, REFINED]))
def test_all_is_decided_as_if_it_had_not_been(history: list[tuple[Round, bool]], move: Action) -> None:
    plain = [row for row, _ in history]
    mixed = [part for row, broken in history for part in ([row, cancelled(move)] if broken else [row])]
    assert decided([cancelled(move), *mixed]) == decided(plain)
    assert alpha_to_spend(0.1, [row.verdict for row in mixed]) == alpha_to_spend(0.1, [row.verdict for row in plain])


@pytest.mark.parametrize("move", [EDIT, TRAIN])
def test_it_is_no_experience_and_no_choice_of_the_planner(move: Action) -> None:
    row = cancelled(move)
    decision = row.decision.model_copy(update={"by": "planner", "alternative": Alternative(action=Stop(), reason="")})
    row = row.model_copy(update={"decision": decision})
    assert experience(row, "run", "task", "model") is None
    assert own_choices([row]) == [] and standing("mind", [row]).trust == 0.5


def test_it_counts_as_a_round_of_the_budget() -> None:
    signal = observe(EVALUATION, 0.1, [], refined=False)
    one = a_config(budget={"rounds": 1})
    ended = stop_reason(Briefing(signal, a_diagnosis(both=8), [cancelled(TRAIN)]), one)
    assert ended == "The budget of 1 round is used up."

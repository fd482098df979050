"""What the gate says of new weights that forget: on general text, and on tasks that are to be kept."""

from typing import Any

import pytest

from agent.config.task import Gate
from agent.records.rounds import KeptScore, Verdict
from eval.alpha_spending import alpha_to_spend
from eval.forgetting import object_to_forgetting


def a_verdict(kept: bool = True, **lost: Any) -> Verdict:
    return Verdict(kept=kept, reason="joint reward 0.00 → 0.90", before=0, after=0.9, p_value=0.001, level=0.03, **lost)


def scored(reward: float, base: float = 0.8) -> KeptScore:
    return KeptScore(task="../sums/task.yaml", base=base, reward=reward, rows=32)


def test_weights_that_forget_more_than_is_allowed_are_taken_back_whatever_they_gain() -> None:
    verdict = object_to_forgetting(a_verdict(drift=2.9, drift_before=0.0), Gate())
    assert (verdict.kept, verdict.objection, verdict.overruled) == (False, "drift", True)
    assert verdict.reason == (
        "joint reward 0.00 → 0.90; taken back: it forgets 2.9 nats a token on general text; gate.drift allows 0.3"
    )


@pytest.mark.parametrize(
    ("drift", "before", "budget"),
    [(0.3, 0.0, 0.3), (2.0, 2.5, 0.3), (2.5, 2.5, 0.3), (9.0, 0.0, None), (-0.1, 0.0, 0.0)],
)
def test_what_is_within_the_budget_or_no_more_than_before_is_allowed(
    drift: float, before: float, budget: float | None
) -> None:
    verdict = a_verdict(drift=drift, drift_before=before)
    assert object_to_forgetting(verdict, Gate(drift=budget)) == verdict


def test_more_than_before_is_not_allowed_beyond_the_budget() -> None:
    assert not object_to_forgetting(a_verdict(drift=2.6, drift_before=2.5), Gate()).kept


def test_a_trial_that_rewards_take_back_forgets_too_and_is_no_less_fruitless_for_it() -> None:
    verdict = object_to_forgetting(a_verdict(kept=False, drift=2.9, drift_before=0.0), Gate())
    assert (verdict.objection, verdict.overruled) == ("drift", False)
    assert verdict.reason.endswith("also, it forgets 2.9 nats a token on general text; gate.drift allows 0.3")


def test_where_the_general_text_does_not_fit_there_is_no_objection_and_it_is_said() -> None:
    verdict = object_to_forgetting(a_verdict(), Gate())
    assert verdict.kept and "could not be measured" in verdict.reason
    assert object_to_forgetting(a_verdict(), Gate(drift=None)) == a_verdict()


def test_a_fall_on_a_kept_task_beyond_the_tolerance_takes_the_trial_back() -> None:
    fallen = object_to_forgetting(a_verdict(drift=0.1, drift_before=0.0, keep=(scored(0.7),)), Gate())
    assert (fallen.kept, fallen.objection, fallen.overruled) == (False, "keep", True)
    assert (
        "falls on ../sums/task.yaml from 0.80 to 0.70 on 32 rows; gate.keep_tolerance allows a fall of 0.05"
        in fallen.reason
    )
    for held in (scored(0.75), scored(0.9)):
        assert object_to_forgetting(a_verdict(drift=0.1, drift_before=0.0, keep=(held,)), Gate()).kept


def test_both_objections_are_said() -> None:
    verdict = object_to_forgetting(a_verdict(drift=1.0, drift_before=0.0, keep=(scored(0.1),)), Gate())
    assert verdict.objection == "drift" and verdict.overruled
    assert "forgets 1 nats" in verdict.reason and "and it falls on ../sums/task.yaml" in verdict.reason


def test_a_trial_that_passed_its_test_and_forgets_spends_no_alpha() -> None:
    overruled = object_to_forgetting(a_verdict(drift=2.9, drift_before=0.0), Gate())
    failed = a_verdict(kept=False)
    assert alpha_to_spend(0.1, [overruled]) == alpha_to_spend(0.1, [])
    assert alpha_to_spend(0.1, [failed]) < alpha_to_spend(0.1, [])


def test_a_verdict_of_an_older_ledger_is_read() -> None:
    old = {"kept": True, "reason": "r", "before": 0.0, "after": 1.0, "p_value": 0.01}
    verdict = Verdict.model_validate(old)
    assert (verdict.drift, verdict.keep, verdict.objection, verdict.overruled) == (None, (), None, False)

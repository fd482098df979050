"""Policies compared, on rows whose answer is known."""

from math import exp, log

import pytest

from bench.decisions.comparison import Comparison, Estimate
from bench.decisions.results import Result
from tests.bench.test_results import a_result

GOOD, HALF, BAD = (1.0, 1.0, 1.0, 1.0), (1.0, 1.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0)


def estimated(estimate: Estimate | None) -> Estimate:
    assert estimate is not None
    return estimate


def group(seed: int = 0, task: str = "mayors", **policies: tuple[tuple[float, ...], int | None, int]) -> list[Result]:
    """Rows of one group: of each policy its rewards, when it reached the target, and what it spent."""
    return [
        a_result(policy.replace("_", "-"), seed, rewards, at, task=task, passes=passes)
        for policy, (rewards, at, passes) in policies.items()
    ]


def test_reward_is_the_mean_over_groups_with_an_interval_around_it() -> None:
    comparison = Comparison(group(0, rules=(GOOD, 10, 10)) + group(1, rules=(HALF, None, 50)))
    found = estimated(comparison.reward("rules", "mayors"))
    assert found.mean == 0.75 and found.groups == 2
    assert 0 < found.low < 0.75 < found.high <= 1
    assert comparison.reward("learned") is None


def test_rows_that_all_have_full_marks_still_have_an_interval_of_some_width() -> None:
    found = estimated(Comparison(group(rules=(GOOD, 10, 10))).reward("rules", "mayors"))
    assert found.mean == found.high == 1 and 0.3 < found.low < 0.7


def test_regret_is_paired_by_task_seed_and_row() -> None:
    rows = group(0, oracle=(GOOD, 5, 5), rules=(HALF, None, 9)) + group(1, oracle=(HALF, None, 5), rules=(HALF, 9, 9))
    comparison = Comparison([*rows, *group(2, rules=(BAD, None, 9))])  # without an oracle: left out
    regret = estimated(comparison.regret("rules"))
    assert regret.mean == 0.25 and regret.groups == 2
    assert estimated(comparison.regret("oracle")) == (0, 0, 0, 2)
    assert regret.low >= 0  # nowhere is it better than the oracle, in whatever rows and seeds are drawn


def test_seeds_that_agree_make_a_paired_difference_certain_though_rewards_are_not() -> None:
    rows = [row for seed in range(3) for row in group(seed, rules=(HALF, 1, 1), lora_only=(HALF, 1, 1))]
    found = estimated(Comparison(rows).difference("rules", "lora-only"))
    assert found == (0, 0, 0, 3)


def test_who_never_reached_the_target_is_charged_the_most_that_any_policy_spent_there() -> None:
    rows = group(0, rules=(GOOD, 40, 100), lora_only=(BAD, None, 60), oracle=(GOOD, 1, 900))
    comparison = Comparison(rows + group(1, rules=(GOOD, 20, 20), lora_only=(BAD, None, 70)))
    assert comparison.charge(("mayors", 0)) == 100 and comparison.charge(("mayors", 1)) == 70
    rules, lora = comparison.cost("rules"), comparison.cost("lora-only", "mayors")
    assert rules and (rules.forward_tokens, rules.reached) == (30, 2)
    assert rules.share.mean == pytest.approx((40 / 100 + 20 / 70) / 2)
    assert lora and (lora.forward_tokens, lora.reached, lora.share.mean) == (85, 0, 1.0)
    assert comparison.cost("oracle") is None


def test_a_head_to_head_is_over_groups_and_over_tasks() -> None:
    rows = [
        row
        for task in ("mayors", "rivers", "towns")
        for seed in range(2)
        for row in group(seed, task, rules=(GOOD, 10, 10), lora_only=(HALF, None, 20))
    ]
    pair = Comparison(rows).head_to_head("rules", "lora-only")
    assert pair and pair.reward == (0.5, 1 / 2**6, 6)
    assert pair.cost.mean == pytest.approx(log(2)) and exp(pair.cost.mean) == pytest.approx(2)
    assert pair.task_reward == (0.5, 1 / 2**3, 3) and pair.task_cost.p_value == 1 / 2**3
    back = Comparison(rows).head_to_head("lora-only", "rules")
    assert back and (back.reward.mean, back.reward.p_value) == (-0.5, 1)
    assert Comparison(rows).head_to_head("rules", "learned") is None


def test_the_best_fixed_order_is_that_of_the_task_and_no_policy_that_looks_or_draws_lots() -> None:
    rows = group(
        task="mayors", rules=(HALF, 1, 1), lora_only=(BAD, 1, 1), prompt_only=(GOOD, 1, 1), random=(GOOD, 1, 1)
    )
    rows += group(task="rivers", rules=(HALF, 1, 1), lora_only=(HALF, 1, 1), prompt_only=(BAD, 1, 1))
    comparison = Comparison(rows)
    assert comparison.fixed == ["lora-only", "prompt-only"]
    mayors, rivers = comparison.against_best_fixed("rules", "mayors"), comparison.against_best_fixed("rules", "rivers")
    assert mayors and (mayors.best, mayors.difference.mean) == ("prompt-only", -0.5)
    assert rivers and (rivers.best, rivers.difference.mean, rivers.holds) == ("lora-only", 0, True)


@pytest.mark.parametrize(("rewards", "holds"), [((0.9,) * 40, False), ((1.0,) * 38 + (0.0,) * 2, True)])
def test_as_good_means_that_the_interval_of_the_difference_is_not_all_below_0(
    rewards: tuple[float, ...], holds: bool
) -> None:
    rows = group(rules=(rewards, 1, 1), lora_only=((1.0,) * 38 + (0.9,) * 2, 1, 1))
    match = Comparison(rows).against_best_fixed("rules", "mayors")
    assert match and match.holds is holds

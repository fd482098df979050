"""The statistics by their laws, and the gate by what it keeps."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.records.evaluation import Evaluation, ExampleScore
from agent.records.examples import Candidate
from agent.records.rounds import Verdict
from eval.stats import (
    corroborate,
    deciding,
    interval,
    joint_sign_flip,
    judge,
    sign_flip,
    standard_error,
    too_few_to_tell,
)

differences = st.lists(st.floats(-1, 1), max_size=20)


def evaluation(*scores: tuple[float, float]) -> Evaluation:
    """An evaluation from (content, style) per row."""
    rows = (
        ExampleScore(example=f"validation:{line}", output="", content=content, style=style)
        for line, (content, style) in enumerate(scores, start=1)
    )
    return Evaluation(candidate=Candidate(prompt="p"), split="validation", scores=tuple(rows))


@given(differences)
def test_sign_flip_is_a_p_value(values: list[float]) -> None:
    assert 0 < sign_flip(values) <= 1


@given(differences)
def test_sign_flip_sees_no_difference_in_zeros(values: list[float]) -> None:
    assert sign_flip(values) == sign_flip([0.0, *values, 0.0])


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=16))
def test_when_all_rise_only_one_pattern_of_signs_does_as_well(values: list[float]) -> None:
    assert sign_flip(values) == 2 ** -len(values)
    assert sign_flip([-value for value in values]) == 1.0


def test_sign_flip_of_two_wins_and_a_loss() -> None:
    assert sign_flip([1, 1, -1]) == 4 / 8  # of 8 patterns, those with at least two pluses


def test_sign_flip_of_many_rows_is_sampled_with_the_correction() -> None:
    assert sign_flip([1.0] * 40) == 1 / 10_001
    assert sign_flip([1.0, -1.0] * 20) == pytest.approx(0.56, abs=0.03)  # P(at least 20 heads of 40)
    assert sign_flip([0.0] * 40) == 1.0


# --- one test over two measures ---------------------------------------------------------------------------

many = st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=1, max_size=12)


@given(many)
def test_two_measures_are_never_two_chances(rows: list[tuple[float, float]]) -> None:
    reward, merit = zip(*rows, strict=True)
    least = min(sign_flip(reward), sign_flip(merit))
    assert least - 1e-9 <= joint_sign_flip(reward, merit) <= min(1.0, 2 * least) + 1e-9


@given(st.lists(st.integers(-3, 3), max_size=14))
def test_a_measure_that_says_the_same_costs_nothing(values: list[int]) -> None:
    double = [2 * value for value in values]
    assert joint_sign_flip(values, double) == joint_sign_flip(values, [0] * len(values)) == sign_flip(values)


@given(st.lists(st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)), min_size=1, max_size=8), st.floats(0.01, 0.5))
def test_of_all_directions_that_rows_could_have_changed_in_at_most_the_level_passes(
    rows: list[tuple[float, float]], level: float
) -> None:
    patterns = list(itertools.product([1, -1], repeat=len(rows)))
    flipped = [[(sign * a, sign * b) for sign, (a, b) in zip(signs, rows, strict=True)] for signs in patterns]
    passing = sum(joint_sign_flip(*zip(*one, strict=True)) <= level for one in flipped)
    assert passing <= level * len(patterns) + 1e-9


def test_interval_holds_the_mean_and_narrows_with_rows() -> None:
    low, high = interval([0.0, 1.0] * 50)
    assert low == pytest.approx(0.4, abs=0.03)
    assert high == pytest.approx(0.6, abs=0.03)
    assert interval([0.0, 1.0] * 50) == (low, high)
    wider = interval([0.0, 1.0] * 50, level=0.99)
    assert wider[0] < low < high < wider[1]
    assert interval([0.3]) == (0.3, 0.3)
    with pytest.raises(ValueError, match="at least one"):
        interval([])


def test_standard_error() -> None:
    assert standard_error([0.0, 1.0, 0.0, 1.0]) == pytest.approx((1 / 3) ** 0.5 / 2)
    assert standard_error([0.7]) == 0.0


def test_a_clear_rise_is_kept_with_its_numbers() -> None:
    before, after = evaluation(*[(0, 0)] * 12), evaluation(*[(1, 1)] * 10, (0, 0), (0, 0))
    verdict = judge(before, after, level=0.1)
    assert verdict.kept
    assert verdict.reason == "joint reward 0.00 → 0.83 (p < 0.001)"
    assert (verdict.before, verdict.p_value) == (0.0, 2**-10)
    assert verdict.after == verdict.gain == pytest.approx(10 / 12)


def test_a_rise_within_chance_is_discarded() -> None:
    verdict = judge(evaluation(*[(0, 0)] * 8), evaluation((1, 1), *[(0, 0)] * 7), level=0.1)
    assert not verdict.kept
    assert verdict.p_value == 0.5
    assert "within chance" in verdict.reason
    assert "0.00 → 0.12 (p = 0.5)" in verdict.reason


def test_progress_of_one_factor_is_kept_while_the_product_is_flat() -> None:
    verdict = judge(evaluation(*[(0, 0)] * 6), evaluation(*[(1, 0)] * 6), level=0.1)
    assert verdict.kept
    assert verdict.p_value == 2**-6
    assert "merit 0.00 → 0.33 (p = 0.016)" in verdict.reason
    assert verdict.measure == "merit"


def test_merit_cannot_pay_for_a_fall_of_the_joint_reward() -> None:
    before = evaluation((1, 1), *[(0, 0)] * 9)
    after = evaluation((1, 0), *[(1, 0)] * 9)
    verdict = judge(before, after, level=0.1)
    assert not verdict.kept
    assert "fell" in verdict.reason


@pytest.mark.parametrize("simpler", [True, False])
def test_on_a_full_tie_the_simpler_pair_wins(simpler: bool) -> None:
    same = evaluation((1, 1), (0, 1))
    verdict = judge(same, same, level=0.1, after_is_simpler=simpler)
    assert verdict.kept is simpler
    assert verdict.gain == 0


def test_being_simpler_does_not_help_where_rows_differ() -> None:
    assert not judge(evaluation((1, 1), (0, 0)), evaluation((0, 0), (1, 1)), level=0.1, after_is_simpler=True).kept


def test_rows_are_paired_by_name() -> None:
    before = evaluation((1, 1), (0, 0))
    reordered = before.model_copy(update={"scores": before.scores[::-1]})
    assert "no row differs" in judge(before, reordered, level=0.1).reason
    with pytest.raises(ValueError, match="same rows"):
        judge(before, evaluation((1, 1)), level=0.1)


# --- the second witness ---------------------------------------------------------------------------------


def risen_within_chance() -> Verdict:
    before, after = [(0, 1)] * 2 + [(1, 1)] * 30, [(1, 1)] * 32
    return judge(evaluation(*before), evaluation(*after), level=0.1)


def test_too_few_rows_to_tell_are_decided_by_the_likelihood_of_the_wanted_answers() -> None:
    verdict = risen_within_chance()
    assert not verdict.kept and verdict.gain > 0
    likelier = corroborate(verdict, [0.5] * 32, [0.1] * 32, level=0.1)
    assert likelier.kept and likelier.p_value < 0.001 and "0.50 → 0.10 nats" in likelier.reason
    assert not corroborate(verdict, [0.1] * 32, [0.5] * 32, level=0.1).kept
    assert not corroborate(verdict, [0.1] * 32, [0.1] * 32, level=0.1).kept


def test_rows_that_were_not_measured_are_no_evidence() -> None:
    """One row up, and seven that no longer fit into the window: 0 in their place would make 0.84 of 6.67 nats."""
    verdict = judge(evaluation((0, 1), *[(1, 1)] * 7), evaluation(*[(1, 1)] * 8), level=0.1)
    before: list[float | None] = [6.67] * 8
    after: list[float | None] = [6.5, *[None] * 7]
    heard = corroborate(verdict, before, after, level=0.1)
    assert not heard.kept and heard.p_value == verdict.p_value
    assert "6.67 → 6.50" in heard.reason and "7 rows could not be measured" in heard.reason
    silent = corroborate(verdict, before, [None] * 8, level=0.1)
    assert not silent.kept and "8 rows could not be measured" in silent.reason
    assert corroborate(verdict, [*before, None], [*[0.1] * 8, 0.2], level=0.1).kept, "the others tell"


def test_it_is_heard_only_where_few_rows_changed_and_all_for_the_better() -> None:
    few = evaluation(*[(0, 1)] * 3 + [(1, 1)] * 9)
    assert too_few_to_tell(few, evaluation(*[(1, 1)] * 12), level=0.1)
    assert not too_few_to_tell(few, few, level=0.1)
    assert not too_few_to_tell(few, evaluation(*[(1, 1)] * 2 + [(0, 1)] * 2 + [(1, 1)] * 8), level=0.1)
    assert not too_few_to_tell(evaluation(*[(0, 1)] * 12), evaluation(*[(1, 1)] * 4 + [(0, 1)] * 8), level=0.1)


def test_it_is_heard_only_where_the_test_on_rewards_and_merit_could_not_have_succeeded() -> None:
    """Else it would be a second chance: here four rows gained style beside the three whose reward rose."""
    before = evaluation(*[(0, 1)] * 3, *[(0, 0)] * 4, *[(1, 1)] * 5)
    after = evaluation(*[(1, 1)] * 3, *[(0, 1)] * 4, *[(1, 1)] * 5)
    assert too_few_to_tell(before, after, level=0.5**8)
    assert not too_few_to_tell(before, after, level=0.5**7)


# --- which rows decide ------------------------------------------------------------------------------------


def test_rows_on_which_a_trial_was_chosen_do_not_decide() -> None:
    scores = evaluation((1, 1), (0, 0), (1, 0))
    assert [score.example for score in deciding(scores, {"validation:1", "train:2"}).scores] == [
        "validation:2", "validation:3",
    ]  # fmt: skip
    assert deciding(scores, ()) == scores
    assert deciding(scores, [score.example for score in scores.scores]) == scores, "all or none"


def test_a_verdict_says_what_it_was_tested_at_and_on_how_many_rows() -> None:
    verdict = judge(evaluation(*[(0, 0)] * 8), evaluation((1, 1), *[(0, 0)] * 7), level=0.03)
    assert (verdict.level, verdict.rows) == (0.03, 8)
    assert judge(evaluation((1, 1)), evaluation((1, 1)), level=0.03).level is None, "nothing was tested"


def test_a_level_below_what_ten_thousand_flips_can_tell_is_reached_with_more() -> None:
    clear = evaluation(*[(0, 0)] * 40), evaluation(*[(1, 1)] * 40)
    assert judge(*clear, level=2e-5).kept
    verdict = judge(*clear, level=1e-9)
    assert not verdict.kept and "> level 1e-09" in verdict.reason
    assert too_few_to_tell(*clear, level=1e-9)

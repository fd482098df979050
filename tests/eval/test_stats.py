"""The statistics by their laws."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.stats import (
    interval,
    joint_sign_flip,
    sign_flip,
    standard_error,
)

differences = st.lists(st.floats(-1, 1), max_size=20)


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

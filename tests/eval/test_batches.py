"""Rows in turn: all of them before any comes back."""

from hypothesis import given
from hypothesis import strategies as st

from eval.batches import batch


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 99))
def test_every_row_is_served_before_any_comes_back(count: int, size: int, seed: int) -> None:
    rows, turns = list(range(count)), -(-count // size)
    served = [row for turn in range(turns) for row in batch(rows, turn * size, size, seed)]
    assert set(served) == set(rows)
    assert len(set(served[:count])) == count


@given(st.integers(0, 40), st.integers(0, 99), st.integers(1, 60))
def test_a_batch_holds_different_rows_and_is_the_same_every_time(count: int, start: int, size: int) -> None:
    rows = list(range(count))
    drawn = batch(rows, start, size, 7)
    assert len(drawn) == len(set(drawn)) == min(size, count)
    assert drawn == batch(rows, start, size, 7)


def test_another_seed_is_another_order() -> None:
    rows = list(range(20))
    assert batch(rows, 0, 20, 1) != batch(rows, 0, 20, 2)

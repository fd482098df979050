"""The simulation of a night, where its outcome is known; against real workers it is checked by bench.studies.scale."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.studies.scale import a_night, simulated


def test_tasks_are_taken_in_order_by_the_worker_that_is_free_first() -> None:
    night = simulated([5.0, 2.0, 4.0, 1.0], 2, 0.0)  # 0-5 and 5-6, 0-2 and 2-6
    assert night.length == 6.0 and night.busy == 1.0
    assert simulated([1.0, 1.0, 9.0], 2, 0.5).length == 1.5 + 9.5


def test_a_lost_worker_costs_a_start_and_an_eighth_of_the_task_at_most() -> None:
    assert simulated([8.0], 1, 0.5, [4.5]).length == 4.5 + 0.5 + 4.0 + 1.0
    assert simulated([8.0], 1, 0.5, [1.0]).length == 1.0 + 0.5 + 8.0, "half a minute was done, and is done again"
    assert simulated([8.0], 1, 0.5, [99.0]).length == 8.5


@given(st.lists(st.floats(0.1, 50), min_size=1, max_size=20), st.integers(1, 8))
def test_more_workers_end_between_the_bounds_of_list_scheduling(tasks: list[float], workers: int) -> None:
    """Graham's: at least the mean load and the longest task, at most their sum."""
    night = simulated(tasks, workers, 0.0)
    least, longest = sum(tasks) / workers, max(tasks)
    assert max(least, longest) <= night.length + 1e-9 and night.length <= least + longest + 1e-9
    assert night.busy == pytest.approx(sum(tasks) / (workers * night.length))


def test_the_night_is_the_same_every_time() -> None:
    assert a_night() == a_night() != a_night(seed=1)

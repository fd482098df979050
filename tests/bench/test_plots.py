"""Charts that compare: whatever the numbers, they can be drawn; bars are as long as their numbers."""

import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from bench.plots import Point, bar_chart, scatter
from tests.ui.test_charts import drawable, numbers
from ui.report.charts import Bar

bars = st.lists(st.builds(Bar, st.just("<b>"), numbers, numbers, numbers), max_size=12)


@given(bars)
def test_bars_of_any_numbers_are_drawable(given_bars: list[Bar]) -> None:
    drawn = str(bar_chart(given_bars, "reward", "{:.2g}".format))
    assert drawable(drawn) and "<b>" not in drawn and drawn.count("&lt;b&gt;") >= len(given_bars)


@given(st.lists(st.builds(Point, st.just("<b>"), numbers, numbers, st.just("mean")), max_size=12))
def test_points_of_any_numbers_are_drawable(spots: list[Point]) -> None:
    drawn = str(scatter(spots, "passes", "reward"))
    assert drawable(drawn) and "<b>" not in drawn


def test_bars_are_as_long_as_their_numbers_on_both_sides_of_0() -> None:
    drawn = str(bar_chart([Bar("a", 0.4, 0.3, 0.5), Bar("b", -0.2, -0.3, -0.1)], "regret", "{:.2g}".format))
    (left, width), (left_below, width_below) = [
        tuple(map(float, one)) for one in re.findall(r'class="mean" x="([\d.]+)" y="\d+" width="([\d.]+)"', drawn)
    ]
    assert abs(width - 2 * width_below) < 0.3 and abs(left_below + width_below - left) < 0.3


def test_labels_of_points_in_one_place_do_not_cover_each_other() -> None:
    drawn = str(scatter([Point(name, 1000, 0.5, "") for name in "abcdef"], "passes", "reward"))
    placed = re.findall(r'<text class="tick" x="[\d.]+" y="([-\d.]+)"[^>]*>[a-f]<', drawn)
    heights = sorted(map(float, placed))
    assert len(heights) == 5 and min(above - below for below, above in pairwise(heights)) >= 12
    assert ">f<" not in drawn and "f: reward 0.50" in drawn, "the last finds no room, and is named by its title alone"

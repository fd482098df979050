"""Charts that compare: whatever the numbers, they can be drawn; bars are as long as their numbers."""

import re
from itertools import pairwise
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from bench.plots import Point, bar_chart, rate_bars, rate_panels, reliability, scatter, standalone
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


rates = st.floats(1e-6, 1e9)
names = st.text("<b>", max_size=3)
serieses = st.dictionaries(names, st.lists(st.tuples(st.floats(0, 1e6), rates), max_size=6), max_size=4)


@given(st.dictionaries(names, serieses, max_size=3))
def test_rates_in_panels_are_drawable(panels: dict[str, dict[str, list[tuple[float, float]]]]) -> None:
    drawn = str(rate_panels(panels, "shared tokens", "rows/s"))
    assert drawable(drawn) and "<b>" not in drawn
    assert drawn.count("<circle") == sum(len(points) for series in panels.values() for points in series.values())


@given(st.dictionaries(names, st.dictionaries(names, rates), max_size=4))
def test_rates_as_bars_are_drawable(groups: dict[str, dict[str, float]]) -> None:
    drawn = str(rate_bars(groups, "rows/s"))
    assert drawable(drawn) and "<b>" not in drawn
    assert drawn.count("<rect") == sum(map(len, groups.values()))


def test_a_faster_contender_has_the_higher_bar_and_the_higher_point() -> None:
    drawn = str(rate_bars({"cell": {"ours": 100.0, "plain": 10.0, "trl": 1.0}}, "rows/s"))
    ours, plain, trl = map(float, re.findall(r'height="([\d.]+)"/>', drawn))
    assert ours > plain > trl and abs((ours - plain) - (plain - trl)) < 0.2, "a logarithmic axis"
    drawn = str(rate_panels({"batch 1": {"ours": [(0, 100.0)], "plain": [(0, 10.0)]}}, "tokens", "rows/s"))
    ours, plain = map(float, re.findall(r'cy="([\d.]+)"', drawn))
    assert ours < plain, "pixels count from the top"


def test_what_comes_true_as_often_as_it_says_stands_on_the_diagonal() -> None:
    drawn = str(reliability({"rows": [(0.25, 0.25), (0.75, 0.75)]}, "chance", "share"))
    line = re.search(r'class="parting" x1="([\d.]+)" y1="([\d.]+)" x2="([\d.]+)" y2="([\d.]+)"', drawn)
    assert line
    x0, y0, x1, y1 = map(float, line.groups())
    for x, y in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', drawn):
        assert abs((float(x) - x0) / (x1 - x0) - (float(y) - y0) / (y1 - y0)) < 0.01


def test_a_drawing_of_its_own_is_a_whole_svg_file() -> None:
    root = ElementTree.fromstring(standalone(reliability({"<b>": [(0.5, 0.5)]}, "chance", "share")))
    assert root.tag == "{http://www.w3.org/2000/svg}svg" and root[0].text and ".grid" in root[0].text

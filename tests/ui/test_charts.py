"""The charts of a report: whatever the numbers, they can be drawn."""

import re

from hypothesis import given
from hypothesis import strategies as st

from ui.report import charts

numbers = st.floats(allow_nan=True, allow_infinity=True)


@given(st.lists(numbers, max_size=40), st.one_of(st.none(), numbers))
def test_reward_curve_of_any_numbers_is_drawable(rewards: list[float], start: float | None) -> None:
    points = [charts.Point(i, reward, "edit_prompt", True, "<&>") for i, reward in enumerate(rewards, 1)]
    drawn = str(charts.reward_curve(points, start, 0.9))
    assert drawable(drawn)
    assert drawn.count("<title>&lt;&amp;&gt;</title>") == len(points)


@given(st.lists(numbers, min_size=1, max_size=40))
def test_reward_curve_of_many_trials_has_a_dot_for_each_that_was_taken_back(rewards: list[float]) -> None:
    many = [charts.Point(i, rewards[i % len(rewards)], "train_lora", False, "") for i in range(charts.MOST_MARKS + 1)]
    drawn = str(charts.reward_curve(many, 0.0, 0.9))
    assert drawable(drawn)
    assert sum(path.count("M") for path in re.findall(r'class="dots \w+" d="([^"]*)"', drawn)) == len(many)


@given(st.lists(st.lists(numbers, max_size=20), max_size=4))
def test_loss_curve_of_any_numbers_is_drawable(runs: list[list[float]]) -> None:
    drawn = str(charts.loss_curve([charts.LossRun("<b>", values, values[::-1], values[:2]) for values in runs]))
    assert drawable(drawn)
    assert "<b>" not in drawn


@given(numbers, numbers, numbers)
def test_interval_chart_of_any_numbers_is_drawable(value: float, low: float, high: float) -> None:
    assert drawable(str(charts.interval_chart([charts.Bar("best", value, low, high)], 0.9)))


@given(st.lists(st.dictionaries(st.sampled_from(["planner", "editor", "judge"]), numbers), max_size=150))
def test_money_chart_of_any_numbers_is_drawable_and_not_crowded(paid: list[dict[str, float]]) -> None:
    drawn = str(charts.money_chart([charts.Bill(f"<{place}>", usd) for place, usd in enumerate(paid)]))
    assert drawable(drawn)
    assert "<0>" not in drawn
    assert drawn.count("<rect") <= 3 * charts.MOST_BARS


def test_bars_of_money_stand_on_one_another_and_lose_nothing() -> None:
    drawn = str(charts.money_chart([charts.Bill(str(n), {"planner": 0.001, "editor": 0.003}) for n in range(200)]))
    amounts = [float(usd) for usd in re.findall(r"(?:planner|editor): \$([\d.]+)<", drawn)]
    assert abs(sum(amounts) - 200 * 0.004) < 1e-9
    planner, editor = re.findall(r'class="paid \w+" x="[\d.]+" y="([\d.]+)" width="[\d.]+" height="([\d.]+)"', drawn)[
        :2
    ]
    assert abs(float(editor[0]) + float(editor[1]) - float(planner[0])) < 0.2
    assert float(editor[1]) > 2 * float(planner[1])


def drawable(svg: str) -> bool:
    """No coordinate is NaN or infinite, in any attribute that places something."""
    placed = re.findall(r' (?:x|y|x1|x2|y1|y2|cx|cy|d|width|height)="([^"]*)"', svg)
    return not [value for value in placed if re.search(r"nan|inf", value)]


def test_loss_curve_of_many_steps_is_thinned() -> None:
    losses = [3 / (1 + step / 100) for step in range(50_000)]
    assert len(charts.loss_curve([charts.LossRun("round 1", losses, losses, [1.0])])) < 30_000


def test_best_line_leaves_discarded_trials_out() -> None:
    low = charts.Point(2, 0.2, "train_lora", False, "")
    drawn = charts.reward_curve([charts.Point(1, 0.5, "edit_prompt", True, ""), low], 0.0, None)
    line = re.search(r'class="best" d="([^"]*)"', drawn)
    assert line and line[1].count("V") == 1

"""Charts of the monitoring signal: marks stand where the numbers are, and whatever the numbers, they can be drawn."""

import math
import re

from hypothesis import given
from hypothesis import strategies as st

from agent.records.signal import Outlook
from tests.ui.test_charts import drawable, numbers
from ui.report.signal import Forecast, State, best_pair_chart, promise_chart

NAN = math.nan
OUTLOOKS = st.builds(Outlook, gain=numbers, spread=numbers, cost=st.floats(1, 1e12))
ACTIONS = st.sampled_from(["edit_prompt", "train_lora"])
FORECASTS = st.lists(
    st.builds(
        Forecast, st.integers(1, 500), st.dictionaries(ACTIONS, OUTLOOKS),
        st.sampled_from(["edit_prompt", "train_lora", "rollback", "<b>"]), numbers, st.booleans(), st.floats(0, 1),
    ),
    max_size=40,
)  # fmt: skip


@given(FORECASTS)
def test_promises_of_any_numbers_are_drawable(forecasts: list[Forecast]) -> None:
    drawn = str(promise_chart(forecasts))
    assert drawable(drawn) and "<b>" not in drawn
    assert drawn.count('class="promise ') == sum(len(forecast.outlooks) for forecast in forecasts)
    assert drawn.count('class="mark came ') == len(forecasts)


@given(st.lists(st.tuples(numbers, numbers, numbers, numbers, numbers), max_size=40))
def test_courses_of_any_numbers_are_drawable(rows: list[tuple[float, float, float, float, float]]) -> None:
    assert drawable(str(best_pair_chart([State(place, *row) for place, row in enumerate(rows)])))


def a_forecast(number: int, pulled: str, came: float, *, kept: bool) -> Forecast:
    both = {
        "edit_prompt": Outlook(gain=0.2, spread=0.1, cost=2_000),
        "train_lora": Outlook(gain=0.3, spread=0.1, cost=30_000),
    }
    return Forecast(number, both, pulled, came, kept, 0.1)


def test_what_came_stands_as_high_as_the_promise_that_it_kept() -> None:
    drawn = str(
        promise_chart([a_forecast(1, "train_lora", 0.3, kept=True), a_forecast(2, "edit_prompt", NAN, kept=False)])
    )
    promised = dict(re.findall(r'<g class="promise (\w+) \w+">.*?<circle cx="[\d.]+" cy="([\d.]+)"', drawn)[:2])
    came = re.search(r'<g class="mark came train_lora kept">.*?<circle cx="[\d.]+" cy="([\d.]+)"', drawn)
    floor = re.search(r'class="floor" x1="[\d.]+" y1="([\d.]+)"', drawn)
    assert came and came[1] == promised["train_lora"]
    assert floor and abs(float(floor[1]) - float(promised["edit_prompt"]) - 45) < 0.2  # 0.1 of 0.4, which are 180 px
    assert (
        '<g class="promise train_lora pulled"><title>round 1, LoRA promises +0.30 ± 0.10 for 30k forward tokens'
        in drawn
    )
    assert '<g class="promise edit_prompt left"><title>round 1,' in drawn
    assert "round 2, edit: no trial" in drawn and 'class="cross"' in drawn


def test_what_was_taken_back_is_hollow_and_losses_stand_below_zero() -> None:
    drawn = str(promise_chart([a_forecast(1, "train_lora", -0.2, kept=False)]))
    lost = re.search(r'<g class="mark came train_lora dropped">.*?−0.20 merit, taken back.*?cy="([\d.]+)"', drawn)
    zero = re.search(r'class="parting" x1="[\d.]+" y1="([\d.]+)"', drawn)
    assert lost and zero and float(lost[1]) > float(zero[1])


def test_cheap_lever_has_the_longer_bar_of_gain_per_token() -> None:
    drawn = str(promise_chart([a_forecast(1, "train_lora", 0.3, kept=True)]))
    bars = dict(re.findall(r'class="rate (\w+) \w+" x="[\d.]+" y="[\d.]+" width="[\d.]+" height="([\d.]+)"', drawn))
    assert abs(float(bars["edit_prompt"]) / float(bars["train_lora"]) - 10) < 0.2


def test_band_is_the_standard_error_about_the_reward_and_drift_is_drawn_only_where_known() -> None:
    known = [State(0, 0.5, 0.7, 0.6, 0.1, NAN), State(1, 0.5, 0.7, 0.6, 0.1, NAN)]
    drawn = str(best_pair_chart(known))
    band = re.search(r'class="band" d="M[\d.]+ ([\d.]+)H[\d.]+V([\d.]+)H', drawn)
    line = re.search(r'class="signal reward" d="M[\d.]+ ([\d.]+)h0', drawn)
    assert band and line
    assert abs(float(band[1]) + float(band[2]) - 2 * float(line[1])) < 0.2
    assert abs(float(band[2]) - float(band[1]) - 0.2 * 180) < 0.2  # the axis from 0 to 1 is 180 px
    assert "drift" not in drawn
    assert 'class="signal drift"' in best_pair_chart([*known, State(2, 0.6, 0.7, 0.6, 0.1, 0.03)])

"""Charts that compare: bars of means with intervals, and points in a plane. Plain functions from numbers to markup."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from markupsafe import Markup

from ui.report import svg
from ui.report.charts import Bar

NAMES = 150  # pixels left of the bars
ROW = 26
NEAR = 30  # pixels that a label may be off its point


class Spot(NamedTuple):
    """A point in a plane. `css` gives it a colour."""

    label: str
    x: float
    y: float
    css: str


def bar_chart(bars: Sequence[Bar], label: str, say: Callable[[float], str]) -> Markup:
    """Means as bars from 0, either way, with whiskers; the names stand to the left."""
    known = [value for bar in bars for value in (bar.value, bar.low, bar.high) if math.isfinite(value)]
    high = svg.nice(known) if max(known, default=0.0) > 0 or not known else 0.0
    low = -svg.nice(-value for value in known) if min(known, default=0.0) < 0 else 0.0
    high = high or (0.0 if low else 1.0)
    bottom = 16 + ROW * len(bars)

    def x(value: float) -> float:
        return NAMES + (min(max(value, low), high) - low) / (high - low) * (svg.WIDTH - NAMES - 20)

    parts = []
    for tick in dict.fromkeys((low, 0.0, high / 2, high)):
        parts.append(svg.line(x(tick), 8, x(tick), bottom, "parting" if tick == 0 else "grid"))
        parts.append(svg.text(say(tick), x(tick), bottom + 16, "tick", "middle"))
    for row, bar in enumerate(bars):
        parts.append(_bar(bar, 12 + ROW * row, x, say))
    parts.append(svg.text(label, (NAMES + svg.WIDTH) / 2, bottom + 34, "axis", "middle"))
    return svg.drawing(bottom + 42, label, parts)


def _bar(bar: Bar, y: float, x: Callable[[float], float], say: Callable[[float], str]) -> Markup:
    name = svg.text(bar.label, NAMES - 10, y + 13, "name", "end")
    if not math.isfinite(bar.value):
        return name
    low, high = (end if math.isfinite(end) else bar.value for end in (bar.low, bar.high))
    left, right = sorted((x(0), x(bar.value)))
    title = f"{bar.label}: {say(bar.value)}, 95 % interval {say(low)} to {say(high)}"
    return Markup(
        '<g class="interval"><title>{}</title>{}<rect class="mean" x="{:.1f}" y="{}" width="{:.1f}" height="12"/>{}</g>'
    ).format(title, name, left, y + 3, right - left, svg.line(x(low), y + 9, x(high), y + 9, "whisker"))


def scatter(spots: Sequence[Spot], across: str, up: str) -> Markup:
    """Points over a logarithmic axis; up is [0, 1]. What cannot be placed is left out.

    Labels avoid each other, the first ones first; where they crowd, a point is named by its title alone.
    """
    known = [spot for spot in spots if math.isfinite(spot.y) and math.isfinite(spot.x) and spot.x > 0]
    if not known:
        return Markup()
    powers = [math.log10(spot.x) for spot in known]
    frame = svg.Frame(min(powers) - 0.1, max(powers) + 0.35, 1.0, 26, 266)
    parts = [svg.text(up, svg.LEFT, 14, "axis", "start"), svg.text(across, svg.WIDTH / 2, 300, "axis", "middle")]
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts.append(svg.line(svg.LEFT, frame.y(tick), svg.WIDTH - svg.RIGHT, frame.y(tick), "grid"))
        parts.append(svg.text(f"{tick:g}", svg.LEFT - 8, frame.y(tick) + 4, "tick", "end"))
    for exponent, factor in ((power, factor) for power in range(math.floor(frame.x0), 17) for factor in (1, 2, 5)):
        place = exponent + math.log10(factor)
        if frame.x0 <= place <= frame.x1:
            parts.append(svg.text(f"{factor * 10.0**exponent:,.10g}", frame.x(place), 282, "tick", "middle"))
    taken: list[tuple[float, float]] = []
    for spot, power in zip(known, powers, strict=True):
        x, y = frame.x(power), frame.y(spot.y)
        title = f"{spot.label}: {up} {spot.y:.2f}, {across} {spot.x:,.0f}"
        parts.append(
            Markup('<g class="mark {}"><title>{}</title><circle cx="{:.1f}" cy="{:.1f}" r="5"/></g>').format(
                spot.css, title, x, y
            )
        )
        label = _free(x, y + 4, taken)
        if label is not None:
            taken.append((x, label))
            parts.append(svg.text(spot.label, x + 9, label, "tick", "start"))
    return svg.drawing(308, f"{up} over {across}", parts)


def _free(x: float, y: float, taken: Sequence[tuple[float, float]]) -> float | None:
    """Where a label finds room beside its point, or a little below or above; None where it might be another's."""
    near = [place for place in range(24, 268, 2) if abs(place - y) <= NEAR]
    crowded = {place for place in near for beside, other in taken if abs(place - other) < 12 and abs(x - beside) < 130}
    return min(set(near) - crowded, key=lambda place: (abs(place - y), place), default=None)

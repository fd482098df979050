"""Charts that compare policies or contenders: plain functions from numbers to SVG markup.

The report's charts are in ui/report/charts.py; both draw with ui/report/svg.py.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from ui.report import svg
from ui.report.charts import Bar

NAMES = 150  # pixels left of the bars
ROW = 26
NEAR = 30  # pixels that a label may be off its point
GAP = 34  # pixels between two panels
STYLE = (
    "text{font:12px sans-serif;fill:#666}.grid{stroke:#ddd}.parting{stroke:#999;stroke-dasharray:2 3}"
    "circle{fill:#888;stroke:#fff}.edit_prompt circle{fill:#b3541e}.train_lora circle{fill:#2a5fc4}"
    ".series path{fill:none;stroke:currentColor;stroke-width:1.6}.series circle,.series rect,.series text"
    "{fill:currentColor;stroke:none}.s0{color:#b3541e}.s1{color:#2a5fc4}.s2{color:#1f7a4d}.s3{color:#7a3fa0}"
)


Series = Mapping[str, Sequence[tuple[float, float]]]
"""Points (x, y) by the name of what they belong to; x ascending."""


class Point(NamedTuple):
    """A point in a plane. `css` gives it a colour."""

    label: str
    x: float
    y: float
    css: str


def bar_chart(bars: Sequence[Bar], label: str, format_value: Callable[[float], str]) -> Markup:
    """Means as horizontal bars from 0, with whiskers for the intervals and names on the left.

    Args:
        bars: a mean that is not finite has a name and no bar.
        label: of the axis.
        format_value: how a value of the axis is written.
    """
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
        parts.append(svg.text(format_value(tick), x(tick), bottom + 16, "tick", "middle"))
    for row, bar in enumerate(bars):
        parts.append(_bar(bar, 12 + ROW * row, x, format_value))
    parts.append(svg.text(label, (NAMES + svg.WIDTH) / 2, bottom + 34, "axis", "middle"))
    return svg.drawing(bottom + 42, label, parts)


def _bar(bar: Bar, y: float, x: Callable[[float], float], format_value: Callable[[float], str]) -> Markup:
    name = svg.text(bar.label, NAMES - 10, y + 13, "name", "end")
    if not math.isfinite(bar.value):
        return name
    low, high = (end if math.isfinite(end) else bar.value for end in (bar.low, bar.high))
    left, right = sorted((x(0), x(bar.value)))
    title = f"{bar.label}: {format_value(bar.value)}, 95 % interval {format_value(low)} to {format_value(high)}"
    return Markup(
        '<g class="interval"><title>{}</title>{}<rect class="mean" x="{:.1f}" y="{}" width="{:.1f}" height="12"/>{}</g>'
    ).format(title, name, left, y + 3, right - left, svg.line(x(low), y + 9, x(high), y + 9, "whisker"))


def scatter(points: Sequence[Point], across: str, up: str) -> Markup:
    """Points over a logarithmic axis; the vertical axis goes from 0 to 1. Points that are not finite are left out.

    Labels avoid each other, the first ones first; where they crowd, a point has its name in its title only.
    """
    known = [point for point in points if math.isfinite(point.y) and math.isfinite(point.x) and point.x > 0]
    if not known:
        return Markup()
    powers = [math.log10(point.x) for point in known]
    frame = svg.Frame(min(powers) - 0.1, max(powers) + 0.35, 1.0, 26, 266)
    parts = [svg.text(up, svg.LEFT, 14, "axis", "start"), svg.text(across, svg.WIDTH / 2, 300, "axis", "middle")]
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts.append(svg.line(svg.LEFT, frame.y(tick), svg.WIDTH - svg.RIGHT, frame.y(tick), "grid"))
        parts.append(svg.text(f"{tick:g}", svg.LEFT - 8, frame.y(tick) + 4, "tick", "end"))
    for power, tick_label in _log_ticks(frame.x0, frame.x1):
        parts.append(svg.text(tick_label, frame.x(power), 282, "tick", "middle"))
    taken: list[tuple[float, float]] = []
    for point, power in zip(known, powers, strict=True):
        x, y = frame.x(power), frame.y(point.y)
        title = f"{point.label}: {up} {point.y:.2f}, {across} {point.x:,.0f}"
        parts.append(
            Markup('<g class="mark {}"><title>{}</title><circle cx="{:.1f}" cy="{:.1f}" r="5"/></g>').format(
                point.css, title, x, y
            )
        )
        label = _free(x, y + 4, taken)
        if label is not None:
            taken.append((x, label))
            parts.append(svg.text(point.label, x + 9, label, "tick", "start"))
    return svg.drawing(308, f"{up} over {across}", parts)


def rate_panels(panels: Mapping[str, Series], across: str, up: str) -> Markup:
    """Lines on a logarithmic axis, in panels side by side.

    Args:
        panels: by the title of the panel, points (x, y) by the name of their line; y above 0.
        across: label of the x axes.
        up: label of the y axis, which all panels share.
    """
    names = list(dict.fromkeys(name for series in panels.values() for name, points in series.items() if points))
    places = [x for series in panels.values() for points in series.values() for x, _ in points]
    low, high = _log_range(y for series in panels.values() for points in series.values() for _, y in points)
    width = (svg.WIDTH - svg.LEFT - svg.RIGHT - GAP * (len(panels) - 1)) / max(len(panels), 1)
    parts = [*_legend(names), svg.text(across, svg.WIDTH / 2, 262, "axis", "middle")]
    parts.append(svg.text(up, svg.LEFT, 36, "axis", "start"))
    for place, (title, series) in enumerate(panels.items()):
        left = svg.LEFT + place * (width + GAP)
        span = max(places, default=0) or 1
        frame = svg.Frame(-span / 20, span, high, 44, 224, low, left, left + width)
        parts += _log_axis(frame)
        parts.append(svg.text(title, left + width, 36, "axis", "end"))
        end = -math.inf
        for x in sorted({x for points in series.values() for x, _ in points}):
            if frame.x(x) > end:  # where labels would cover each other, the first one stays
                parts.append(svg.text(f"{x:g}", frame.x(x), 240, "tick", "middle"))
                end = frame.x(x) + 28
        for name, points in series.items():
            if points:
                logs = [(x, math.log10(y)) for x, y in points]
                parts.append(_line(frame, logs, names.index(name), name))
    return svg.drawing(270, f"{up} over {across}", parts)


def rate_bars(groups: Mapping[str, Mapping[str, float]], up: str) -> Markup:
    """Groups of vertical bars on a logarithmic axis.

    Args:
        groups: by the group's title (of one or two lines), a value above 0 for each name.
        up: label of the axis.
    """
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    low, high = _log_range(value for group in groups.values() for value in group.values())
    frame = svg.Frame(0, max(len(groups), 1), high, 44, 224, low)
    parts = [*_legend(names), svg.text(up, svg.LEFT, 36, "axis", "start"), *_log_axis(frame)]
    width = 0.8 * (frame.x(1) - frame.x(0)) / max(len(names), 1)
    for place, (title, group) in enumerate(groups.items()):
        for row, words in enumerate(title.split("\n")):
            parts.append(svg.text(words, frame.x(place + 0.5), 240 + 15 * row, "tick", "middle"))
        for name, value in group.items():
            x, y = frame.x(place + 0.1) + names.index(name) * width, frame.y(math.log10(value))
            parts.append(
                Markup(
                    '<g class="series s{}"><title>{}: {:.3g}</title>'
                    '<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/></g>'
                ).format(names.index(name), name, value, x, y, width, frame.bottom - y)
            )
    return svg.drawing(264, up, parts)


def reliability(series: Series, across: str, up: str) -> Markup:
    """Shares over chances, both in [0, 1]; on the dotted diagonal, chances come true as often as they say."""
    frame = svg.Frame(0, 1, 1.0, 44, 324, left=130, right=430)
    parts = [*_legend(list(series)), svg.text(up, frame.left, 36, "axis", "start")]
    parts.append(svg.text(across, (frame.left + frame.right) / 2, 362, "axis", "middle"))
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts.append(svg.line(frame.left, frame.y(tick), frame.right, frame.y(tick), "grid"))
        parts.append(svg.text(f"{tick:g}", frame.left - 8, frame.y(tick) + 4, "tick", "end"))
        parts.append(svg.text(f"{tick:g}", frame.x(tick), 340, "tick", "middle"))
    parts.append(svg.line(frame.x(0), frame.y(0), frame.x(1), frame.y(1), "parting"))
    parts += [_line(frame, points, number, name) for number, (name, points) in enumerate(series.items()) if points]
    return svg.drawing(370, f"{up} over {across}", parts)


def standalone(drawing: Markup) -> str:
    """A drawing as a file of its own, with colours that a page would bring."""
    opening, rest = str(drawing).replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1).split(">", 1)
    return f"{opening}><style>{STYLE}</style>{rest}\n"


# --- parts of the charts ---------------------------------------------------------------------------


def _legend(names: Sequence[str]) -> Iterator[Markup]:
    x = float(svg.LEFT)
    for number, name in enumerate(names):
        yield Markup('<g class="series s{}">{}</g>').format(number, svg.text(f"● {name}", x, 14, "tick", "start"))
        x += 7 * len(name) + 36


def _line(frame: svg.Frame, points: Sequence[tuple[float, float]], number: int, name: str) -> Markup:
    places = [(frame.x(x), frame.y(y)) for x, y in points]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    dots = Markup("").join(Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3.2"/>').format(x, y) for x, y in places)
    return Markup('<g class="series s{}"><title>{}</title><path d="M{}"/>{}</g>').format(number, name, path, dots)


def _log_range(values: Iterator[float]) -> tuple[float, float]:
    """Powers of ten a little below and above all values."""
    powers = [math.log10(value) for value in values]
    return min(powers, default=0.0) - 0.1, max(powers, default=1.0) + 0.1


def _log_axis(frame: svg.Frame) -> Iterator[Markup]:
    for power, label in _log_ticks(frame.y0, frame.y1):
        yield svg.line(frame.left, frame.y(power), frame.right, frame.y(power), "grid")
        yield svg.text(label, frame.left - 6, frame.y(power) + 4, "tick", "end")


def _log_ticks(low: float, high: float) -> Iterator[tuple[float, str]]:
    """1, 2, 5, 10, 20, … between 10**low and 10**high: the power of ten, and its label."""
    for exponent in range(math.floor(low), min(math.floor(high), 16) + 1):
        for factor in (1, 2, 5):
            power = exponent + math.log10(factor)
            if low <= power <= high:
                yield power, f"{factor * 10.0**exponent:,.10g}"


def _free(x: float, y: float, taken: Sequence[tuple[float, float]]) -> float | None:
    """The y of a label beside its point, or a little below or above it; None where it could belong to another point."""
    near = [place for place in range(24, 268, 2) if abs(place - y) <= NEAR]
    crowded = {place for place in near for beside, other in taken if abs(place - other) < 12 and abs(x - beside) < 130}
    return min(set(near) - crowded, key=lambda place: (abs(place - y), place), default=None)

"""What charts are drawn with: frames, lines, texts and round numbers, as SVG markup."""

import math
from collections.abc import Iterable
from typing import NamedTuple

from markupsafe import Markup

WIDTH, LEFT, RIGHT = 560, 44, 14


class Frame(NamedTuple):
    """A plotting area in a chart: the ranges of the data, and the pixels that they are drawn on."""

    x0: float
    x1: float
    y1: float
    top: float
    bottom: float
    y0: float = 0.0
    left: float = LEFT
    right: float = WIDTH - RIGHT

    def x(self, value: float) -> float:
        return self.left + (value - self.x0) / (self.x1 - self.x0) * (self.right - self.left)

    def y(self, value: float) -> float:
        share = min(max((value - self.y0) / (self.y1 - self.y0), -0.02), 1.02)
        return self.bottom - share * (self.bottom - self.top)


def drawing(height: float, label: str, parts: Iterable[Markup]) -> Markup:
    """A chart of these parts, `WIDTH` by `height` pixels; screen readers read the label."""
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, height, label, Markup("\n").join(parts)
    )


def line(x1: float, y1: float, x2: float, y2: float, css: str, title: str = "") -> Markup:
    """A line between two points, in pixels; its title is shown when the mouse is over it."""
    hover = Markup("<title>{}</title>").format(title) if title else ""
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}">{}</line>').format(
        css, x1, y1, x2, y2, hover
    )


def text(text: str, x: float, y: float, css: str, anchor: str) -> Markup:
    """A line of text; `anchor` (start, middle, end) is the part of it that is at x, in pixels."""
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(css, x, y, anchor, text)


def step(top: float, most: int) -> int:
    """The smallest of 1, 2, 5, 10, 20, … that gives at most `most` ticks."""
    return next(size for power in range(9) for base in (1, 2, 5) if top / (size := base * int(10**power)) <= most)


def nice(values: Iterable[float]) -> float:
    """A round number at or above all finite values; 1 where there is none above 0."""
    top = max((value for value in values if math.isfinite(value)), default=0.0)
    if top < 1e-300:
        return 1.0
    top = min(top, 1e300)
    power = 10.0 ** math.floor(math.log10(top))
    return next(base * power for base in (1, 2, 3, 4, 6, 8, 10) if base * power >= top * 0.999999)

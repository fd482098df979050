"""Charts as inline SVG: plain functions from numbers to markup, coloured by the page's style sheet."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from markupsafe import Markup

WIDTH, LEFT, RIGHT = 560, 44, 14
MOST_POINTS = 400  # of a line: more than a screen can show
MOST_MARKS = 100  # above it, what was taken back is a dot


class Point(NamedTuple):
    """A trial on the reward curve. `kind` is a move's action and, as a CSS class, gives its mark a colour."""

    round: int
    reward: float
    kind: str
    kept: bool
    title: str


class LossRun(NamedTuple):
    """One training: loss (nats per token) and gradient norm of each step, mean loss of each epoch."""

    label: str
    losses: Sequence[float]
    norms: Sequence[float]
    epochs: Sequence[float]


class Bar(NamedTuple):
    """A mean with its interval."""

    label: str
    value: float
    low: float
    high: float


class Frame(NamedTuple):
    """A plotting area in a chart: data ranges and the pixel rows they are drawn on."""

    x0: float
    x1: float
    y1: float
    top: float
    bottom: float

    def x(self, value: float) -> float:
        return LEFT + (value - self.x0) / (self.x1 - self.x0) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        share = min(max(value / self.y1, -0.02), 1.02)
        return self.bottom - share * (self.bottom - self.top)


def reward_curve(points: Sequence[Point], start: float | None, target: float | None) -> Markup:
    """Validation reward of each trial over rounds, the best so far as a step line, the target dashed.

    Args:
        points: trials in the order of rounds; those without a finite reward stand as a cross on the axis. Where they
            are many, those taken back are dots.
        start: the baseline's reward, drawn at round 0; None when it is not measured yet.
    """
    last = max([point.round for point in points], default=0)
    frame = Frame(0, max(last, 1), 1.0, 14, 250)
    parts = [*_rewards_axis(frame), *_round_ticks(frame), _label("round", WIDTH / 2 + 15, 288)]
    if target is not None:
        parts.append(_rule(frame, target, "target", f"target {target:g}"))
    parts.append(_best_line(frame, points, start, last))
    if start is not None and math.isfinite(start):
        parts.append(_mark(frame, Point(0, start, "baseline", True, f"baseline: {start:.2f}")))
    many = len(points) > MOST_MARKS
    parts += _dots(frame, [point for point in points if not point.kept]) if many else []
    parts += [_mark(frame, point) for point in points if point.kept or not many]
    return _svg(296, "validation reward over rounds", parts)


def loss_curve(runs: Sequence[LossRun]) -> Markup:
    """Step loss with epoch means above gradient norms; the trainings stand side by side, in order."""
    steps = sum(max(len(run.losses), len(run.norms)) for run in runs)
    upper = Frame(0, max(steps, 1), _nice(loss for run in runs for loss in run.losses), 26, 186)
    lower = Frame(0, max(steps, 1), _nice(norm for run in runs for norm in run.norms), 216, 286)
    parts = [*_plain_axis(upper, "loss, nats per token"), *_plain_axis(lower, "gradient norm")]
    offset = 0
    for run in runs:
        parts += _training(run, offset, upper, lower, steps)
        offset += max(len(run.losses), len(run.norms))
    parts.append(_label("training steps", WIDTH / 2 + 15, 308))
    return _svg(316, "loss and gradient norm of the LoRA rounds", parts)


def interval_chart(bars: Sequence[Bar], target: float | None = None) -> Markup:
    """Means in [0, 1] as dots on their 95 % intervals, one row each."""
    bottom = 18 + 40 * len(bars)
    height = bottom + 34
    parts = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        x = _across(tick)
        parts.append(_line(x, 10, x, bottom, "grid"))
        parts.append(_text(f"{tick:g}", x, bottom + 17, "tick", "middle"))
    if target is not None:
        x = _across(target)
        parts.append(_line(x, 10, x, bottom, "target", f"target {target:g}"))
    parts += [_interval(bar, 38 + 40 * row, f"bar-{row}") for row, bar in enumerate(bars)]
    return _svg(height, "mean reward with 95 % intervals", parts)


# --- parts of the charts -------------------------------------------------------------------------


def _rewards_axis(frame: Frame) -> Iterable[Markup]:
    for tick in (0, 0.25, 0.5, 0.75, 1):
        y = frame.y(tick)
        yield _line(LEFT, y, WIDTH - RIGHT, y, "grid")
        yield _text(f"{tick:g}", LEFT - 8, y + 4, "tick", "end")


def _round_ticks(frame: Frame) -> Iterable[Markup]:
    step = _step(frame.x1, 8)
    for number in range(0, int(frame.x1) + 1, step):
        yield _text(str(number), frame.x(number), frame.bottom + 18, "tick", "middle")


def _best_line(frame: Frame, points: Sequence[Point], start: float | None, last: int) -> Markup:
    if start is None or not math.isfinite(start):
        return Markup("")
    path = [f"M{frame.x(0):.1f} {frame.y(start):.1f}"]
    for point in points:
        if point.kept and math.isfinite(point.reward):
            path.append(f"H{frame.x(point.round):.1f}V{frame.y(point.reward):.1f}")
    path.append(f"H{frame.x(last):.1f}")
    return Markup('<path class="best" d="{}"><title>best so far</title></path>').format("".join(path))


def _dots(frame: Frame, points: Sequence[Point]) -> Iterable[Markup]:
    """One path a kind, those without a finite reward on the axis: a mark each would be most of a long run's page."""
    paths: dict[str, list[str]] = {}
    for point in points:
        finite = math.isfinite(point.reward)
        place = f"M{frame.x(point.round):.1f} {frame.y(point.reward if finite else 0):.1f}h0"
        paths.setdefault(point.kind if finite else "none", []).append(place)
    for kind, places in paths.items():
        title = "no trial" if kind == "none" else "taken back"
        yield Markup('<path class="dots {}" d="{}"><title>{}</title></path>').format(kind, "".join(places), title)


def _mark(frame: Frame, point: Point) -> Markup:
    x = frame.x(point.round)
    finite = math.isfinite(point.reward)
    y = frame.y(point.reward if finite else 0)
    state = "kept" if point.kept else "dropped"
    shape = _shape(point.kind if finite else "none", x, y)
    return Markup('<g class="mark {} {}"><title>{}</title>{}</g>').format(point.kind, state, point.title, shape)


def _shape(kind: str, x: float, y: float) -> Markup:
    if kind == "edit_prompt":
        return Markup('<path d="M{:.1f} {:.1f}l6.5 6.5l-6.5 6.5l-6.5 -6.5z"/>').format(x, y - 6.5)
    if kind == "none":
        return Markup('<path class="cross" d="M{:.1f} {:.1f}l7 7m0 -7l-7 7"/>').format(x - 3.5, y - 3.5)
    if kind in ("train_lora", "baseline"):
        return Markup('<circle cx="{:.1f}" cy="{:.1f}" r="{}"/>').format(x, y, 5 if kind == "train_lora" else 3.5)
    return Markup('<rect x="{:.1f}" y="{:.1f}" width="8" height="8"/>').format(x - 4, y - 4)


def _plain_axis(frame: Frame, label: str) -> Iterable[Markup]:
    yield _text(label, LEFT, frame.top - 9, "axis", "start")
    for tick in (0, frame.y1 / 2, frame.y1):
        yield _line(LEFT, frame.y(tick), WIDTH - RIGHT, frame.y(tick), "grid")
        yield _text(f"{tick:g}", LEFT - 8, frame.y(tick) + 4, "tick", "end")


def _training(run: LossRun, offset: int, upper: Frame, lower: Frame, steps: int) -> Iterable[Markup]:
    count = max(len(run.losses), len(run.norms))
    if offset:
        yield _line(upper.x(offset), upper.top, upper.x(offset), lower.bottom, "parting")
    if count > steps / 8:
        yield _text(run.label, upper.x(offset + count) - 6, upper.top + 12, "tick", "end")
    width = max(1, math.ceil(steps / MOST_POINTS))
    yield _curve(upper, run.losses, offset, width, "loss", f"{run.label}: step loss")
    yield _curve(lower, run.norms, offset, width, "norm", f"{run.label}: gradient norm")
    span = count / max(len(run.epochs), 1)
    for epoch, mean in enumerate(run.epochs):
        if math.isfinite(mean):
            left, right = (upper.x(offset + span * (epoch + end)) for end in (0, 1))
            title = f"{run.label}, epoch {epoch + 1}: mean loss {mean:.3f}"
            yield _line(left, upper.y(mean), right, upper.y(mean), "epoch", title)


def _curve(frame: Frame, values: Sequence[float], offset: int, width: int, css: str, title: str) -> Markup:
    """A line through the means of `width` neighbours, with a gap where no number is finite."""
    path, pen = [], "M"
    for start in range(0, len(values), width):
        known = [value for value in values[start : start + width] if math.isfinite(value)]
        if not known:
            pen = "M"
            continue
        middle = offset + start + min(width, len(values) - start) / 2
        path.append(f"{pen}{frame.x(middle):.1f} {frame.y(sum(known) / len(known)):.1f}")
        pen = "L"
    return Markup('<path class="{}" d="{}"><title>{}</title></path>').format(css, "".join(path), title)


def _interval(bar: Bar, y: float, css: str) -> Markup:
    if not math.isfinite(bar.value):
        return _text(f"{bar.label}: not measured", LEFT, y, "name", "start")
    low, high = (_across(v) if math.isfinite(v) else _across(bar.value) for v in (bar.low, bar.high))
    title = f"{bar.label}: {bar.value:.2f}, 95 % interval {bar.low:.2f} to {bar.high:.2f}"
    anchor, gap = ("start", 0) if bar.value < 0.5 else ("end", 0)
    name = _text(f"{bar.label} {bar.value:.2f}", (low if anchor == "start" else high) + gap, y - 9, "name", anchor)
    return Markup('<g class="interval {}"><title>{}</title>{}{}<circle cx="{:.1f}" cy="{}" r="5"/></g>').format(
        css, title, name, _line(low, y, high, y, "whisker"), _across(bar.value), y
    )


# --- pixels --------------------------------------------------------------------------------------


def _svg(height: float, label: str, parts: Iterable[Markup]) -> Markup:
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, height, label, Markup("\n").join(parts)
    )


def _line(x1: float, y1: float, x2: float, y2: float, css: str, title: str = "") -> Markup:
    hover = Markup("<title>{}</title>").format(title) if title else ""
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}">{}</line>').format(
        css, x1, y1, x2, y2, hover
    )


def _rule(frame: Frame, value: float, css: str, title: str) -> Markup:
    y = frame.y(value)
    return _line(LEFT, y, WIDTH - RIGHT, y, css, title)


def _text(text: str, x: float, y: float, css: str, anchor: str) -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(css, x, y, anchor, text)


def _label(text: str, x: float, y: float) -> Markup:
    return _text(text, x, y, "axis", "middle")


def _across(value: float) -> float:
    return 14 + min(max(value, 0.0), 1.0) * (WIDTH - 28)


def _step(top: float, most: int) -> int:
    """The smallest of 1, 2, 5, 10, 20, … that gives at most `most` ticks."""
    return next(size for power in range(9) for base in (1, 2, 5) if top / (size := base * int(10**power)) <= most)


def _nice(values: Iterable[float]) -> float:
    """A round number at or above all finite values; 1 where there is none above 0."""
    top = max((value for value in values if math.isfinite(value)), default=0.0)
    if top <= 0:
        return 1.0
    top = min(top, 1e300)
    power = 10.0 ** math.floor(math.log10(top))
    return next(base * power for base in (1, 2, 3, 4, 6, 8, 10) if base * power >= top * 0.999999)

"""Charts as inline SVG: plain functions from numbers to markup, coloured by the page's style sheet."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from ui import wording
from ui.report import svg

MOST_POINTS = 400  # of a line: more than a screen can show
MOST_MARKS = 100  # above it, what was taken back is a dot
MOST_BARS = 48


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


class Bill(NamedTuple):
    """What a step of a run cost: USD by role; a role is a CSS class, too, and gives its part of the bar a colour."""

    label: str
    usd: Mapping[str, float]


def reward_curve(points: Sequence[Point], start: float | None, target: float | None) -> Markup:
    """Validation reward of each trial over rounds, the best so far as a step line, the target dashed.

    Args:
        points: trials in the order of rounds; those without a finite reward stand as a cross on the axis. Where they
            are many, those taken back are dots.
        start: the baseline's reward, drawn at round 0; None when it is not measured yet.
    """
    last = max([point.round for point in points], default=0)
    frame = svg.Frame(0, max(last, 1), 1.0, 14, 250)
    parts = [*_rewards_axis(frame), *round_ticks(frame), _label("round", svg.WIDTH / 2 + 15, 288)]
    if target is not None:
        y = frame.y(target)
        parts.append(svg.line(svg.LEFT, y, svg.WIDTH - svg.RIGHT, y, "target", f"target {target:g}"))
    parts.append(_best_line(frame, points, start, last))
    if start is not None and math.isfinite(start):
        parts.append(_mark(frame, Point(0, start, "baseline", True, f"baseline: {start:.2f}")))
    many = len(points) > MOST_MARKS
    parts += _dots(frame, [point for point in points if not point.kept]) if many else []
    parts += [_mark(frame, point) for point in points if point.kept or not many]
    return svg.drawing(296, "validation reward over rounds", parts)


def loss_curve(runs: Sequence[LossRun]) -> Markup:
    """Step loss with epoch means above gradient norms; the trainings stand side by side, in order."""
    steps = sum(max(len(run.losses), len(run.norms)) for run in runs)
    upper = svg.Frame(0, max(steps, 1), svg.nice(loss for run in runs for loss in run.losses), 26, 186)
    lower = svg.Frame(0, max(steps, 1), svg.nice(norm for run in runs for norm in run.norms), 216, 286)
    parts = [*_plain_axis(upper, "loss, nats per token"), *_plain_axis(lower, "gradient norm")]
    offset = 0
    for run in runs:
        parts += _training(run, offset, upper, lower, steps)
        offset += max(len(run.losses), len(run.norms))
    parts.append(_label("training steps", svg.WIDTH / 2 + 15, 308))
    return svg.drawing(316, "loss and gradient norm of the LoRA rounds", parts)


def interval_chart(bars: Sequence[Bar], target: float | None = None) -> Markup:
    """Means in [0, 1] as dots on their 95 % intervals, one row each."""
    bottom = 18 + 40 * len(bars)
    height = bottom + 34
    parts = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        x = _across(tick)
        parts.append(svg.line(x, 10, x, bottom, "grid"))
        parts.append(svg.text(f"{tick:g}", x, bottom + 17, "tick", "middle"))
    if target is not None:
        x = _across(target)
        parts.append(svg.line(x, 10, x, bottom, "target", f"target {target:g}"))
    parts += [_interval(bar, 38 + 40 * row, f"bar-{row}") for row, bar in enumerate(bars)]
    return svg.drawing(height, "mean reward with 95 % intervals", parts)


def money_chart(bills: Sequence[Bill]) -> Markup:
    """USD of each step as a bar, the roles on top of one another; of a long run neighbours stand together."""
    width = max(1, math.ceil(len(bills) / MOST_BARS))
    bars = [_together(bills[start : start + width]) for start in range(0, len(bills), width)]
    frame = svg.Frame(0, max(len(bars), 1), svg.nice(sum(bar.usd.values()) for bar in bars), 26, 146)
    parts = [*_plain_axis(frame, "USD of each round", wording.money)]
    every = svg.step(len(bars), 12)
    for place, bar in enumerate(bars):
        parts += _stack(frame, place, bar)
        if place % every == 0 or place == len(bars) - 1:
            parts.append(svg.text(bar.label, frame.x(place + 0.5), frame.bottom + 18, "tick", "middle"))
    return svg.drawing(176, "money over rounds", parts)


# --- parts of the charts -------------------------------------------------------------------------


def _rewards_axis(frame: svg.Frame) -> Iterable[Markup]:
    for tick in (0, 0.25, 0.5, 0.75, 1):
        y = frame.y(tick)
        yield svg.line(svg.LEFT, y, svg.WIDTH - svg.RIGHT, y, "grid")
        yield svg.text(f"{tick:g}", svg.LEFT - 8, y + 4, "tick", "end")


def round_ticks(frame: svg.Frame) -> Iterable[Markup]:
    """Numbers of rounds under a frame that begins with round 0."""
    step = svg.step(frame.x1, 8)
    for number in range(0, int(frame.x1) + 1, step):
        yield svg.text(str(number), frame.x(number), frame.bottom + 18, "tick", "middle")


def _best_line(frame: svg.Frame, points: Sequence[Point], start: float | None, last: int) -> Markup:
    if start is None or not math.isfinite(start):
        return Markup("")
    path = [f"M{frame.x(0):.1f} {frame.y(start):.1f}"]
    for point in points:
        if point.kept and math.isfinite(point.reward):
            path.append(f"H{frame.x(point.round):.1f}V{frame.y(point.reward):.1f}")
    path.append(f"H{frame.x(last):.1f}")
    return Markup('<path class="best" d="{}"><title>best so far</title></path>').format("".join(path))


def _dots(frame: svg.Frame, points: Sequence[Point]) -> Iterable[Markup]:
    """One path a kind, those without a finite reward on the axis: a mark each would be most of a long run's page."""
    paths: dict[str, list[str]] = {}
    for point in points:
        finite = math.isfinite(point.reward)
        place = f"M{frame.x(point.round):.1f} {frame.y(point.reward if finite else 0):.1f}h0"
        paths.setdefault(point.kind if finite else "none", []).append(place)
    for kind, places in paths.items():
        title = "no trial" if kind == "none" else "taken back"
        yield Markup('<path class="dots {}" d="{}"><title>{}</title></path>').format(kind, "".join(places), title)


def _mark(frame: svg.Frame, point: Point) -> Markup:
    x = frame.x(point.round)
    finite = math.isfinite(point.reward)
    y = frame.y(point.reward if finite else 0)
    state = "kept" if point.kept else "dropped"
    shape = mark(point.kind if finite else "none", x, y)
    return Markup('<g class="mark {} {}"><title>{}</title>{}</g>').format(point.kind, state, point.title, shape)


def mark(kind: str, x: float, y: float) -> Markup:
    """The shape that stands for an action; a cross for `none`."""
    if kind == "edit_prompt":
        return Markup('<path d="M{:.1f} {:.1f}l6.5 6.5l-6.5 6.5l-6.5 -6.5z"/>').format(x, y - 6.5)
    if kind == "none":
        return Markup('<path class="cross" d="M{:.1f} {:.1f}l7 7m0 -7l-7 7"/>').format(x - 3.5, y - 3.5)
    if kind in ("train_lora", "baseline"):
        return Markup('<circle cx="{:.1f}" cy="{:.1f}" r="{}"/>').format(x, y, 5 if kind == "train_lora" else 3.5)
    return Markup('<rect x="{:.1f}" y="{:.1f}" width="8" height="8"/>').format(x - 4, y - 4)


def _plain_axis(frame: svg.Frame, label: str, format_value: Callable[[float], str] = "{:g}".format) -> Iterable[Markup]:
    yield svg.text(label, svg.LEFT, frame.top - 9, "axis", "start")
    for tick in (0, frame.y1 / 2, frame.y1):
        yield svg.line(svg.LEFT, frame.y(tick), svg.WIDTH - svg.RIGHT, frame.y(tick), "grid")
        yield svg.text(format_value(tick), svg.LEFT - 8, frame.y(tick) + 4, "tick", "end")


def _training(run: LossRun, offset: int, upper: svg.Frame, lower: svg.Frame, steps: int) -> Iterable[Markup]:
    count = max(len(run.losses), len(run.norms))
    if offset:
        yield svg.line(upper.x(offset), upper.top, upper.x(offset), lower.bottom, "parting")
    if count > steps / 8:
        yield svg.text(run.label, upper.x(offset + count) - 6, upper.top + 12, "tick", "end")
    width = max(1, math.ceil(steps / MOST_POINTS))
    yield _curve(upper, run.losses, offset, width, "loss", f"{run.label}: step loss")
    yield _curve(lower, run.norms, offset, width, "norm", f"{run.label}: gradient norm")
    span = count / max(len(run.epochs), 1)
    for epoch, mean in enumerate(run.epochs):
        if math.isfinite(mean):
            left, right = (upper.x(offset + span * (epoch + end)) for end in (0, 1))
            title = f"{run.label}, epoch {epoch + 1}: mean loss {mean:.3f}"
            yield svg.line(left, upper.y(mean), right, upper.y(mean), "epoch", title)


def _curve(frame: svg.Frame, values: Sequence[float], offset: int, width: int, css: str, title: str) -> Markup:
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
        return svg.text(f"{bar.label}: not measured", svg.LEFT, y, "name", "start")
    low, high = (_across(v) if math.isfinite(v) else _across(bar.value) for v in (bar.low, bar.high))
    title = f"{bar.label}: {bar.value:.2f}, 95 % interval {bar.low:.2f} to {bar.high:.2f}"
    anchor, gap = ("start", 0) if bar.value < 0.5 else ("end", 0)
    name = svg.text(f"{bar.label} {bar.value:.2f}", (low if anchor == "start" else high) + gap, y - 9, "name", anchor)
    return Markup('<g class="interval {}"><title>{}</title>{}{}<circle cx="{:.1f}" cy="{}" r="5"/></g>').format(
        css, title, name, svg.line(low, y, high, y, "whisker"), _across(bar.value), y
    )


def _together(bills: Sequence[Bill]) -> Bill:
    roles = dict.fromkeys(role for bill in bills for role in bill.usd)
    paid = [
        {role: min(usd, 1e300) for role, usd in bill.usd.items() if math.isfinite(usd) and usd > 0} for bill in bills
    ]
    usd = {role: sum(bill.get(role, 0.0) for bill in paid) for role in roles}
    label = bills[0].label if len(bills) == 1 else f"{bills[0].label}–{bills[-1].label}"
    return Bill(label, usd)


def _stack(frame: svg.Frame, place: int, bill: Bill) -> Iterable[Markup]:
    """The parts of a bar, from the axis up."""
    slot = frame.x(1) - frame.x(0)
    width, below = min(0.7 * slot, 40), 0.0
    for role, usd in bill.usd.items():
        if usd > 0:
            top, foot = frame.y(below + usd), frame.y(below)
            title = f"{bill.label}, {role}: {wording.money(usd)}"
            yield Markup(
                '<rect class="paid {}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>'
            ).format(role, frame.x(place + 0.5) - width / 2, top, width, foot - top, title)
        below += usd


def _label(text: str, x: float, y: float) -> Markup:
    return svg.text(text, x, y, "axis", "middle")


def _across(value: float) -> float:
    return 14 + min(max(value, 0.0), 1.0) * (svg.WIDTH - 28)

"""The monitoring signal in a report: what each lever promised and what came of it, and the best pair over rounds.

First what is read from the rounds of a run, each number once; then the charts of it.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import fmean
from typing import NamedTuple

from markupsafe import Markup

from agent.policy.base import numbers
from agent.policy.learned import outlook_numbers
from agent.records.evaluation import ExampleScore
from agent.records.rounds import Baseline, Round
from agent.records.signal import Outlook
from eval.stats import standard_error
from ui import wording
from ui.report import svg
from ui.report.charts import mark, round_ticks

NAN = math.nan
ROUNDING = 1e-4  # decisions keep four places
ASIDE = 0.24  # of a round's width: how far a lever's mark stands from the middle
LEVERS = ("edit_prompt", "train_lora")


class Forecast(NamedTuple):
    """A round: the outlook of each lever by its action, the action taken, and the merit that it gained.

    `came` is NaN where no trial of a lever was measured, as in a rollback, which promises nothing; `floor` is the
    noise floor, 0 where it is not known.
    """

    round: int
    outlooks: dict[str, Outlook]
    pulled: str
    came: float
    kept: bool
    floor: float


class State(NamedTuple):
    """The best pair after so many rounds, on the validation rows; drift in nats per token. NaN is not known."""

    round: int
    reward: float
    content: float
    style: float
    noise: float
    drift: float


def forecasts(rounds: Sequence[Round]) -> list[Forecast]:
    """A forecast for each round whose signal holds an outlook; older ledgers have none."""
    return [
        Forecast(
            row.number, outlooks(row), row.decision.move.action,
            row.verdict.merit_gain if _tried_a_lever(row) else NAN, row.verdict.kept, row.signal.floor,
        )
        for row in rounds
        if outlooks(row)
    ]  # fmt: skip


def _tried_a_lever(row: Round) -> bool:
    return row.trial.candidate is not None and row.decision.move.action in LEVERS


def outlooks(row: Round) -> dict[str, Outlook]:
    """Of both levers before the round, by action; a lever whose outlook is not known is left out."""
    both = {"edit_prompt": row.signal.edit.outlook, "train_lora": row.signal.lora.outlook}
    return {action: outlook for action, outlook in both.items() if outlook}


def states(
    baseline: Baseline | None, rounds: Sequence[Round], scores: Sequence[ExampleScore], drift: float | None = None
) -> list[State]:
    """The best pair before the first round and after each round, as each round's signal describes the pair before it.

    Args:
        scores: of the present best pair on the validation rows, for its content, style and noise. If its reward is
            not their mean, these stay NaN.
        drift: of its weights, in nats per token; known once the run has ended.
    """
    found = []
    for row in rounds:
        signal = row.signal
        drift_then = NAN if signal.drift is None else signal.drift
        found.append(State(row.number - 1, signal.reward, signal.content, signal.style, signal.noise, drift_then))
    if not baseline:
        return found
    if not rounds:
        last = State(0, baseline.reward, baseline.content, baseline.style, NAN, NAN)
    else:
        last = State(rounds[-1].number, rounds[-1].reward, NAN, NAN, NAN, NAN if drift is None else drift)
    rewards = [score.reward for score in scores]
    if rewards and not abs(fmean(rewards) - last.reward) > 1e-6:
        content, style = (fmean(getattr(score, name) for score in scores) for name in ("content", "style"))
        last = last._replace(content=content, style=style, noise=standard_error(rewards))
    return [*found, last]


def numbers_not_shown(row: Round) -> dict[str, float]:
    """Numbers of a decision that its signal and diagnosis do not show already: each is shown once."""
    shown = numbers(row.signal, row.diagnosis) | outlook_numbers(row.signal)
    both = {
        name.replace("_", " ").replace(" passes", " forward tokens"): value  # names of earlier versions
        for name, value in row.decision.numbers.items()
    }
    return {name: value for name, value in both.items() if name not in shown or abs(value - shown[name]) > ROUNDING}


# --- the charts -----------------------------------------------------------------------------------


def promise_chart(forecasts: Sequence[Forecast]) -> Markup:
    """Gain ± spread of both levers and what was gained, above the gain per million forward tokens; by round."""
    outlooks = [outlook for forecast in forecasts for outlook in forecast.outlooks.values()]
    ends = [outlook.gain + side * outlook.spread for outlook in outlooks for side in (-1, 1)]
    low, high = _ends([*(forecast.came for forecast in forecasts), *ends])
    rates = [outlook.rate for outlook in outlooks]
    upper = svg.Frame(0, max(len(forecasts), 1), high, 26, 206, low)
    lower = svg.Frame(0, max(len(forecasts), 1), svg.nice(rates), 246, 316)
    parts = [
        *_axis(upper, (low, 0, high / 2, high), "merit gained"),
        *_axis(lower, (0, lower.y1 / 2, lower.y1), "merit / 1M tokens"),
    ]
    every = svg.step(len(forecasts), 12)
    for place, forecast in enumerate(forecasts):
        parts += _slot(upper, lower, place, forecast)
        if place % every == 0 or place == len(forecasts) - 1:
            parts.append(svg.text(str(forecast.round), lower.x(place + 0.5), lower.bottom + 18, "tick", "middle"))
    parts.append(svg.text("round", svg.WIDTH / 2 + 15, lower.bottom + 38, "axis", "middle"))
    return svg.drawing(lower.bottom + 46, "what each lever promised, and what came of it", parts)


def best_pair_chart(states: Sequence[State]) -> Markup:
    """Reward with its standard error as a band, content and style of the best pair; drift below, where it is known."""
    last = max([state.round for state in states], default=0)
    upper = svg.Frame(0, max(last, 1), 1.0, 26, 206)
    parts = [*_axis(upper, (0, 0.25, 0.5, 0.75, 1), "of the best pair"), *_band(upper, states)]
    parts += [_line(upper, states, name) for name in ("content", "style", "reward")]
    bottom = upper
    drifts = [state.drift for state in states if math.isfinite(state.drift)]
    if drifts:
        low, high = _ends(drifts)
        bottom = svg.Frame(0, max(last, 1), high, 246, 306, low)
        parts += [*_axis(bottom, (low, 0, high), "drift, nats per token"), _line(bottom, states, "drift")]
    parts += round_ticks(bottom)
    parts.append(svg.text("after round", svg.WIDTH / 2 + 15, bottom.bottom + 38, "axis", "middle"))
    return svg.drawing(bottom.bottom + 46, "content, style and reward of the best pair over rounds", parts)


# --- parts of the charts -------------------------------------------------------------------------


def _ends(values: Sequence[float]) -> tuple[float, float]:
    known = [value for value in values if math.isfinite(value)]
    low = -svg.nice(-value for value in known) if min(known, default=0.0) < 0 else 0.0
    high = svg.nice(known) if max(known, default=0.0) > 0 or not low else 0.0
    return low, high


def _axis(frame: svg.Frame, ticks: Sequence[float], label: str) -> Iterable[Markup]:
    yield svg.text(label, svg.LEFT, frame.top - 9, "axis", "start")
    for tick in dict.fromkeys(ticks):
        css = "parting" if tick == 0 and frame.y0 < 0 else "grid"
        yield svg.line(svg.LEFT, frame.y(tick), svg.WIDTH - svg.RIGHT, frame.y(tick), css)
        yield svg.text(f"{tick:g}", svg.LEFT - 8, frame.y(tick) + 4, "tick", "end")


def _slot(upper: svg.Frame, lower: svg.Frame, place: int, forecast: Forecast) -> Iterable[Markup]:
    if forecast.floor:
        title = f"round {forecast.round}: noise floor {forecast.floor:.2f}"
        y = upper.y(forecast.floor)
        yield svg.line(upper.x(place + 0.05), y, upper.x(place + 0.95), y, "floor", title)
    for side, action in zip((-1, 1), LEVERS, strict=True):
        outlook = forecast.outlooks.get(action)
        if outlook is not None:
            middle = place + 0.5 + side * ASIDE
            css = f"{action} {'pulled' if forecast.pulled == action else 'left'}"
            title = f"round {forecast.round}, {wording.LEVERS[action]} promises {wording.outlook(outlook)}"
            yield _promise(upper, middle, outlook, css, title)
            yield _rate(lower, middle, outlook.rate, css, title)
    yield _came(upper, place + 0.5, forecast)


def _promise(frame: svg.Frame, middle: float, outlook: Outlook, css: str, title: str) -> Markup:
    x, gain = frame.x(middle), _known(outlook.gain)
    low, high = (_known(outlook.gain + way * outlook.spread, gain) for way in (-1, 1))
    return Markup('<g class="promise {}"><title>{}</title>{}<circle cx="{:.1f}" cy="{:.1f}" r="{}"/></g>').format(
        css, title, svg.line(x, frame.y(low), x, frame.y(high), "whisker"), x, frame.y(gain), 3.5
    )


def _came(frame: svg.Frame, middle: float, forecast: Forecast) -> Markup:
    """The mark of the lever pulled: filled if kept, hollow if taken back, a cross where there was no pair."""
    finite = math.isfinite(forecast.came)
    result = (
        f"{wording.signed(forecast.came)} merit, {'kept' if forecast.kept else 'taken back'}" if finite else "no trial"
    )
    kind = f"{forecast.pulled} {'kept' if forecast.kept else 'dropped'}"
    shape = mark(forecast.pulled if finite else "none", frame.x(middle), frame.y(forecast.came if finite else 0.0))
    title = f"round {forecast.round}, {wording.LEVERS.get(forecast.pulled, forecast.pulled)}: {result}"
    return Markup('<g class="mark came {}"><title>{}</title>{}</g>').format(kind, title, shape)


def _rate(frame: svg.Frame, middle: float, rate: float, css: str, title: str) -> Markup:
    width = min(ASIDE * 1.5 * (frame.x(1) - frame.x(0)), 22)
    foot = frame.y(0)
    top = min(frame.y(_known(rate)), foot)
    return Markup(
        '<rect class="rate {}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>'
    ).format(
        css, frame.x(middle) - width / 2, top, width, foot - top, f"{title}: {rate:.3g} per million forward tokens"
    )


def _known(value: float, otherwise: float = 0.0) -> float:
    return value if math.isfinite(value) else otherwise


def _line(frame: svg.Frame, states: Sequence[State], name: str) -> Markup:
    """A step line: the best pair stays what it is until a round is kept. A gap where nothing is known."""
    path, drawn = [], False
    for state in states:
        value: float = getattr(state, name)
        if math.isfinite(value):
            x, y = frame.x(state.round), frame.y(value)
            path.append(f"H{x:.1f}V{y:.1f}" if drawn else f"M{x:.1f} {y:.1f}h0")
        drawn = math.isfinite(value)
    return Markup('<path class="signal {}" d="{}"><title>{}</title></path>').format(name, "".join(path), name)


def _band(frame: svg.Frame, states: Sequence[State]) -> Iterable[Markup]:
    """Reward ± standard error as a path of boxes, each from its state to the next."""
    boxes = []
    for state, following in pairwise(states):
        if math.isfinite(state.noise) and math.isfinite(state.reward):
            top, foot = frame.y(state.reward + state.noise), frame.y(state.reward - state.noise)
            left, right = frame.x(state.round), frame.x(following.round)
            boxes.append(f"M{left:.1f} {top:.1f}H{right:.1f}V{foot:.1f}H{left:.1f}z")
    if boxes:
        title = "reward ± its standard error"
        yield Markup('<path class="band" d="{}"><title>{}</title></path>').format("".join(boxes), title)

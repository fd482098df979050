"""The monitoring signal of a run as its charts and tables show it: read from the rounds, each number once."""

import math
from collections.abc import Sequence
from statistics import fmean

from agent.policy.base import numbers
from agent.policy.learned import outlook_numbers
from agent.records.evaluation import ExampleScore
from agent.records.rounds import Baseline, Round
from agent.records.signal import Outlook
from eval.stats import standard_error
from ui.report.signal_charts import Forecast, State

NAN = math.nan
ROUNDING = 1e-4  # decisions keep four places


def forecasts(rounds: Sequence[Round]) -> list[Forecast]:
    """Of the rounds whose signal holds an outlook; older ledgers have none."""
    return [_forecast(row) for row in rounds if outlooks(row)]


def outlooks(row: Round) -> dict[str, Outlook]:
    """By action; what is not known is left out."""
    both = {"edit_prompt": row.signal.edit.outlook, "train_lora": row.signal.lora.outlook}
    return {action: outlook for action, outlook in both.items() if outlook}


def states(
    baseline: Baseline | None, rounds: Sequence[Round], scores: Sequence[ExampleScore], drift: float | None = None
) -> list[State]:
    """The best pair after each round. Each signal is of the pair that stood before its round.

    Args:
        scores: of the pair that stands now, on validation rows; without those that its reward is the mean of, only
            its reward is known.
        drift: of its weights, known once the run has ended.
    """
    found = [_seen(row) for row in rounds]
    if not baseline:
        return found
    if not rounds:
        last = State(0, baseline.reward, baseline.content, baseline.style, NAN, NAN)
    else:
        last = State(rounds[-1].number, rounds[-1].reward, NAN, NAN, NAN, NAN if drift is None else drift)
    return [*found, _measured(last, scores)]


def not_seen(row: Round) -> dict[str, float]:
    """Numbers of a decision that its signal and diagnosis do not show already: each is told once."""
    told = numbers(row.signal, row.diagnosis) | outlook_numbers(row.signal)
    both = {name.replace("_", " "): value for name, value in row.decision.numbers.items()}
    return {name: value for name, value in both.items() if name not in told or abs(value - told[name]) > ROUNDING}


def _forecast(row: Round) -> Forecast:
    came = row.verdict.merit_gain if row.trial.candidate else NAN
    return Forecast(row.number, outlooks(row), row.decision.move.action, came, row.verdict.kept, row.signal.floor)


def _seen(row: Round) -> State:
    signal = row.signal
    drift = NAN if signal.drift is None else signal.drift
    return State(row.number - 1, signal.reward, signal.content, signal.style, signal.noise, drift)


def _measured(state: State, scores: Sequence[ExampleScore]) -> State:
    rewards = [score.reward for score in scores]
    if not rewards or abs(fmean(rewards) - state.reward) > 1e-6:
        return state
    content, style = (fmean(getattr(score, name) for score in scores) for name in ("content", "style"))
    return state._replace(content=content, style=style, noise=standard_error(rewards))

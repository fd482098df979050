"""The outlook of both levers on one scale: merit that a pull is expected to gain, how sure that is, and what it costs.

Expected gain = what is there to be mended × the share of it that the lever mends (its yield). The first comes from the
diagnosis; the second from a prior and from what this run's rounds have brought.
"""

from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist, fmean, pstdev
from typing import NamedTuple

from agent.config.task import TaskConfig
from agent.policy.base import fitting_rows, is_still_falling
from agent.records.actions import Action, EditPrompt, TrainLora
from agent.records.rounds import Round, tried
from agent.records.signal import Diagnosis, Need, Outlook, Signal
from agent.signal.cost_model import RoundCosts
from agent.signal.monitor import Lever

# Merit, the mean of three measures in [0, 1], that a mended row gains. One factor that comes to the other gives two of
# the three (itself and the reward): 2/3. To a row that lacks both, one factor alone gives 1/3.
BOTH_MEASURES, ONE_MEASURE = 2 / 3, 1 / 3
WORDS: dict[Need, float] = {"style": BOTH_MEASURES, "both": ONE_MEASURE, "content": 0.0}
# Rows in the wanted form teach it along: both factors and the reward; and form where only form is lacking, though words
# are better at that: half.
WEIGHTS_IN_FORM: dict[Need, float] = {"content": BOTH_MEASURES, "both": 1.0, "style": ONE_MEASURE}
# Rows as given may undo the form that a row holds now: its content won and its style lost is no gain, so half.
WEIGHTS_AS_GIVEN: dict[Need, float] = {"content": BOTH_MEASURES / 2, "both": ONE_MEASURE, "style": 0.0}

# A lever's yield before it was ever pulled, as share of what is there: half, and within two deviations nearly anything.
YIELD, YIELD_SPREAD = 0.5, 0.3
# Standard deviation of one round's yield about the lever's own. A fruitless try on the present pair leaves
# three tenths of the prior's mean: the same draws from the same rows would fail again.
TRY_SPREAD = 0.2
# The most by which a share can deviate from its mean: half, where it is 0 as often as 1.
MOST_SPREAD = 0.5
# What counts less than a full try: a round on an earlier pair, or a fruitless training whose loss was still falling.
PARTIAL_TRY = 0.25
# Share of rows that the classifier sorts wrongly, as wide as what it may miss is taken to be.
MISCLASSIFIED = 0.1
# Nats per token by which a training is expected to raise drift before the first one has shown it.
DRIFT = 0.3
# Merit below which a round says nothing about the yield: hardly anything was there.
LEAST_MENDABLE = 0.02


class Mendable(NamedTuple):
    """Merit that a lever could mend at best, and its standard deviation."""

    merit: float
    spread: float


def gain_per_need(action: Action, signal: Signal) -> dict[Need, float]:
    """Merit that a mended row of each need gains by this action, beyond what the other lever brings along anyway.

    A row that lacks both needs weights, and rows in the wanted form teach it along: words have nothing to add there.
    """
    if not isinstance(action, TrainLora):
        return {**WORDS, "both": WORDS["both"] * (1 - signal.teachable)}
    in_form = 1.0 if action.rows != "original" else signal.shown
    return {need: gain + in_form * (WEIGHTS_IN_FORM[need] - gain) for need, gain in WEIGHTS_AS_GIVEN.items()}


def mendable(action: Action, diagnosis: Diagnosis, signal: Signal) -> Mendable:
    """What is there to be mended by an action.

    The spread holds the sampling error of the probed rows, of a finite number of failing ones, and what the classifier
    may have missed.
    """
    if not diagnosis.examples or not diagnosis.failing:
        return Mendable(0.0, 0.0)
    gains = gain_per_need(action, signal)
    rows = [
        sum(gain * row.chances.get(need, float(row.need == need)) for need, gain in gains.items())
        for row in diagnosis.examples
    ]
    share, probed = diagnosis.failing / diagnosis.total, len(rows)
    unseen = max(0.0, 1 - probed / diagnosis.failing)
    sampling = pstdev(rows) * sqrt(unseen / probed)
    missed = MISCLASSIFIED * (BOTH_MEASURES - fmean(rows))
    return Mendable(fmean(rows) * share, sqrt(sampling**2 + missed**2) * share)


def noise_floor(rows: int, alpha: float) -> float:
    """About the least merit gain that so many validation rows can tell from nothing, by the normal approximation.

    Greedy answers repeat exactly, so all noise is that of the rows. A share x of them mended by d each gains xd with
    the paired standard error d·sqrt(x(1-x)/rows). That is z of them above 0 (one-sided, z the normal quantile of
    1 - alpha) from x = z² / (rows + z²) on; d is at least 1/3 (`ONE_MEASURE`). The bound is Wilson's (1927), solved
    for the gain.
    The gate asks for more: its exact test wants log2(1 / level) rows that rose, and its level is a part of alpha
    (eval/alpha_spending.py). But what is held against the floor is a mean, and half of what may come lies above it.
    """
    z = max(0.0, NormalDist().inv_cdf(1 - alpha))
    return ONE_MEASURE * z**2 / (rows + z**2)


def with_outlook(
    signal: Signal,
    diagnosis: Diagnosis,
    history: Sequence[Round],
    config: TaskConfig,
    costs: RoundCosts,
    training: TrainLora | None = None,
) -> Signal:
    """The signal with both levers' outlooks and the noise floor.

    Args:
        history: the rounds that the signal rests on.
        costs: of a round of each lever, for one that has not been pulled yet.
        training: the one that LoRA's outlook is about; by default as the task sets it, on rows that fit the prompt.
    """
    history = tried(history)
    planned = training or TrainLora(rows=fitting_rows(signal, config), epochs=config.lora.epochs)

    def outlook(action: TrainLora | EditPrompt, estimate: float) -> Outlook:
        spent = [row.trial.spend.forward_tokens * _times(row.decision.move, action) for row in history]
        known = [tokens for tokens in spent if tokens > 0]
        if isinstance(action, TrainLora):
            estimate *= max(1.0, action.epochs / config.lora.epochs)
        cost = max(1.0, fmean(known) if known else estimate) + costs.judging
        there = mendable(action, diagnosis, signal)
        mean, spread = lever_yield(action.action, history)
        # Mean and standard deviation of the product of two independent quantities.
        width = sqrt((there.merit * spread) ** 2 + (mean * there.spread) ** 2 + (there.spread * spread) ** 2)
        rise = 0.0
        if isinstance(action, TrainLora):
            rise, cost = expected_rise(history), cost + costs.keeping
        price = config.gate.drift_price
        return Outlook(gain=there.merit * mean - price * rise, spread=width, cost=cost, drift=rise, price=price)

    return signal.model_copy(
        update={
            "floor": noise_floor(diagnosis.total, config.gate.alpha),
            "lora": signal.lora.model_copy(update={"outlook": outlook(planned, costs.lora)}),
            "edit": signal.edit.model_copy(update={"outlook": outlook(EditPrompt(), costs.edit)}),
        }
    )


def lever_yield(lever: Lever, history: Sequence[Round]) -> tuple[float, float]:
    """The lever's yield and its standard deviation: the prior, updated by its rounds (normal, known variances)."""
    history = tried(history)
    precision = 1 / YIELD_SPREAD**2
    total = YIELD * precision
    last_kept = max((at for at, row in enumerate(history) if row.verdict.kept), default=-1)
    for at, row in enumerate(history):
        observed = _observed_yield(row) if row.decision.move.action == lever else None
        if observed is None:
            continue
        share, variance = observed
        weight = (PARTIAL_TRY if at <= last_kept or is_still_falling(row) else 1.0) / variance
        precision, total = precision + weight, total + weight * share
    if lever == "train_lora" and _rows_are_learned(history):
        precision += 1 / TRY_SPREAD**2  # as if another training on these rows had brought nothing
    return total / precision, sqrt(1 / precision)


def _times(move: Action, action: TrainLora | EditPrompt) -> float:
    """How many times as dear an action is as an earlier one of its kind; 0 for one of another kind."""
    if isinstance(move, TrainLora) and isinstance(action, TrainLora):
        return max(1.0, action.epochs / move.epochs) if move.bare == action.bare else 0.0
    return float(move.action == action.action)


def expected_rise(history: Sequence[Round]) -> float:
    """Nats per token by which the next training is expected to raise drift: as the last one measured did.

    Not their mean: a training answers to what the one before it forgot.
    """
    for verdict in (row.verdict for row in reversed(history) if isinstance(row.decision.move, TrainLora)):
        if verdict.drift is not None:
            return verdict.drift - (verdict.drift_before or 0.0)
    return DRIFT


def realised_gain(row: Round) -> float:
    """Merit that a round brought the run: what is taken back brings nothing."""
    return row.verdict.merit_gain if row.verdict.kept else 0.0


def _observed_yield(row: Round) -> tuple[float, float] | None:
    """The yield of a round and the variance it is known with; None where hardly anything was there to mend."""
    there = mendable(row.decision.move, row.diagnosis, row.signal).merit
    if there < LEAST_MENDABLE:
        return None
    merits = [proposal.merit for proposal in row.trial.proposals if proposal.merit is not None]
    # Over the present prompt's, which is the first of those tried. Proposals that did as differently as this leave more
    # to the next draw than proposals that were all alike.
    spread = pstdev([merit - merits[0] for merit in merits[1:]]) if len(merits) > 2 else 0.0
    # A training that was taken back for what it forgets has shown all the same what weights can bring to the task.
    gain = row.verdict.merit_gain if row.verdict.overruled else realised_gain(row)
    return min(1.0, max(0.0, gain / there)), TRY_SPREAD**2 + min(MOST_SPREAD, spread / there) ** 2


def _rows_are_learned(history: Sequence[Round]) -> bool:
    """Whether the last training was kept, its loss is flat, and no edit was kept since, which would change its rows."""
    for row in reversed(history):
        if isinstance(row.decision.move, TrainLora):
            return row.verdict.kept and row.trial.loss_drop is not None and not is_still_falling(row)
        if row.verdict.kept:
            return False
    return False

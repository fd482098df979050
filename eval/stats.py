"""Paired statistics, and the gate that keeps a trial or takes it back. Seeded: the same rows, the same verdict."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from math import sqrt
from statistics import NormalDist, fmean

import numpy as np
from numpy.typing import NDArray

from agent.records.evaluation import Evaluation
from agent.records.rounds import Verdict

EXACT_UP_TO = 16
FLIPS, MOST_FLIPS = 10_000, 1_000_000
FLIPS_AT_ONCE = 100  # thirty times as fast as one by one, and the same in little memory for many rows
RESAMPLES = 2_000
NOISE = 1e-9  # rewards are means of small fractions: what differs by less is the same


def sign_flip(differences: Sequence[float], flips: int = FLIPS) -> float:
    """One-sided p-value, in (0, 1], that the mean of paired differences is above 0.

    Under the null hypothesis each difference is as likely with the other sign. All sign patterns are counted when at
    most 16 differences are not zero, else so many random `flips` with the +1 correction (Phipson & Smyth 2010).
    """
    values = np.asarray(differences, dtype=float)
    values = values[np.abs(values) > NOISE]
    if not values.size:
        return 1.0
    return float(_share_reaching(_flipped_sums(values[:, None], flips)[:, 0])[0])


def joint_sign_flip(*measures: Sequence[float], flips: int = FLIPS) -> float:
    """One p-value, in (0, 1], for the rise of any of several measures of the same pairs.

    The signs of a row's differences are flipped together, and the smallest of the measures' p-values is compared with
    what it would be under every pattern (the min-P method, Westfall & Young 1993). So two measures that say the same
    cost nothing, and two that differ are not two chances.
    """
    values = np.asarray(measures, dtype=float).T
    values = values[np.any(np.abs(values) > NOISE, axis=1)]
    if not values.size:
        return 1.0
    sums = _flipped_sums(values, flips)
    least = np.min([_share_reaching(sums[:, place]) for place in range(sums.shape[1])], axis=0)
    return float(np.mean(least <= least[0] + NOISE))


def _flipped_sums(values: NDArray[np.float64], flips: int) -> NDArray[np.float64]:
    """[F, M] sums of differences [N, M] under patterns of signs; the first pattern is the one observed."""
    count = len(values)
    if count <= EXACT_UP_TO:
        return _every_sign(count) @ values
    generator = np.random.default_rng(0)
    blocks = (generator.integers(0, 2, (FLIPS_AT_ONCE, count)) * 2 - 1 for _ in range(flips // FLIPS_AT_ONCE))
    return np.concatenate([values.sum(axis=0, keepdims=True), *(signs @ values for signs in blocks)])


def _share_reaching(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """[F] for each sum, the share of all that are at least as high."""
    return (len(sums) - np.searchsorted(np.sort(sums), sums - NOISE)) / len(sums)


def _flips_for(level: float) -> int:
    """Random patterns enough for a p-value well below this level."""
    return int(min(MOST_FLIPS, max(FLIPS, 10 / max(level, 1e-9))))


def _least(changed: int, level: float) -> float:
    """The smallest p-value that so many changed rows can have, when tested at this level."""
    return 0.5**changed if changed <= EXACT_UP_TO else 1 / (_flips_for(level) + 1)


@cache
def _every_sign(count: int) -> NDArray[np.int64]:
    """All patterns of signs, [2^count, count]; the first has no minus."""
    patterns = np.arange(2**count)[:, None] >> np.arange(count)
    return 1 - (patterns & 1) * 2


def interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Interval of the mean of values in [0, 1]. Raises ValueError without values.

    Wilson's for values that are all 0 or 1, which keeps its width where all are alike (Wilson 1927); else the
    percentiles of 2,000 seeded bootstrap means.
    """
    if not values:
        raise ValueError("an interval needs at least one value")
    if all(value in (0, 1) for value in values):
        return _wilson(sum(values), len(values), level)
    generator = np.random.default_rng(0)
    means = [generator.choice(values, len(values)).mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _wilson(hits: float, count: int, level: float) -> tuple[float, float]:
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, weight = hits / count, z * z / count
    middle = (share + weight / 2) / (1 + weight)
    half = z * sqrt(share * (1 - share) / count + weight / (4 * count)) / (1 + weight)
    return (middle - half if hits else 0.0), (middle + half if hits < count else 1.0)  # exactly, without a residue


def standard_error(values: Sequence[float]) -> float:
    """Standard error of the mean; 0.0 for fewer than two values, where none can be told."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


@dataclass(frozen=True)
class Change:
    """How one measure changed from an evaluation to the next, row by row."""

    name: str
    before: list[float]
    after: list[float]

    @cached_property
    def differences(self) -> list[float]:
        return [after - before for before, after in zip(self.before, self.after, strict=True)]

    @cached_property
    def p_value(self) -> float:
        return sign_flip(self.differences)

    @property
    def gain(self) -> float:
        """Difference of the means; 0.0 where it is no more than rounding."""
        gain = fmean(self.differences)
        return gain if abs(gain) > NOISE else 0.0

    @property
    def nothing(self) -> bool:
        return all(abs(difference) <= NOISE for difference in self.differences)

    def __str__(self) -> str:
        return f"{self.name} {fmean(self.before):.2f} → {fmean(self.after):.2f}"


def deciding(evaluation: Evaluation, raced: Collection[str]) -> Evaluation:
    """On the rows that took no part in choosing the trial: not on those raced, by name. On all, where none is left."""
    left = tuple(score for score in evaluation.scores if score.example not in raced)
    return evaluation.model_copy(update={"scores": left or evaluation.scores})


def gate(
    before: Evaluation,
    after: Evaluation,
    level: float,
    likelihood: Callable[[Evaluation], Sequence[float | None]],
    after_is_simpler: bool = False,
) -> Verdict:
    """The whole gate: `judge`, and where that cannot tell, `corroborate`.

    Args:
        level: largest p-value of a trial that is kept; see `eval.alpha_spending`.
        likelihood: NLL of the reference of each row of an evaluation, under its pair; asked only where it is needed.
    """
    verdict = judge(before, after, level, after_is_simpler)
    if verdict.kept or not too_few_to_tell(before, after, level):
        return verdict
    return corroborate(verdict, likelihood(before), likelihood(after), level)


def judge(before: Evaluation, after: Evaluation, level: float, after_is_simpler: bool = False) -> Verdict:
    """Whether the trial `after` takes the place of the pair `before`, on the same rows.

    Kept if the joint reward did not fall, and it or the merit rose (one test over both, p <= level); or if no row
    differs and the trial is simpler (a cheaper lever, a shorter prompt). Raises ValueError if the rows differ.
    """
    reward, merit = _changes(before, after)
    if reward.nothing and merit.nothing:
        end = "the simpler pair wins the tie" if after_is_simpler else "the pair before stands"
        text = f"no row differs (joint reward {before.reward:.2f}): {end}"
        return _verdict(after_is_simpler, reward, merit, text, 1.0, None)
    p_value = joint_sign_flip(reward.differences, merit.differences, flips=_flips_for(level))
    if reward.gain < 0:
        return _verdict(False, reward, merit, f"{reward}: it fell", p_value, level)
    decided = min(reward, merit, key=lambda change: change.p_value)
    reason = f"{reward}{'' if decided is reward else f', {merit}'} ({_p(p_value)})"
    if p_value <= level and max(reward.gain, merit.gain) > 0:
        return _verdict(True, reward, merit, reason, p_value, level, decided.name)
    short = f"{p_value:.1g} > " if p_value < 0.001 else ""
    end = f"within chance ({short}level {level:.1g})" if max(reward.gain, merit.gain) > 0 else "no rise"
    return _verdict(False, reward, merit, f"{reason}: {end}", p_value, level, decided.name)


def corroborate(
    verdict: Verdict, before: Sequence[float | None], after: Sequence[float | None], level: float
) -> Verdict:
    """A second witness for a trial that raised the joint reward and lowered it on no row, but changed too few to tell.

    Near the top only a row or two are left to change, and no test on rewards can reach alpha. The references' NLL
    moves on every row. The trial is kept if they became likelier (p <= alpha); else the verdict stands.

    Args:
        verdict: of `judge`, on evaluations for which `too_few_to_tell` holds.
        before, after: NLL of each row's reference in the wanted form, nats per token, in the same order. Rows that
            were not measured (None) under one of them tell nothing.
    """
    pairs = [(old, new) for old, new in zip(before, after, strict=True) if old is not None and new is not None]
    if not pairs:
        return verdict.model_copy(update={"reason": f"{verdict.reason}; {_unmeasured(len(before))}"})
    p_value = sign_flip([old - new for old, new in pairs], _flips_for(level))
    old_mean, new_mean = (fmean(values) for values in zip(*pairs, strict=True))
    told = f", {_unmeasured(len(before) - len(pairs))}" if len(pairs) < len(before) else ""
    nats = f"{old_mean:.2f} → {new_mean:.2f} nats per token of the wanted answers ({_p(p_value)}{told})"
    if p_value > level:
        return verdict.model_copy(update={"reason": f"{verdict.reason}; {nats}: no likelier either"})
    kept = {
        "kept": True,
        "p_value": p_value,
        "measure": "likelihood",
        "reason": f"{verdict.reason}, but {nats}: they became likelier",
    }
    return verdict.model_copy(update=kept)


def too_few_to_tell(before: Evaluation, after: Evaluation, level: float) -> bool:
    """Whether every row whose joint reward changed has risen, and yet no test could call so few changes significant.

    How many rows changed does not depend on the direction of the changes. So a second test that is made only here, in
    the place of one that could not succeed, is no second chance.
    """
    reward, merit = _changes(before, after)
    risen = [difference for difference in reward.differences if abs(difference) > NOISE]
    changed = sum(max(map(abs, pair)) > NOISE for pair in zip(reward.differences, merit.differences, strict=True))
    return bool(risen) and min(risen) > 0 and _least(changed, level) > level


def _unmeasured(rows: int) -> str:
    return f"the wanted answers of {rows} rows could not be measured under both pairs"


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}"


def _changes(before: Evaluation, after: Evaluation) -> tuple[Change, Change]:
    """Reward and merit, paired by the name of the example."""
    earlier, later = ({score.example: score for score in one.scores} for one in (before, after))
    if earlier.keys() != later.keys() or len(earlier) != len(before.scores) or len(later) != len(after.scores):
        raise ValueError("only evaluations of the same rows can be judged against each other")
    pairs = [(score, later[name]) for name, score in earlier.items()]
    return (
        Change("joint reward", [old.reward for old, _ in pairs], [new.reward for _, new in pairs]),
        Change("merit", [old.merit for old, _ in pairs], [new.merit for _, new in pairs]),
    )


def _verdict(
    kept: bool, reward: Change, merit: Change, reason: str, p_value: float, level: float | None, decided: str = ""
) -> Verdict:
    """`level` None: nothing was tested."""
    return Verdict(
        kept=kept,
        reason=reason,
        before=fmean(reward.before),
        after=fmean(reward.after),
        p_value=p_value,
        level=level,
        rows=len(reward.before),
        merit_gain=merit.gain,
        measure="merit" if decided == "merit" else "reward",
    )

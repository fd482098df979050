"""Paired tests, intervals and standard errors. Random patterns are seeded: the same values give the same numbers."""

from collections.abc import Sequence
from functools import cache
from math import sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

EXACT_UP_TO = 16
FLIPS, MOST_FLIPS = 10_000, 1_000_000
FLIPS_AT_ONCE = 100  # thirty times as fast as one by one, and the same in little memory for many rows
RESAMPLES = 2_000
NOISE = 1e-9  # rewards are means of small fractions: what differs by less is the same


def sign_flip(differences: Sequence[float], flips: int = FLIPS) -> float:
    """One-sided p-value, in (0, 1], that the mean of paired differences is above 0.

    Under the null hypothesis each difference is as likely with the other sign. All sign patterns are counted when at
    most 16 differences are not zero, else so many random `flips` with the +1 correction (Phipson & Smyth 2010).

    Args:
        differences: [N] one per row, new less old, in any unit.
        flips: random sign patterns where there are too many to count.
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

    Args:
        measures: [M] lists of [N] differences, of the same rows in the same order.
        flips: random sign patterns where there are too many to count.
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


def flips_for(level: float) -> int:
    """How many random sign patterns can show a p-value well below this level; 10,000 to 1,000,000."""
    return int(min(MOST_FLIPS, max(FLIPS, 10 / max(level, 1e-9))))


def smallest_p_value(changed: int, level: float) -> float:
    """The smallest p-value that a test at this level can give, if so many rows changed, and all in one direction."""
    return 0.5**changed if changed <= EXACT_UP_TO else 1 / (flips_for(level) + 1)


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
    """Standard error of the mean, in the unit of the values; 0.0 for fewer than two values."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0

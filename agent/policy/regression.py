"""Bayesian linear regression in closed form: a normal prior, observations of known variance."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Observation(NamedTuple):
    """A value seen at some features, with the variance it is seen with."""

    features: Sequence[float]
    value: float
    variance: float


class Fit:
    """Coefficients around 0 after observations (Bishop 2006, section 3.3.1).

    Args:
        spreads: the prior's standard deviation of each coefficient.
        seen: of values less what the prior expects of them.
    """

    def __init__(self, spreads: Sequence[float], seen: Iterable[Observation]) -> None:
        import numpy as np

        self._prior = np.diag(np.square(spreads))
        precision = np.diag(1 / np.square(spreads))
        total = np.zeros(len(spreads))
        for features, value, variance in seen:
            at = np.asarray(features, dtype=float)
            precision += np.outer(at, at) / variance
            total += at * value / variance
        self._covariance = np.linalg.inv(precision)
        self._mean = self._covariance @ total

    def expected(self, features: Sequence[float]) -> float:
        """The mean at these features: how much more, or less, than the prior expects."""
        return float(self._mean @ list(features))

    def narrowed(self, features: Sequence[float]) -> float:
        """The standard deviation at these features, as share of the prior's: 1 before any observation."""
        import numpy as np

        at = np.asarray(features, dtype=float)
        before = float(at @ self._prior @ at)
        return min(1.0, float(np.sqrt(max(0.0, at @ self._covariance @ at) / before))) if before else 1.0

"""How long work takes that tells how far it is."""

from collections.abc import Callable
from time import monotonic


class TimeLeft:
    """Estimates it at the pace since the first report: what was done before that took a time that nobody measured."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._what, self._began, self._first, self._last = "", 0.0, 0, 0

    def of(self, what: str, done: int, total: int) -> float | None:
        """Seconds, after this report; None as long as there is no pace, and where more is done than there was to do."""
        if what != self._what or done < self._last or done == 0:  # other work, or the same anew
            self._what, self._began, self._first = what, self._clock(), done
        self._last = done
        if not self._first < done <= total:
            return None
        return (self._clock() - self._began) * (total - done) / (done - self._first)

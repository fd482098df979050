"""How long work takes that tells how far it is."""

from collections.abc import Callable
from time import monotonic


class TimeLeft:
    """Estimates it at the pace since the first report of the work. Steps done before that are not counted."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._work, self._began, self._first, self._last = ("", 0), 0.0, 0, 0

    def of(self, what: str, done: int, total: int) -> float | None:
        """Seconds, after this report; None as long as there is no pace, and where more is done than there was to do."""
        ended = self._last >= total
        if (what, total) != self._work or done < self._last or done == 0 or ended:  # other work, or the same anew
            self._work, self._began, self._first = (what, total), self._clock(), done
        self._last = done
        if not self._first < done <= total:
            return None
        return (self._clock() - self._began) * (total - done) / (done - self._first)

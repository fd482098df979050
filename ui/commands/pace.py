"""How fast an LLM server answers: which time limit and how many calls at once fit it."""

import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from agent.errors import LlmUnavailable

GAIN = 1.25  # twice as many calls at once are worth it where they bring so many times as many answers a second
ROOM = 3  # times the longest call measured: a run's questions grow with its rounds
LEAST = 30  # seconds
FEWEST = 4  # calls from which a rate is told


def measured(ask: Callable[[int], object], most: int) -> dict[int, float]:
    """Answers a second by the number of calls at once: 1, 2, 4 and so on, as long as it is worth it or up to `most`.

    Args:
        ask: makes one call, of which each should be as long; told its number, so that no two need be equal.

    Raises:
        LlmUnavailable: a single call is not answered. Where several are not, they are too many.
    """
    rates: dict[int, float] = {}
    width = 1
    while width <= most and fitting_width(rates) == width // 2:
        began = time.monotonic()
        try:
            with ThreadPoolExecutor(width) as pool:
                list(pool.map(ask, range(calls := max(FEWEST, 2 * width))))
        except LlmUnavailable:
            if width == 1:
                raise
            break
        rates[width] = calls / max(time.monotonic() - began, 1e-9)
        width *= 2
    return rates


def fitting_width(rates: Mapping[int, float]) -> int:
    """The most calls at once up to which every doubling brought enough more answers a second; 0 without a rate."""
    best = min(rates, default=0)
    while 2 * best in rates and rates[2 * best] >= GAIN * rates[best]:
        best *= 2
    return best


def fitting_timeout(longest: float) -> int:
    """Seconds for one call, in tens, from the longest that was measured."""
    return max(LEAST, 10 * math.ceil(ROOM * longest / 10))

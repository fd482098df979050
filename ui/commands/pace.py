"""How fast an LLM server answers: which time limit and how many calls at once fit it."""

import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from agent.errors import LlmUnavailable

GAIN = 1.25  # twice as many calls at once are worth it if they bring so many times as many answers a second
HEADROOM = 3  # times the longest call measured: a run's questions grow with its rounds
LEAST_TIMEOUT = 30  # seconds
FEWEST_CALLS = 4  # that a rate is measured with


def measure_rates(ask: Callable[[int], object], most: int) -> dict[int, float]:
    """Answers a second by the number of calls at once: 1, 2, 4 and so on, as long as it is worth it or up to `most`.

    Args:
        ask: makes one call, all of about the same length; it gets the number of the call, so that no two need be equal.

    Raises:
        LlmUnavailable: a single call is not answered. If several at once are not, they are too many, and that ends it.
    """
    rates: dict[int, float] = {}
    width = 1
    while width <= most and fitting_width(rates) == width // 2:
        began = time.monotonic()
        try:
            with ThreadPoolExecutor(width) as pool:
                list(pool.map(ask, range(calls := max(FEWEST_CALLS, 2 * width))))
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
    return max(LEAST_TIMEOUT, 10 * math.ceil(HEADROOM * longest / 10))

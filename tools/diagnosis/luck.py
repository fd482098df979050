"""Luck: where answers are few, a right one may be a guess, and shows no knowledge."""

from collections.abc import Mapping, Sequence
from math import comb
from statistics import fmean

from agent.records.signal import knowledge

TRIALS = ("near_right", "right")  # features that say how often trial answers are right
SURE = 0.1  # the most likely that so many right answers may be by luck alone, for any of them to count as knowledge


def beyond_luck(right: Sequence[float], luck: float) -> float:
    """The share of right answers that are no lucky guess, in [0, 1]; 1 where none is right.

    0 where luck alone brings so many with a chance of more than `SURE` (one-sided binomial test).

    Args:
        right: of each row, whether its answer is right, or how often.
        luck: share of rows that are right by luck where nothing is known.
    """
    share, rows = fmean(right), len(right)
    if share == 0 or luck <= 0:
        return 1.0
    least = int(sum(right))
    by_luck = sum(comb(rows, count) * luck**count * (1 - luck) ** (rows - count) for count in range(least, rows + 1))
    return 0.0 if by_luck > SURE else knowledge(share, luck) / share


def may_be_luck(rows: Sequence[Mapping[str, float]], luck: float) -> bool:
    """Whether some trial answers of rows probed together are right, and no more than luck may bring."""
    return _share(rows, luck) == 0


def right_by_luck(rows: Sequence[Mapping[str, float]], luck: float) -> bool:
    """Whether most right trial answers of rows probed together are lucky guesses."""
    return _share(rows, luck) < 0.5


def without_luck(rows: Sequence[Mapping[str, float]], luck: float) -> list[dict[str, float]]:
    """The features of rows probed together: each right trial answer counts as far as it is expected to be no guess."""
    share = _share(rows, luck)
    return [{key: value * share if key in TRIALS else value for key, value in row.items()} for row in rows]


def _share(rows: Sequence[Mapping[str, float]], luck: float) -> float:
    """Of right trial answers, those that are no guess: as the nearest rows' trials tell, or else all."""
    trials = next((known for name in TRIALS if (known := [row[name] for row in rows if name in row])), [])
    return beyond_luck(trials, luck) if trials else 1.0

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


def no_guesses(rows: Sequence[Mapping[str, float]], luck: float) -> list[float]:
    """Of each row probed: the share of right trial answers that are no guess, among rows of its kind, in [0, 1].

    A row whose form holds has given an answer, which was wrong. That leaves fewer to guess from: of two answers, the
    other one is right. So the luck of such rows is luck / (1 - luck), and they are of another kind than those that have
    given none. Trial answers under the nearest train rows tell for all, where there are any.

    Args:
        rows: their features.
    """
    shares = {holds: _share([row for row in rows if _holds(row) == holds], luck, holds) for holds in (True, False)}
    return [shares[_holds(row)] for row in rows]


def without_luck(rows: Sequence[Mapping[str, float]], luck: float) -> list[dict[str, float]]:
    """The features of rows probed together: each right trial answer counts as far as it is expected to be no guess."""
    return [
        {key: value * share if key in TRIALS else value for key, value in row.items()}
        for row, share in zip(rows, no_guesses(rows, luck), strict=True)
    ]


def after_wrong(luck: float) -> float:
    """The luck of rows on which one answer is known to be wrong."""
    return min(1.0, luck / (1 - luck)) if luck < 1 else 1.0


def _holds(row: Mapping[str, float]) -> bool:
    return row.get("style") == 1


def _share(rows: Sequence[Mapping[str, float]], luck: float, holds: bool) -> float:
    trials = next((known for name in TRIALS if (known := [row[name] for row in rows if name in row])), [])
    return beyond_luck(trials, after_wrong(luck) if holds else luck) if trials else 1.0

"""Luck: where answers are few, a right one may be a guess, and shows no knowledge."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb
from statistics import fmean

from agent.records.signal import knowledge

TRIALS = ("near_right", "right")  # features that say how often trial answers are right
# The most likely that so many right answers are by luck alone, for any of them to count as knowledge.
BY_LUCK = 0.1


@dataclass(frozen=True)
class Luck:
    """What a guess earns on a row.

    Attributes:
        chance: share of rows that a guess gets right at most: what one answer to all of them earns.
        has_form: whether answers have a form that is scored, so that a row whose form holds has been answered.
    """

    chance: float = 0.0
    has_form: bool = False

    def of(self, features: Mapping[str, float]) -> float:
        """The chance of a guess on this failing row.

        Where an answer was given, and was wrong, fewer are left to guess from: of two answers, the other one is right.
        """
        if not (self.has_form and features.get("style") == 1):
            return self.chance
        return min(1.0, self.chance / (1 - self.chance)) if self.chance < 1 else 1.0


NO_LUCK = Luck()


def beyond_luck(right: Sequence[float], luck: float) -> float:
    """The share of right answers that are no lucky guess, in [0, 1]; 1 where none is right.

    0 where luck alone brings so many with a chance of more than `BY_LUCK` (one-sided binomial test).

    Args:
        right: of each row, whether its answer is right, or how often.
        luck: share of rows that are right by luck where nothing is known.
    """
    share, rows = fmean(right), len(right)
    if share == 0 or luck <= 0:
        return 1.0
    least = int(sum(right))
    by_luck = sum(comb(rows, count) * luck**count * (1 - luck) ** (rows - count) for count in range(least, rows + 1))
    return 0.0 if by_luck > BY_LUCK else knowledge(share, luck) / share


def no_guesses(rows: Sequence[Mapping[str, float]], luck: Luck) -> list[float]:
    """Of each row probed: the share of right trial answers that are no guess, among rows with the same luck; in [0, 1].

    Trial answers under the nearest train rows tell for all, where there are any.

    Args:
        rows: their features.
    """
    shares = {chance: beyond_luck(trials(rows, luck, chance) or [0.0], chance) for chance in map(luck.of, rows)}
    return [shares[luck.of(row)] for row in rows]


def without_luck(rows: Sequence[Mapping[str, float]], luck: Luck) -> list[dict[str, float]]:
    """The features of rows probed together: each right trial answer counts as far as it is expected to be no guess."""
    return [
        {key: value * share if key in TRIALS else value for key, value in row.items()}
        for row, share in zip(rows, no_guesses(rows, luck), strict=True)
    ]


def trials(rows: Sequence[Mapping[str, float]], luck: Luck, chance: float) -> list[float]:
    """How often trial answers are right, of each row with this luck that has any."""
    alike = [row for row in rows if luck.of(row) == chance]
    return next((known for name in TRIALS if (known := [row[name] for row in alike if name in row])), [])


def shows_nothing(rows: Sequence[Mapping[str, float]], luck: Luck) -> list[bool]:
    """Of each row probed: whether an answer among few may seem likely for being one of few, and no more.

    So where right trial answers of such rows are mostly luck, or where there are none.
    """
    shares = zip(rows, no_guesses(rows, luck), strict=True)
    return [luck.of(row) > 0 and (share < 0.5 or not any(trials(rows, luck, luck.of(row)))) for row, share in shares]


def more_rows_may_tell(rows: Sequence[Mapping[str, float]], luck: float, total: int) -> bool:
    """Whether so few rows cannot tell knowledge from luck, where the rest of them could.

    Args:
        rows: the features of those probed so far, all with this luck.
        total: how many there are.
    """
    plain = Luck(luck)
    return 0 in no_guesses(rows, plain) and luck**total <= BY_LUCK

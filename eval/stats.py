"""Paired statistics, and the gate that keeps a trial or takes it back. Seeded: the same rows, the same verdict."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from statistics import NormalDist, fmean

import numpy as np
from numpy.typing import NDArray

from agent.records import Evaluation
from agent.rounds import Verdict

EXACT_UP_TO = 16
FLIPS = 10_000
FLIPS_AT_ONCE = 100  # thirty times as fast as one by one, and the same in little memory for many rows
RESAMPLES = 2_000
NOISE = 1e-9  # rewards are means of small fractions: what differs by less is the same


def sign_flip(differences: Sequence[float]) -> float:
    """One-sided p-value, in (0, 1], that the mean of paired differences is above 0.

    Under the null hypothesis each difference is as likely with the other sign. All sign patterns are counted when at
    most 16 differences are not zero, else 10,000 random ones with the +1 correction (Phipson & Smyth 2010).
    """
    values = np.asarray(differences, dtype=float)
    values = values[np.abs(values) > NOISE]
    if not values.size:
        return 1.0
    observed = values.sum() - NOISE
    if values.size <= EXACT_UP_TO:
        return float(np.mean(_every_sign(values.size) @ np.abs(values) >= observed))
    generator = np.random.default_rng(0)
    blocks = (generator.integers(0, 2, (FLIPS_AT_ONCE, values.size)) * 2 - 1 for _ in range(FLIPS // FLIPS_AT_ONCE))
    reached = sum(int(np.sum(signs @ values >= observed)) for signs in blocks)
    return (reached + 1) / (FLIPS + 1)


def _every_sign(count: int) -> NDArray[np.int64]:
    """All patterns of signs, shape (2^count, count)."""
    patterns = np.arange(2**count)[:, None] >> np.arange(count)
    return (patterns & 1) * 2 - 1


def cannot_catch_up(differences: Sequence[float], left: int) -> bool:
    """Whether who is behind by these differences of merit stays behind, even with all of the `left` rows to come won.

    Certain, since merit lies in [0, 1]. Satisfies `agent.protocols.Bound`.
    """
    return sum(differences) + left < -NOISE


def loses(differences: Sequence[float], left: int, alpha: float) -> bool:
    """Whether who is behind cannot catch up, or is behind by more than chance (paired sign-flip test, p <= alpha).

    With `alpha` given, satisfies `agent.protocols.Bound`. No p-value is corrected for how often it is asked.
    """
    if cannot_catch_up(differences, left):
        return True
    return sum(differences) < -NOISE and sign_flip([-difference for difference in differences]) <= alpha


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

    def rose(self, alpha: float) -> bool:
        return self.gain > 0 and self.p_value <= alpha

    def __str__(self) -> str:
        return f"{self.name} {fmean(self.before):.2f} → {fmean(self.after):.2f} ({_p(self.p_value)})"


def judge(before: Evaluation, after: Evaluation, alpha: float, after_is_simpler: bool = False) -> Verdict:
    """Whether the trial `after` takes the place of the pair `before`, on the same rows.

    Kept if the joint reward rose (p <= alpha); or it did not fall and the merit rose (p <= alpha); or no row differs
    and the trial is simpler (a cheaper lever, a shorter prompt). Raises ValueError if the rows are not the same.
    """
    reward, merit = _changes(before, after)
    if reward.nothing and merit.nothing:
        end = "the simpler pair wins the tie" if after_is_simpler else "the pair before stands"
        return _verdict(after_is_simpler, reward, merit, f"no row differs (joint reward {before.reward:.2f}): {end}")
    if reward.rose(alpha):
        return _verdict(True, reward, merit, str(reward))
    if reward.gain < 0:
        return _verdict(False, reward, merit, f"{reward}: it fell")
    reason = f"{reward}, {merit}"
    if merit.rose(alpha):
        return _verdict(True, reward, merit, reason, merit)
    end = f"within chance (alpha {alpha:g})" if max(reward.gain, merit.gain) > 0 else "no rise"
    return _verdict(False, reward, merit, f"{reason}: {end}", min(reward, merit, key=lambda change: change.p_value))


def corroborate(
    verdict: Verdict, before: Sequence[float | None], after: Sequence[float | None], alpha: float
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
    p_value = sign_flip([old - new for old, new in pairs])
    old_mean, new_mean = (fmean(values) for values in zip(*pairs, strict=True))
    told = f", {_unmeasured(len(before) - len(pairs))}" if len(pairs) < len(before) else ""
    nats = f"{old_mean:.2f} → {new_mean:.2f} nats per token of the wanted answers ({_p(p_value)}{told})"
    if p_value > alpha:
        return verdict.model_copy(update={"reason": f"{verdict.reason}; {nats}: no likelier either"})
    kept = {
        "kept": True,
        "p_value": p_value,
        "measure": "likelihood",
        "reason": f"{verdict.reason}, but {nats}: they became likelier",
    }
    return verdict.model_copy(update=kept)


def too_few_to_tell(before: Evaluation, after: Evaluation, alpha: float) -> bool:
    """Whether every row whose joint reward changed has risen, and yet no test could call so few changes significant."""
    reward, _ = _changes(before, after)
    changed = [difference for difference in reward.differences if abs(difference) > NOISE]
    return bool(changed) and min(changed) > 0 and 0.5 ** len(changed) > alpha


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


def _verdict(kept: bool, reward: Change, merit: Change, reason: str, decided: Change | None = None) -> Verdict:
    """`decided` where another difference than the reward's was the stronger one."""
    return Verdict(
        kept=kept,
        reason=reason,
        before=fmean(reward.before),
        after=fmean(reward.after),
        p_value=(decided or reward).p_value,
        merit_gain=merit.gain,
        measure="merit" if decided and decided.name == "merit" else "reward",
    )

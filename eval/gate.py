"""Where a trial is judged: the gate keeps it or takes it back, by paired tests on validation rows."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from agent.records.evaluation import Evaluation
from agent.records.rounds import Verdict
from eval.stats import NOISE, flips_for, joint_sign_flip, sign_flip, smallest_p_value


@dataclass(frozen=True)
class Change:
    """How one measure changed from an evaluation to the next, row by row; values in [0, 1]."""

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

    def __str__(self) -> str:
        """Both means; to so many places that a change shows."""
        before, after = fmean(self.before), fmean(self.after)
        places = next((n for n in (2, 3, 4) if not self.gain or f"{before:.{n}f}" != f"{after:.{n}f}"), 5)
        return f"{self.name} {before:.{places}f} → {after:.{places}f}"


def deciding_rows(evaluation: Evaluation, compared_on: Collection[str]) -> Evaluation:
    """The evaluation without the rows (by name) on which proposals were compared to choose the trial; with all, if that
    leaves none."""
    left = tuple(score for score in evaluation.scores if score.example not in compared_on)
    return evaluation.model_copy(update={"scores": left or evaluation.scores})


def least_p(before: Evaluation) -> float:
    """The smallest p-value that a trial after this evaluation can get by rewards: every row rises that still can."""
    return 0.5 ** sum(min(score.reward, score.merit) < 1 - NOISE for score in before.scores)


def gate(
    before: Evaluation,
    after: Evaluation,
    level: float,
    reference_nll: Callable[[Evaluation], Sequence[float | None]],
    after_is_simpler: bool = False,
) -> Verdict:
    """The whole gate: `judge_by_rewards`, and where that cannot tell, `judge_by_nll`.

    Args:
        level: largest p-value of a trial that is kept; see `eval.alpha_spending`.
        reference_nll: the NLL of each row's reference under the pair of an evaluation, in nats per token; None for a
            row that cannot be measured. Called only where rewards cannot tell.
        after_is_simpler: the trial wins where no row's reward or merit differs.
    """
    verdict = judge_by_rewards(before, after, level, after_is_simpler)
    if verdict.kept or not too_few_to_tell(before, after, level):
        return verdict
    return judge_by_nll(verdict, reference_nll(before), reference_nll(after), level)


def judge_by_rewards(before: Evaluation, after: Evaluation, level: float, after_is_simpler: bool = False) -> Verdict:
    """Whether the trial `after` replaces the pair `before`, by rewards on the same rows.

    Kept if the joint reward did not fall, and it or the merit rose (one test over both, p <= level); or if no row
    differs and the trial is simpler (a cheaper prompt, or weights that forget less).

    Args:
        level: largest p-value of a trial that is kept.

    Raises:
        ValueError: the two evaluations are of different rows.
    """
    reward, merit = _changes(before, after)
    if reward.nothing and merit.nothing:
        cheaper = "the trial wins the tie, with a cheaper prompt or weights that forget less"
        end = cheaper if after_is_simpler else "the pair before stands"
        text = f"no row's reward or merit differs (joint reward {before.reward:.2f}): {end}"
        return _verdict(after_is_simpler, reward, merit, text, 1.0, None)
    p_value = joint_sign_flip(reward.differences, merit.differences, flips=flips_for(level))
    if reward.gain < 0:
        return _verdict(False, reward, merit, f"{reward}: it fell", p_value, level)
    decided = min(reward, merit, key=lambda change: change.p_value)
    reason = f"{reward}{'' if decided is reward else f', {merit}'} ({_p(p_value)})"
    if p_value <= level and max(reward.gain, merit.gain) > 0:
        return _verdict(True, reward, merit, reason, p_value, level, decided.name)
    short = f"{p_value:.1g} > " if p_value < 0.001 else ""
    end = f"within chance ({short}level {level:.1g})" if max(reward.gain, merit.gain) > 0 else "no rise"
    return _verdict(False, reward, merit, f"{reason}: {end}", p_value, level, decided.name)


def judge_by_nll(
    verdict: Verdict, before: Sequence[float | None], after: Sequence[float | None], level: float
) -> Verdict:
    """A second test, for a trial that raised the joint reward on a few rows, too few to tell, and lowered it on none.

    Near the top only a row or two are left to change, and no test on rewards can reach alpha. The references' NLL
    moves on every row. The trial is kept if they became likelier (p <= level); else the verdict stays.

    Args:
        verdict: of `judge_by_rewards`, on evaluations for which `too_few_to_tell` holds.
        before, after: NLL of each row's reference in the wanted form, nats per token, in the same order. Rows that
            were not measured (None) under one of them are left out.
    """
    pairs = [(old, new) for old, new in zip(before, after, strict=True) if old is not None and new is not None]
    if not pairs:
        return verdict.model_copy(update={"reason": f"{verdict.reason}; {_unmeasured(len(before))}"})
    p_value = sign_flip([old - new for old, new in pairs], flips_for(level))
    old_mean, new_mean = (fmean(values) for values in zip(*pairs, strict=True))
    lacking = f", {_unmeasured(len(before) - len(pairs))}" if len(pairs) < len(before) else ""
    nats = f"{old_mean:.2f} → {new_mean:.2f} nats per token of the wanted answers ({_p(p_value)}{lacking})"
    if p_value > level:
        end = "likelier, but within chance" if new_mean < old_mean else "no likelier either"
        return verdict.model_copy(update={"reason": f"{verdict.reason}; {nats}: {end}"})
    kept = {
        "kept": True,
        "p_value": p_value,
        "measure": "likelihood",
        "reason": f"{verdict.reason}, but {nats}: they became likelier",
    }
    return verdict.model_copy(update=kept)


def too_few_to_tell(before: Evaluation, after: Evaluation, level: float) -> bool:
    """Whether every row whose joint reward changed has risen, and yet no test could call so few changes significant.

    How many rows changed does not depend on the direction of the changes. So a second test, made only where
    the first could not succeed, is no second chance.

    Args:
        level: p-value that a significant change has at most.
    """
    reward, merit = _changes(before, after)
    risen = [difference for difference in reward.differences if abs(difference) > NOISE]
    changed = sum(max(map(abs, pair)) > NOISE for pair in zip(reward.differences, merit.differences, strict=True))
    return bool(risen) and min(risen) > 0 and smallest_p_value(changed, level) > level


def _unmeasured(rows: int) -> str:
    return f"the wanted answers of {rows} rows could not be measured under both pairs"


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}"


def _changes(before: Evaluation, after: Evaluation) -> tuple[Change, Change]:
    """Reward and merit, paired by the name of the example."""
    earlier, later = ({score.example: score for score in evaluation.scores} for evaluation in (before, after))
    if earlier.keys() != later.keys() or len(earlier) != len(before.scores) or len(later) != len(after.scores):
        raise ValueError("only evaluations of the same rows can be judged against each other")
    pairs = [(score, later[name]) for name, score in earlier.items()]
    return (
        Change("joint reward", [old.reward for old, _ in pairs], [new.reward for _, new in pairs]),
        Change("merit", [old.merit for old, _ in pairs], [new.merit for _, new in pairs]),
    )


def _verdict(
    kept: bool, reward: Change, merit: Change, reason: str, p_value: float, level: float | None, decided: str = ""
) -> Verdict:
    """`level` None: nothing was tested."""
    return Verdict(
        kept=kept,
        reason=reason,
        before=fmean(reward.before),
        after=fmean(reward.after),
        p_value=p_value,
        level=level,
        rows=len(reward.before),
        merit_gain=merit.gain,
        measure="merit" if decided == "merit" else "reward",
    )

"""How policies stand beside one another over tasks and seeds: reward, regret, cost to target, and what is chance.

A *group* is a task with a seed; what is compared is compared within groups. Costs are passes (`Spend.forward_tokens`).
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from math import log
from statistics import fmean
from typing import NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from agent.config.policies import PATTERNS
from bench.decisions.suite import ORACLE, Result
from eval.stats import RESAMPLES, interval, sign_flip

FIXED = ("lora-only", "prompt-only", *PATTERNS)  # policies that need no look, and no luck
LEVEL = 0.95

Group = tuple[str, int]
Matrix = NDArray[np.float64]


class Estimate(NamedTuple):
    """A mean with its 95 % interval, and how many groups it is over."""

    mean: float
    low: float
    high: float
    groups: int


class Cost(NamedTuple):
    """Mean passes to the target over groups, how many of them reached it, and the mean share of the group's charge."""

    passes: float
    reached: int
    share: Estimate


class Chance(NamedTuple):
    """A mean over units, and the one-sided p-value of a paired sign-flip test that it is above 0."""

    mean: float
    p_value: float
    units: int


class Duel(NamedTuple):
    """A policy against another: differences of test reward, and log(other's cost / own cost); above 0 is better."""

    policy: str
    other: str
    reward: Chance
    cost: Chance
    task_reward: Chance
    task_cost: Chance


class Match(NamedTuple):
    """A policy on a task against the fixed order that did best there."""

    task: str
    policy: str
    best: str
    difference: Estimate

    @property
    def holds(self) -> bool:
        """Whether the interval leaves it open that it is at least as good: it is not shown to be worse."""
        return self.difference.high >= 0


class Standing:
    """The rows of a suite, by policy and group. Where a policy lacks a group, it is left out of what needs both."""

    def __init__(self, results: Sequence[Result]) -> None:
        self.policies = list(dict.fromkeys(result.policy for result in results))
        self.tasks = list(dict.fromkeys(result.task for result in results))
        self._rows: dict[str, dict[Group, Result]] = defaultdict(dict)
        for result in results:
            self._rows[result.policy][result.task, result.seed] = result
        self.fixed = [policy for policy in self.policies if all(map(_is_fixed, self._rows[policy].values()))]

    def rows(self, policy: str, task: str | None = None) -> dict[Group, Result]:
        """A policy's rows by group, of one task or of all."""
        return {group: row for group, row in self._rows[policy].items() if task in (None, group[0])}

    def reward(self, policy: str, task: str | None = None) -> Estimate | None:
        """Mean test reward; of all tasks, each group counts alike. None without rows."""
        tasks = {name: _rewards(rows) for name, rows in _by_task(self.rows(policy, task).values()).items()}
        if len(tasks) == 1:
            [only] = tasks.values()
            if all(value in (0, 1) for value in only.mean(axis=0)):
                rows = [float(value) for value in only.mean(axis=0)]
                return Estimate(fmean(rows), *interval(rows), len(only))  # Wilson's: never of no width
        return _estimate(tasks)

    def regret(self, policy: str, task: str | None = None) -> Estimate | None:
        """Mean of the oracle's test reward less the policy's, over groups. Below 0 where the oracle chose worse.

        The oracle chooses by validation rows, too: on test rows it is not the best of all by necessity.
        """
        return self.difference(ORACLE, policy, task)

    def difference(self, policy: str, other: str, task: str | None = None) -> Estimate | None:
        """Mean of the policy's test reward less the other's, over the groups that both have."""
        mine, theirs = self.rows(policy, task), self.rows(other, task)
        both = [group for group in mine if group in theirs]
        ours, others = _by_task(mine[group] for group in both), _by_task(theirs[group] for group in both)
        return _estimate({name: _differences(rows, others[name]) for name, rows in ours.items()})

    def charge(self, group: Group) -> int:
        """What a run of this group that never reached the target is charged: the most any policy spent in it.

        Opening the test rows is nobody's cost (`Result.spend`).
        """
        return max(
            rows[group].spend.forward_tokens
            for policy, rows in self._rows.items()
            if policy != ORACLE and group in rows
        )

    def cost(self, policy: str, task: str | None = None) -> Cost | None:
        """What it took to reach the target. None without rows, and for the oracle, whose search is not counted."""
        rows = self.rows(policy, task)
        if not rows or policy == ORACLE:
            return None
        shares: dict[str, list[list[float]]] = defaultdict(list)
        for group, row in rows.items():
            shares[row.task].append([_share(self._passes(row), self.charge(group))])
        share = _estimate({name: np.array(values) for name, values in shares.items()})
        assert share is not None, "there are rows"
        reached = sum(row.reached is not None for row in rows.values())
        return Cost(fmean(map(self._passes, rows.values())), reached, share)

    def duel(self, policy: str, other: str) -> Duel | None:
        """The policy against the other, group by group and task by task. None if they share no group."""
        mine, theirs = self.rows(policy), self.rows(other)
        both = [group for group in mine if group in theirs]
        if not both:
            return None
        rewards = {group: mine[group].best.reward - theirs[group].best.reward for group in both}
        costs = {group: _log_ratio(self._passes(theirs[group]), self._passes(mine[group])) for group in both}
        return Duel(
            policy, other, _chance(rewards.values()), _chance(costs.values()),
            _chance(_over_seeds(rewards)), _chance(_over_seeds(costs)),
        )  # fmt: skip

    def match(self, policy: str, task: str) -> Match | None:
        """The policy against the fixed order with the highest mean test reward on this task; None if either lacks it.

        That order is known in hindsight only, and by the very rows it is compared on: it has the advantage.
        """
        known = {order: reward.mean for order in self.fixed if (reward := self.reward(order, task))}
        best = max(known, key=lambda order: known[order], default=None)
        difference = self.difference(policy, best, task) if best else None
        return Match(task, policy, best, difference) if best and difference else None

    def _passes(self, row: Result) -> int:
        return row.reached.passes if row.reached else self.charge((row.task, row.seed))


def _is_fixed(row: Result) -> bool:
    return any(re.fullmatch(f"policy={order}", setting) for setting in row.settings for order in FIXED)


def _by_task(rows: Iterable[Result]) -> dict[str, list[Result]]:
    found: dict[str, list[Result]] = defaultdict(list)
    for row in rows:
        found[row.task].append(row)
    return found


def _rewards(rows: Sequence[Result]) -> Matrix:
    """Test rewards of one task's runs: [seeds, test rows]."""
    names = sorted(set.intersection(*(set(row.rewards) for row in rows)))
    return np.array([[row.rewards[name] for name in names] for row in rows], dtype=float)


def _differences(ours: Sequence[Result], others: Sequence[Result]) -> Matrix:
    """Ours less theirs, for the same seeds and test rows: [seeds, test rows]."""
    both = _rewards([*ours, *others])
    return both[: len(ours)] - both[len(ours) :]


def _estimate(tasks: Mapping[str, Matrix]) -> Estimate | None:
    """Mean over groups, with the percentiles of a bootstrap that draws seeds, and test rows, of each task anew.

    Tasks are not drawn: the interval is for these tasks. Draws of a task are the same for all policies, so that
    differences of shown means are paired as well.

    Args:
        tasks: a value for each seed and test row of each task, by its name: [seeds, test rows].
    """
    if not tasks:
        return None
    groups = sum(len(task) for task in tasks.values())
    mean = sum(task.mean(axis=1).sum() for task in tasks.values()) / groups
    draws = np.sum([_means(name, task) * len(task) for name, task in tasks.items()], axis=0) / groups
    return Estimate(float(mean), *_middle(draws), groups)


def _middle(draws: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _means(name: str, task: Matrix) -> NDArray[np.float64]:
    """Bootstrap means over seeds and rows, drawn apart from each other and from those of other tasks: [resamples]."""
    generator = np.random.default_rng(crc32(name.encode()))
    seeds, rows = task.shape
    weights = [generator.multinomial(count, [1 / count] * count, RESAMPLES) / count for count in (seeds, rows)]
    means: NDArray[np.float64] = np.einsum("bs,sr,br->b", weights[0], task, weights[1])
    return means


def _chance(values: Iterable[float]) -> Chance:
    found = list(values)
    return Chance(fmean(found), sign_flip(found), len(found))


def _over_seeds(values: dict[Group, float]) -> list[float]:
    """The mean of each task."""
    tasks = list(dict.fromkeys(task for task, _ in values))
    return [fmean(value for (name, _), value in values.items() if name == task) for task in tasks]


def _log_ratio(above: float, below: float) -> float:
    return log(max(above, 1) / max(below, 1))


def _share(passes: int, charge: int) -> float:
    return min(passes / charge, 1.0) if charge else 1.0

"""Policies compared over tasks and seeds: reward, regret, cost to the target, and what could be chance.

A *group* is a task with a seed; comparisons are made within groups. Costs are in `Spend.forward_tokens`.
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
from bench.decisions.results import ORACLE, Result
from eval.stats import RESAMPLES, interval, sign_flip

FIXED = ("lora-only", "prompt-only", *PATTERNS)  # policies that neither observe nor draw at random
LEVEL = 0.95

Group = tuple[str, int]
Matrix = NDArray[np.float64]


class Estimate(NamedTuple):
    """A mean with its 95 % interval, and how many groups it is over."""

    mean: float
    low: float
    high: float
    groups: int


class Alike(NamedTuple):
    """What always giving the commonest train answer earns on the test rows, and the most that one answer could."""

    commonest: float
    most: float


class Cost(NamedTuple):
    """Mean forward tokens to the target over groups, how many reached it, and the mean share of the group's charge."""

    forward_tokens: float
    reached: int
    share: Estimate


class MeanTest(NamedTuple):
    """A mean over units, and the one-sided p-value of a paired sign-flip test that it is above 0."""

    mean: float
    p_value: float
    units: int


class HeadToHead(NamedTuple):
    """A policy against another: differences of test reward, and log(other's cost / own cost); above 0 is better."""

    policy: str
    other: str
    reward: MeanTest
    cost: MeanTest
    task_reward: MeanTest
    task_cost: MeanTest


class AgainstBestFixed(NamedTuple):
    """A policy on a task against the fixed order that did best there."""

    task: str
    policy: str
    best: str
    difference: Estimate

    @property
    def holds(self) -> bool:
        """Whether the policy is not shown to be worse: the interval reaches 0 or lies above it."""
        return self.difference.high >= 0


class Comparison:
    """The rows of a benchmark, by policy and group. A group that one of two policies lacks is left out for both."""

    def __init__(self, results: Sequence[Result]) -> None:
        self.policies = list(dict.fromkeys(result.policy for result in results))
        self.tasks = list(dict.fromkeys(result.task for result in results))
        self._rows: dict[str, dict[Group, Result]] = defaultdict(dict)
        for result in results:
            self._rows[result.policy][result.task, result.seed] = result
        fixed = re.compile("|".join(f"policy=(?:{order})" for order in FIXED))
        self.fixed = [
            policy
            for policy, rows in self._rows.items()
            if all(any(map(fixed.fullmatch, row.settings)) for row in rows.values())
        ]

    def rows(self, policy: str, task: str | None = None) -> dict[Group, Result]:
        """A policy's rows by group, of one task or of all."""
        return {group: row for group, row in self._rows[policy].items() if task in (None, group[0])}

    def reward(self, policy: str, task: str | None = None) -> Estimate | None:
        """Mean test reward of one task, or of all; each group counts alike. None without rows."""
        tasks = {name: _rewards(rows) for name, rows in _by_task(self.rows(policy, task).values()).items()}
        if len(tasks) == 1:
            [only] = tasks.values()
            if all(value in (0, 1) for value in only.mean(axis=0)):
                rows = [float(value) for value in only.mean(axis=0)]
                return Estimate(fmean(rows), *interval(rows), len(only))  # Wilson's: never of no width
        return _estimate(tasks)

    def drift(self, policy: str, task: str | None = None) -> Estimate | None:
        """Mean drift of the final weights over groups, in nats per token; None unless it is known of all of them."""
        values: dict[str, list[list[float]]] = defaultdict(list)
        for row in self.rows(policy, task).values():
            if row.drift is None:
                return None
            values[row.task].append([row.drift])
        return _estimate({name: np.array(drifts) for name, drifts in values.items()})

    def alike(self, task: str | None = None) -> Alike | None:
        """What one answer to every test row earns on a task, or on the mean of all tasks.

        None where it is not known of each: a judge scores one, or its rows are of an older version.
        """
        known = [found for name in ([task] if task else self.tasks) if (found := self._alike(name))]
        if len(known) < (1 if task else len(self.tasks)):
            return None
        return Alike(fmean(found.commonest for found in known), fmean(found.most for found in known))

    def _alike(self, task: str) -> Alike | None:
        for row in (row for policy in self.policies for row in self.rows(policy, task).values()):
            if row.commonest is not None:
                return Alike(row.commonest, row.commonest if row.most_alike is None else row.most_alike)
        return None

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
        differences = {}
        for name, rows in ours.items():  # for the same seeds and test rows: [seeds, test rows]
            rewards = _rewards([*rows, *others[name]])
            differences[name] = rewards[: len(rows)] - rewards[len(rows) :]
        return _estimate(differences)

    def charge(self, group: Group) -> int:
        """Forward tokens that a run is charged which never reached the target: the most any policy spent in the group.

        Scoring the test rows is not counted (`Result.spend`).
        """
        return max(
            rows[group].spend.forward_tokens
            for policy, rows in self._rows.items()
            if policy != ORACLE and group in rows
        )

    def cost(self, policy: str, task: str | None = None) -> Cost | None:
        """What reaching the target took. None without rows, and for the oracle, whose search is not counted."""
        rows = self.rows(policy, task)
        if not rows or policy == ORACLE:
            return None
        shares: dict[str, list[list[float]]] = defaultdict(list)
        for group, row in rows.items():
            charge = self.charge(group)
            shares[row.task].append([min(self._to_target(row) / charge, 1.0) if charge else 1.0])
        share = _estimate({name: np.array(values) for name, values in shares.items()})
        assert share is not None, "there are rows"
        reached = sum(row.reached is not None for row in rows.values())
        return Cost(fmean(map(self._to_target, rows.values())), reached, share)

    def head_to_head(self, policy: str, other: str) -> HeadToHead | None:
        """The policy against the other: tests with groups as units, and with tasks as units (seeds averaged first).

        None if they share no group.
        """
        mine, theirs = self.rows(policy), self.rows(other)
        both = [group for group in mine if group in theirs]
        if not both:
            return None
        rewards = {group: mine[group].best.reward - theirs[group].best.reward for group in both}
        costs = {
            group: log(max(self._to_target(theirs[group]), 1) / max(self._to_target(mine[group]), 1)) for group in both
        }
        return HeadToHead(
            policy, other, _mean_test(rewards.values()), _mean_test(costs.values()),
            _mean_test(_over_seeds(rewards)), _mean_test(_over_seeds(costs)),
        )  # fmt: skip

    def against_best_fixed(self, policy: str, task: str) -> AgainstBestFixed | None:
        """The policy against the fixed order with the highest mean test reward on this task; None if either lacks it.

        That order is chosen in hindsight, on the very rows it is then compared on, which is to its advantage.
        """
        known = {order: reward.mean for order in self.fixed if (reward := self.reward(order, task))}
        best = max(known, key=lambda order: known[order], default=None)
        difference = self.difference(policy, best, task) if best else None
        return AgainstBestFixed(task, policy, best, difference) if best and difference else None

    def _to_target(self, row: Result) -> int:
        """Forward tokens."""
        return row.reached.passes if row.reached else self.charge((row.task, row.seed))


def _by_task(rows: Iterable[Result]) -> dict[str, list[Result]]:
    found: dict[str, list[Result]] = defaultdict(list)
    for row in rows:
        found[row.task].append(row)
    return found


def _rewards(rows: Sequence[Result]) -> Matrix:
    """Test rewards of one task's runs: [seeds, test rows]."""
    names = sorted(set.intersection(*(set(row.rewards) for row in rows)))
    return np.array([[row.rewards[name] for name in names] for row in rows], dtype=float)


def _estimate(tasks: Mapping[str, Matrix]) -> Estimate | None:
    """Mean over groups, with the percentiles of a bootstrap that resamples the seeds and the test rows of each task.

    Tasks are not resampled: the interval is for these tasks. The resamples of a task are the same for all policies,
    so differences of the means in a table are paired, too.

    Args:
        tasks: by name, a value for each seed and test row: [seeds, test rows].
    """
    if not tasks:
        return None
    groups = sum(len(task) for task in tasks.values())
    mean = sum(task.mean(axis=1).sum() for task in tasks.values()) / groups
    sums = []  # of bootstrap means, [resamples] for each task
    for name, task in tasks.items():  # seeds and rows are resampled independently of each other and of other tasks
        generator = np.random.default_rng(crc32(name.encode()))
        seeds, rows = (
            generator.multinomial(count, [1 / count] * count, RESAMPLES) / count for count in task.shape
        )  # [resamples, seeds], [resamples, rows]
        sums.append(np.einsum("bs,sr,br->b", seeds, task, rows) * len(task))
    draws = np.sum(sums, axis=0) / groups
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(mean), float(low), float(high), groups)


def _mean_test(values: Iterable[float]) -> MeanTest:
    found = list(values)
    return MeanTest(fmean(found), sign_flip(found), len(found))


def _over_seeds(values: dict[Group, float]) -> list[float]:
    """The mean of each task."""
    tasks = list(dict.fromkeys(task for task, _ in values))
    return [fmean(value for (name, _), value in values.items() if name == task) for task in tasks]

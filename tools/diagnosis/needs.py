"""Whether words mend a failing row, learned from what edits did to other rows: a calibrated logistic model.

It gives the chance that an edit brings the row's reward to 1. The chances of the three needs follow from that chance
and the style of the present answer. Shapes: N rows, F features.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import get_args

import torch
from torch import Tensor

from agent.records.signal import Need, Probe
from tools.diagnosis.luck import Luck, beyond_luck, without_luck

LEAST = 40  # probed rows: with fewer, nothing is fitted
LEAST_OF_EACH = 8  # probed rows that words mended, and that they did not: with fewer, nothing is fitted
LEAST_ALIKE = 8  # probed rows with the same kind of failure (`_kind`): with fewer, the rules know better
MARGIN = 0.25  # of a feature's range: a row further outside is unknown
OWN_WEIGHT = 3.0  # a row of this run counts as so many of other tasks
PENALTY = 30.0  # inverse variance of a coefficient, features at unit variance; of 1 to 100 the best on held-out tasks
# Other features of the probe did not make the chances better on held-out tasks (docs/LOG.md).
USED = frozenset({"near_right", "right", "shown_answer"})
STEPS = 12  # of Newton's method; it has converged after eight


def shipped_probes() -> list[Probe]:
    """The probed rows that come with the package, from the practice tasks; none where the file is missing."""
    file = files("tools.diagnosis").joinpath("probes.jsonl")
    return [Probe.model_validate_json(line) for line in file.read_text().splitlines()] if file.is_file() else []


@dataclass(frozen=True)
class LogisticModel:
    """Calibrated logistic model. Chance that words mend a row = sigmoid(slope · (features · coefficients) + offset)."""

    names: tuple[str, ...]  # of the F features
    mean: Tensor  # [F]
    scale: Tensor  # [F] standard deviation
    low: Tensor  # [F] least value seen
    high: Tensor  # [F] largest value seen
    coefficients: Tensor  # [F + 1], the last is the intercept
    slope: float
    offset: float

    def chance(self, features: Mapping[str, float]) -> float:
        """In (0, 1). A feature outside the values seen counts as the nearest of them."""
        row = torch.minimum(torch.maximum(_matrix([features], self.names), self.low), self.high)
        logit = _with_intercept((row - self.mean) / self.scale) @ self.coefficients
        return float(torch.sigmoid(self.slope * logit + self.offset))

    def knows(self, features: Mapping[str, float]) -> bool:
        """Whether all features lie within the values seen, or `MARGIN` outside."""
        if any(name not in features for name in self.names):
            return False
        row, margin = _matrix([features], self.names)[0], MARGIN * (self.high - self.low) + 1e-6
        return bool(((row >= self.low - margin) & (row <= self.high + margin)).all())


@dataclass(frozen=True)
class NeedModel:
    """The needs of rows, from these probed rows."""

    probes: Sequence[Probe]

    @cached_property
    def words_help(self) -> LogisticModel | None:
        """Whether words mend a row; None where too few rows were probed."""
        return fit(self.probes)

    @cached_property
    def _kinds(self) -> Counter[tuple[bool, bool]]:
        return Counter(_kind(probe.features) for probe in self.probes)

    def knows(self, features: Mapping[str, float]) -> bool:
        """Whether enough similar rows were probed."""
        if self.words_help is None or self._kinds[_kind(features)] < LEAST_ALIKE:
            return False
        return self.words_help.knows(features)

    def chances(self, features: Mapping[str, float]) -> dict[Need, float]:
        """The chance of each need, adding up to 1, for a row that `knows` accepts.

        A row that words mend needs style. One that they do not mend needs content, and both if its style fails too.

        Raises:
            ValueError: nothing was fitted.
        """
        if self.words_help is None:
            raise ValueError("no row is known: too few were probed")
        mended = self.words_help.chance(features)
        rest: Need = "content" if features["style"] == 1 else "both"
        return {need: mended if need == "style" else (1 - mended) * (need == rest) for need in get_args(Need)}


def fit(probes: Sequence[Probe]) -> LogisticModel | None:
    """The model of whether words mend a row; None for too few rows. It takes milliseconds.

    Calibrated on held-out rows (Platt 1999): each task is left out once, and slope and offset are fitted to the logits
    that the models of the other tasks give for it.
    """
    labels = [probe.words for probe in probes]
    if len(probes) < LEAST or min(Counter({True: 0, False: 0} | Counter(labels)).values()) < LEAST_OF_EACH:
        return None
    probes, mended = _without_luck(probes)
    names = tuple(sorted(set.intersection(*(set(probe.features) for probe in probes)) & USED))
    raw = _matrix([probe.features for probe in probes], names)  # [N, F]
    target = torch.tensor(mended, dtype=torch.float64)  # [N] 1 where words mended the row, and not by luck
    mean, scale = raw.mean(dim=0), raw.std(dim=0).clamp_min(1e-6)
    inputs = _with_intercept((raw - mean) / scale)  # [N, F + 1]
    weight = torch.tensor([OWN_WEIGHT if probe.own else 1.0 for probe in probes], dtype=torch.float64)
    groups = ["own" if probe.own else probe.task for probe in probes]
    slope, offset = _calibration(inputs, target, weight, groups)
    return LogisticModel(
        names=names, mean=mean, scale=scale, low=raw.amin(dim=0), high=raw.amax(dim=0),
        coefficients=_logistic(inputs, target, weight, PENALTY), slope=slope, offset=offset,
    )  # fmt: skip


def _without_luck(probes: Sequence[Probe]) -> tuple[list[Probe], list[float]]:
    """The rows in groups with the same luck that one edit was made for, without it; and how far words mended each."""
    groups: dict[tuple[str, str, bool, float], list[Probe]] = {}
    for probe in probes:
        groups.setdefault((probe.task, probe.pair, probe.own, probe.luck), []).append(probe)
    found, labels = list[Probe](), list[float]()
    for (*_, luck), group in groups.items():
        share = beyond_luck([probe.words for probe in group], luck)
        features = without_luck([probe.features for probe in group], Luck(luck))
        found += [probe.model_copy(update={"features": of}) for probe, of in zip(group, features, strict=True)]
        labels += [probe.words * share for probe in group]
    return found, labels


def _calibration(inputs: Tensor, target: Tensor, weight: Tensor, groups: Sequence[str]) -> tuple[float, float]:
    """Slope and offset for the logits that the models of the other groups give; (1, 0) for rows of a single group."""
    if len(set(groups)) < 2:
        return 1.0, 0.0
    logits = torch.zeros_like(target)
    for group in sorted(set(groups)):
        held_out = torch.tensor([name == group for name in groups])  # [N]
        fitted = _logistic(inputs[~held_out], target[~held_out], weight[~held_out], PENALTY)
        logits[held_out] = inputs[held_out] @ fitted
    slope, offset = _logistic(_with_intercept(logits[:, None]), target, weight, 1.0, prior_mean=1.0)
    return max(0.0, float(slope)), float(offset)


def _logistic(inputs: Tensor, target: Tensor, weight: Tensor, penalty: float, prior_mean: float = 0.0) -> Tensor:
    """Coefficients [F + 1] of least weighted NLL plus penalty/2 times their squared distance to `prior_mean`.

    By Newton's method. The intercept, which is last, is hardly penalised.

    Args:
        inputs: [N, F + 1], the last column 1.
        target: [N] 0 or 1.
        weight: [N] how much each row counts.
    """
    size = inputs.shape[1]
    prior = torch.full((size,), prior_mean, dtype=inputs.dtype)
    prior[-1] = 0
    ridge = torch.full((size,), penalty, dtype=inputs.dtype)
    ridge[-1] = 0.01
    coefficients = prior.clone()
    for _ in range(STEPS):
        chance = torch.sigmoid(inputs @ coefficients)  # [N]
        gradient = inputs.T @ (weight * (chance - target)) + ridge * (coefficients - prior)  # [F + 1]
        hessian = (inputs * (weight * chance * (1 - chance))[:, None]).T @ inputs + torch.diag(ridge)
        coefficients = coefficients - torch.linalg.solve(hessian, gradient).clamp(-4, 4)
    return coefficients


def _kind(features: Mapping[str, float]) -> tuple[bool, bool]:
    """Which of the two rewards are full."""
    return features["content"] == 1, features["style"] == 1


def _matrix(rows: Sequence[Mapping[str, float]], names: Sequence[str]) -> Tensor:
    """[N, F] in double precision."""
    return torch.tensor([[row[name] for name in names] for row in rows], dtype=torch.float64)


def _with_intercept(rows: Tensor) -> Tensor:
    """[N, F] with a last column of ones."""
    return torch.cat([rows, torch.ones(len(rows), 1, dtype=rows.dtype)], dim=1)

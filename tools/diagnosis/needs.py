"""Whether words mend a failing row, learned from what edits did to others: a calibrated logistic model.

It gives the chance that an edit brings the row's reward to 1. From that and the present style follow the chances of
the three needs.
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

LEAST = 40  # probed rows, and
LEAST_OF_EACH = 8  # of these, that words mended and that they did not: with fewer, nothing is fitted
LEAST_ALIKE = 8  # probed rows whose two rewards are full where this row's are: with fewer, the rules know better
MARGIN = 0.25  # of a feature's range: who lies further outside is a stranger
OWN_WEIGHT = 3.0  # a row of this run counts as so many of other tasks
PENALTY = 30.0  # inverse variance of a coefficient, features at unit variance; of 1 to 100 the best on held-out tasks
# Noted of every row, and not asked: with these the chances were worse on held-out tasks.
UNUSED = frozenset({"plain", "whole", "form", "alike", "formed", "near", "common", "tuned"})
STEPS = 12  # of Newton's method; it has converged after eight


def shipped_probes() -> list[Probe]:
    """The probed rows that come with the package, from tasks made to practise on; none where the file is missing."""
    file = files("tools.diagnosis").joinpath("probes.jsonl")
    return [Probe.model_validate_json(line) for line in file.read_text().splitlines()] if file.is_file() else []


@dataclass(frozen=True)
class LogisticModel:
    """Calibrated logistic model. Chance that words mend a row = sigmoid(slope · (features · coefficients) + offset)."""

    names: tuple[str, ...]
    mean: Tensor
    scale: Tensor
    low: Tensor
    high: Tensor
    coefficients: Tensor  # [features + 1], the last is the intercept
    slope: float
    offset: float

    def chance(self, features: Mapping[str, float]) -> float:
        """In (0, 1). Features a little outside what was seen count as its border."""
        row = torch.minimum(torch.maximum(_matrix([features], self.names), self.low), self.high)
        logit = _with_one((row - self.mean) / self.scale) @ self.coefficients
        return float(torch.sigmoid(self.slope * logit + self.offset))

    def knows(self, features: Mapping[str, float]) -> bool:
        """Whether the features lie where probed rows have been seen."""
        if any(name not in features for name in self.names):
            return False
        row, room = _matrix([features], self.names)[0], MARGIN * (self.high - self.low) + 1e-6
        return bool(((row >= self.low - room) & (row <= self.high + room)).all())


@dataclass(frozen=True)
class NeedModel:
    """What is known of rows' needs from these probed ones; `words` is None where they are too few."""

    probes: Sequence[Probe]

    @cached_property
    def words(self) -> LogisticModel | None:
        return fit(self.probes)

    @cached_property
    def _kinds(self) -> Counter[tuple[bool, bool]]:
        return Counter(_kind(probe.features) for probe in self.probes)

    def knows(self, features: Mapping[str, float]) -> bool:
        """Whether enough is known of such rows to say what they need."""
        if self.words is None or self._kinds[_kind(features)] < LEAST_ALIKE:
            return False
        return self.words.knows(features)

    def chances(self, features: Mapping[str, float]) -> dict[Need, float]:
        """Of each need, adding up to 1, for a row that is known.

        It needs style where words alone mend it; what they do not mend lacks content, and style too if that fails.

        Raises:
            ValueError: nothing was fitted, so no row is known.
        """
        if self.words is None:
            raise ValueError("no row is known: too few were probed")
        words = self.words.chance(features)
        rest: Need = "content" if features["style"] == 1 else "both"
        return {need: words if need == "style" else (1 - words) * (need == rest) for need in get_args(Need)}


def fit(probes: Sequence[Probe]) -> LogisticModel | None:
    """The model of whether words mend a row; None where too few rows tell. Milliseconds.

    Calibrated on held-out rows (Platt 1999): each task is left out once, and slope and offset are fitted to what the
    models of the others say of it.
    """
    labels = [probe.words for probe in probes]
    if len(probes) < LEAST or min(Counter({True: 0, False: 0} | Counter(labels)).values()) < LEAST_OF_EACH:
        return None
    names = tuple(sorted(set.intersection(*(set(probe.features) for probe in probes)) - UNUSED))
    raw, target = _matrix([probe.features for probe in probes], names), torch.tensor(labels, dtype=torch.float64)
    mean, scale = raw.mean(dim=0), raw.std(dim=0).clamp_min(1e-6)
    inputs = _with_one((raw - mean) / scale)
    weight = torch.tensor([OWN_WEIGHT if probe.own else 1.0 for probe in probes], dtype=torch.float64)
    groups = ["own" if probe.own else probe.task for probe in probes]
    slope, offset = _calibration(inputs, target, weight, groups)
    return LogisticModel(
        names=names, mean=mean, scale=scale, low=raw.amin(dim=0), high=raw.amax(dim=0),
        coefficients=_logistic(inputs, target, weight, PENALTY), slope=slope, offset=offset,
    )  # fmt: skip


def _calibration(inputs: Tensor, target: Tensor, weight: Tensor, groups: Sequence[str]) -> tuple[float, float]:
    """Slope and offset of the logits that models of the other tasks give; (1, 0) for rows of a single task."""
    if len(set(groups)) < 2:
        return 1.0, 0.0
    logits = torch.zeros_like(target)
    for group in sorted(set(groups)):
        out = torch.tensor([one == group for one in groups])
        logits[out] = inputs[out] @ _logistic(inputs[~out], target[~out], weight[~out], PENALTY)
    fitted = _logistic(_with_one(logits[:, None]), target, weight, 1.0, around=1.0)
    return max(0.0, float(fitted[0])), float(fitted[1])


def _logistic(inputs: Tensor, target: Tensor, weight: Tensor, penalty: float, around: float = 0.0) -> Tensor:
    """Coefficients of least weighted NLL plus penalty/2 times their squared distance to `around`: [features + 1].

    By Newton's method; the intercept, last, is hardly penalised.
    """
    size = inputs.shape[1]
    prior = torch.full((size,), around, dtype=inputs.dtype)
    prior[-1] = 0
    ridge = torch.full((size,), penalty, dtype=inputs.dtype)
    ridge[-1] = 0.01
    found = prior.clone()
    for _ in range(STEPS):
        chance = torch.sigmoid(inputs @ found)
        slope = inputs.T @ (weight * (chance - target)) + ridge * (found - prior)
        curve = (inputs * (weight * chance * (1 - chance))[:, None]).T @ inputs + torch.diag(ridge)
        found = found - torch.linalg.solve(curve, slope).clamp(-4, 4)
    return found


def _kind(features: Mapping[str, float]) -> tuple[bool, bool]:
    return features["content"] == 1, features["style"] == 1


def _matrix(rows: Sequence[Mapping[str, float]], names: Sequence[str]) -> Tensor:
    return torch.tensor([[row[name] for name in names] for row in rows], dtype=torch.float64)


def _with_one(rows: Tensor) -> Tensor:
    return torch.cat([rows, torch.ones(len(rows), 1, dtype=rows.dtype)], dim=1)

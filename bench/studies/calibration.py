"""`python -m bench.studies.calibration`: how far the reward classifier's chances can be trusted, against its rules.

Reads tools/diagnosis/probes.jsonl and predicts each probed row's need by a model fitted without it: questions in five
folds, and whole tasks left out in turn. The truth: style where an edit brought the row's reward to 1; else content
where style held, both where it failed. Prints a table; draws reliability as an SVG.
"""

import argparse
import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from math import log
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from agent.records.signal import Need, Probe
from bench.plots import reliability, standalone
from memory.storage.disk import write_atomically
from tools.diagnosis.needs import NeedModel, fit, shipped_probes

FOLDS = 5
BINS = 10  # of equal mass


class Prediction(NamedTuple):
    """The chance of an event that was held out, and whether it happened."""

    chance: float
    true: bool


class NeedPrediction(NamedTuple):
    """The chance of each need of a held-out row, what the row turned out to need, and what the rules predict."""

    chances: dict[Need, float]
    need: Need
    by_rules: Need

    @property
    def likeliest(self) -> Need:
        return max(self.chances, key=self.chances.__getitem__)


class HeldOut(NamedTuple):
    """Predictions for held-out rows: whether words mend them, and which need they have.

    `unknown`: rows that the model left to the rules.
    """

    words: list[Prediction]
    needs: list[NeedPrediction]
    unknown: int


def hold_out(probes: Sequence[Probe], fold: Callable[[Probe], object]) -> HeldOut:
    """Predict each probed row by a model that was fitted to the rows of the other folds."""
    words, needs, unknown = list[Prediction](), list[NeedPrediction](), 0
    for held_out in sorted({fold(probe) for probe in probes}, key=str):
        model = NeedModel([probe for probe in probes if fold(probe) != held_out])
        for probe in (probe for probe in probes if fold(probe) == held_out):
            if not model.knows(probe.features):
                unknown += 1
                continue
            chances = model.chances(probe.features)
            true: Need = "style" if probe.words else "content" if probe.features["style"] == 1 else "both"
            words.append(Prediction(chances["style"], probe.words))
            needs.append(NeedPrediction(chances, true, probe.rules))
    return HeldOut(words, needs, unknown)


def calibration_error(predictions: Sequence[Prediction], bins: int = BINS) -> float:
    """Expected calibration error: mean distance of chance and frequency over bins of equal mass (Guo et al. 2017)."""
    errors = [len(part) * abs(fmean(p.chance - p.true for p in part)) for part in _bins(predictions, bins)]
    return sum(errors) / len(predictions)


def mean_nll(predictions: Sequence[Prediction]) -> float:
    """Mean negative log-likelihood of what happened, in nats per row."""
    return fmean(-log(max(p.chance if p.true else 1 - p.chance, 1e-9)) for p in predictions)


def base_rate(predictions: Sequence[Prediction]) -> list[Prediction]:
    """The predictions of somebody who knows nothing of a row but the share of all rows."""
    share = fmean(p.true for p in predictions)
    return [Prediction(share, p.true) for p in predictions]


def _bins(predictions: Sequence[Prediction], bins: int) -> Iterator[list[Prediction]]:
    ordered = sorted(predictions)
    edges = [len(ordered) * number // bins for number in range(bins + 1)]
    yield from (ordered[low:high] for low, high in itertools.pairwise(edges) if high > low)


def table(results: dict[str, HeldOut]) -> str:
    """Markdown: a line for each kind of fold and each question to the model."""
    names = (
        "held out", "question", "rows", "accuracy", "rules'", "commonest's", "ECE", "Brier", "NLL", "base rate's NLL",
    )  # fmt: skip
    head = f"| {' | '.join(names)} |\n|{'---|' * len(names)}"
    return "\n".join([head, *(line for fold, result in results.items() for line in _lines(fold, result))])


def _lines(fold: str, result: HeldOut) -> Iterator[str]:
    words, needs = result.words, result.needs
    if not words:
        return
    likeliest = [Prediction(row.chances[row.likeliest], row.likeliest == row.need) for row in needs]
    style = fmean(row.need == "style" for row in needs)
    common = max(style, 1 - style)  # accuracy of one answer for every row: words mend it, or they do not
    numbers = [
        fmean(p.true for p in likeliest),
        fmean(row.by_rules == row.need for row in needs),
        common,
        calibration_error(likeliest),
        fmean(sum((chance - (need == row.need)) ** 2 for need, chance in row.chances.items()) for row in needs),
        fmean(-log(max(row.chances[row.need], 1e-9)) for row in needs),
    ]
    yield f"| {fold} | which need | {len(likeliest)} | {' | '.join(f'{number:.3f}' for number in numbers)} | |"
    accuracy = fmean((p.chance > 0.5) == p.true for p in words)
    brier = fmean((p.chance - p.true) ** 2 for p in words)
    numbers = [common, calibration_error(words), brier, mean_nll(words), mean_nll(base_rate(words))]
    rest = " | ".join(f"{number:.3f}" for number in numbers)
    yield f"| {fold} | do words mend it | {len(words)} | {accuracy:.3f} | | {rest} |"


def draw(results: dict[str, HeldOut], file: Path) -> None:
    """Write an SVG of frequency over chance, in bins of equal mass."""
    points = {
        f"{fold} held out": [
            (fmean(p.chance for p in part), fmean(p.true for p in part)) for part in _bins(result.words, BINS)
        ]
        for fold, result in results.items()
    }
    drawing = reliability(points, "chance that words mend a row", "share of rows that words mended")
    write_atomically(file, standalone(drawing))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and draw the picture."""
    parser = argparse.ArgumentParser(prog="python -m bench.studies.calibration", description=__doc__)
    parser.add_argument("--picture", type=Path, default=Path("docs", "benchmarks", "reliability.svg"))
    options = parser.parse_args(arguments)
    probes = shipped_probes()
    # A set, since one question may have been probed under several pairs.
    questions = sorted({(probe.task, probe.example) for probe in probes})
    random.Random(0).shuffle(questions)
    folds = {question: number % FOLDS for number, question in enumerate(questions)}
    results = {
        "rows": hold_out(probes, lambda probe: folds[probe.task, probe.example]),
        "tasks": hold_out(probes, lambda probe: probe.task),
    }
    print(table(results))
    began = time.perf_counter()
    fit(probes)
    seconds = time.perf_counter() - began
    unknown = ", ".join(f"{result.unknown} with {fold} held out" for fold, result in results.items())
    print(
        f"\n{len(probes)} probed rows; fitted in {seconds:.3f} s; left to the rules: {unknown}; "
        f"ECE over {BINS} bins of equal mass."
    )
    draw(results, options.picture)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

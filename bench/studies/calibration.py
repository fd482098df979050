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


class Foretold(NamedTuple):
    """A held-out chance, and whether it came true."""

    chance: float
    true: bool


class Judged(NamedTuple):
    """What was said of held-out rows, and how it turned out."""

    words: list[Foretold]  # that words mend the row
    needs: list[tuple[dict[Need, float], Need, Need]]  # chances, the truth, and what the rules say
    unknown: int  # rows that the model left to the rules


def hold_out(probes: Sequence[Probe], fold: Callable[[Probe], object]) -> Judged:
    """Each probed row by a model that was fitted to the rows of the other folds."""
    judged = Judged([], [], 0)
    unknown = 0
    for out in sorted({fold(probe) for probe in probes}, key=str):
        needs = NeedModel([probe for probe in probes if fold(probe) != out])
        for probe in (probe for probe in probes if fold(probe) == out):
            if not needs.knows(probe.features):
                unknown += 1
                continue
            chances = needs.chances(probe.features)
            judged.words.append(Foretold(chances["style"], probe.words))
            judged.needs.append((chances, need_of(probe), probe.rules))
    return judged._replace(unknown=unknown)


def need_of(probe: Probe) -> Need:
    """What the row turned out to need."""
    return "style" if probe.words else "content" if probe.features["style"] == 1 else "both"


def calibration_error(foretold: Sequence[Foretold], bins: int = BINS) -> float:
    """Expected calibration error: mean distance of chance and frequency over bins of equal mass (Guo et al. 2017)."""
    return sum(len(some) * abs(fmean(f.chance - f.true for f in some)) for some in _bins(foretold, bins)) / len(
        foretold
    )


def nats_of(foretold: Sequence[Foretold]) -> float:
    """Mean negative log-likelihood of what came true, in nats a row."""
    return fmean(-log(max(f.chance if f.true else 1 - f.chance, 1e-9)) for f in foretold)


def base_rate(foretold: Sequence[Foretold]) -> list[Foretold]:
    """What somebody would predict who knows nothing of a row but the share of all that came true."""
    share = fmean(f.true for f in foretold)
    return [Foretold(share, f.true) for f in foretold]


def _bins(foretold: Sequence[Foretold], bins: int) -> Iterator[list[Foretold]]:
    ordered = sorted(foretold)
    edges = [len(ordered) * place // bins for place in range(bins + 1)]
    yield from (ordered[low:high] for low, high in itertools.pairwise(edges) if high > low)


def table(judged: dict[str, Judged]) -> str:
    """Markdown: a line for each way to hold out and each question asked of the model."""
    names = (
        "held out", "question", "rows", "accuracy", "rules'", "commonest's", "ECE", "Brier", "NLL", "base rate's NLL",
    )  # fmt: skip
    head = f"| {' | '.join(names)} |\n|{'---|' * len(names)}"
    return "\n".join([head, *(line for way, one in judged.items() for line in _lines(way, one))])


def _lines(way: str, judged: Judged) -> Iterator[str]:
    told = judged.words
    if told:
        likeliest = [(max(chances, key=lambda one: chances[one]), chances, true) for chances, true, _ in judged.needs]
        top = [Foretold(chances[said], said == true) for said, chances, true in likeliest]
        rules = fmean(said == true for _, true, said in judged.needs)
        spread = fmean(
            sum((chance - (need == true)) ** 2 for need, chance in chances.items()) for chances, true, _ in judged.needs
        )
        nats = fmean(-log(max(chances[true], 1e-9)) for chances, true, _ in judged.needs)
        right, common = fmean(f.true for f in top), _commonest(judged)
        numbers = f"{right:.3f} | {rules:.3f} | {common:.3f} | {calibration_error(top):.3f} | {spread:.3f} | {nats:.3f}"
        yield f"| {way} | which need | {len(top)} | {numbers} | |"
        right = fmean((f.chance > 0.5) == f.true for f in told)
        brier = fmean((f.chance - f.true) ** 2 for f in told)
        numbers = f"{right:.3f} | | {common:.3f} | {calibration_error(told):.3f} | {brier:.3f} | {nats_of(told):.3f}"
        yield f"| {way} | do words mend it | {len(told)} | {numbers} | {nats_of(base_rate(told)):.3f} |"


def _commonest(judged: Judged) -> float:
    """Accuracy of saying the same of every row, that words mend it or that they do not: the better of the two."""
    share = fmean(true == "style" for _, true, _ in judged.needs)
    return max(share, 1 - share)


def draw(judged: dict[str, Judged], file: Path) -> None:
    """Write an SVG of frequency over chance, in bins of equal mass."""
    points = {
        f"{way} held out": [
            (fmean(f.chance for f in rows), fmean(f.true for f in rows)) for rows in _bins(one.words, BINS)
        ]
        for way, one in judged.items()
    }
    drawing = reliability(points, "chance that words mend a row", "share of rows that words mended")
    write_atomically(file, standalone(drawing))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, and draw the picture where it can be drawn."""
    parser = argparse.ArgumentParser(prog="python -m bench.studies.calibration", description=__doc__)
    parser.add_argument("--picture", type=Path, default=Path("docs", "benchmarks", "reliability.svg"))
    given = parser.parse_args(arguments)
    probes = shipped_probes()
    questions = sorted({(probe.task, probe.example) for probe in probes})  # one may have been probed under many pairs
    random.Random(0).shuffle(questions)
    folds = {question: place % FOLDS for place, question in enumerate(questions)}
    ways = {
        "rows": hold_out(probes, lambda probe: folds[probe.task, probe.example]),
        "tasks": hold_out(probes, lambda probe: probe.task),
    }
    print(table(ways))
    began = time.perf_counter()
    fit(probes)
    print(f"\n{len(probes)} probed rows; fitted in {time.perf_counter() - began:.3f} s; "
          f"left to the rules: {ways['rows'].unknown} with rows held out, {ways['tasks'].unknown} with tasks held out; "
          f"ECE over {BINS} bins of equal mass.")  # fmt: skip
    draw(ways, given.picture)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

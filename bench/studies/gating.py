"""How often the gate keeps a change that is worth nothing, and one that is worth something: simulated runs.

    python -m bench.studies.gating [RUNS]

Rows have a difficulty, drawn once for each run. A prompt's answer to a row is right by chance, which depends on the
row's difficulty and the prompt's worth, and then stays the same. Each round compares six proposals and the present
prompt on some rows, and the product's own gate judges the best of them, with the likelihood.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agent.records.evaluation import Evaluation, ExampleScore
from agent.records.examples import Candidate
from agent.records.rounds import Verdict
from eval.alpha_spending import alpha_to_spend
from eval.gate import deciding_rows, gate, least_p

ALPHA = 0.1
VALIDATION, COMPARED, HELD_OUT = 32, 12, 8  # rows
NONE = (0.0,) * 6
NATS = 0.3  # gain in nats per token for a worth of 1, and standard deviation between prompts
WORTH = (1.0, 0.7, 0.5, 0.3, 0.0, -0.5)  # of six proposals, times the strength; in log-odds of a right answer

Rows = Literal["shared", "train", "held out"]  # those that proposals are compared on
Scores = tuple[NDArray[np.float64], NDArray[np.float64]]  # content and style


class Kind(NamedTuple):
    """Content and style of a prompt on N rows, from their difficulties [N, 2] and its worth, both in log-odds."""

    name: str
    draw: Callable[[np.random.Generator, NDArray[np.float64], float], Scores]


def _binary(random: np.random.Generator, rows: NDArray[np.float64], worth: float) -> Scores:
    content, style = (random.random((2, len(rows))) < _share(rows + worth).T).astype(float)
    return content, style


def _graded(random: np.random.Generator, rows: NDArray[np.float64], worth: float) -> Scores:
    """Content between 0 and 1, as an F1 is."""
    content = np.clip(_share(rows[:, 0] + worth) + random.normal(0, 0.3, len(rows)), 0, 1)
    return content, (random.random(len(rows)) < _share(rows[:, 1] + worth)).astype(float)


def _styled(random: np.random.Generator, rows: NDArray[np.float64], worth: float) -> Scores:
    """The content of a row never changes; only its style does."""
    return (rows[:, 0] > 0).astype(float), (random.random(len(rows)) < _share(rows[:, 1] + worth)).astype(float)


KINDS = (Kind("right or wrong", _binary), Kind("graded", _graded), Kind("style only", _styled))


def _share(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-log_odds))


class Drawn(NamedTuple):
    """A prompt's content and style on validation and train rows, and the NLL of the validation references."""

    validation: Scores
    train: Scores
    nats: NDArray[np.float64]


class Run:
    """A run of edit rounds on one set of rows.

    Args:
        compared_on: validation rows that the gate decides on too (as it was once); train rows; or validation rows that
            the gate leaves out.
        spends: whether alpha is spent over the run; else every round is tested at alpha (as it was once).
    """

    def __init__(self, kind: Kind, compared_on: Rows, seed: int, spends: bool = True) -> None:
        self._random = np.random.default_rng(seed)
        self._kind, self._compared_on, self._spends = kind, compared_on, spends
        self._rows = self._random.normal(0, 1.5, (VALIDATION, 2))
        self._train = self._random.normal(0, 1.5, (COMPARED, 2))
        self._worth, self._present = 0.0, self._drawn(0.0)
        self.verdicts: list[Verdict] = []

    def round(self, worths: Sequence[float]) -> bool:
        """Whether a round with proposals of these worths, relative to the present prompt's, keeps its best."""
        proposals = [self._drawn(self._worth + worth) for worth in worths]
        best = int(np.argmax([self._merit_of(drawn) for drawn in (self._present, *proposals)]))
        if best == 0:
            return False
        names = [_name(place) for place in range(HELD_OUT)] if self._compared_on == "held out" else []
        pairs = {"before": self._present, "after": proposals[best - 1]}
        before, after = (deciding_rows(_evaluation(name, drawn.validation), names) for name, drawn in pairs.items())
        most = alpha_to_spend(ALPHA, self.verdicts, least_p(before)) if self._spends else ALPHA

        def reference_nll(pair: Evaluation) -> list[float]:
            nats = pairs[pair.candidate.prompt].nats
            return [float(nats[int(score.example.partition(":")[2])]) for score in pair.scores]

        verdict = gate(before, after, most, reference_nll)
        self.verdicts.append(verdict)
        if verdict.kept:
            self._worth, self._present = self._worth + worths[best - 1], proposals[best - 1]
        return verdict.kept

    def _merit_of(self, drawn: Drawn) -> float:
        """Mean merit on the rows that proposals are compared on."""
        if self._compared_on == "train":
            return float(_merit(*drawn.train).mean())
        return float(_merit(*drawn.validation)[: HELD_OUT if self._compared_on == "held out" else COMPARED].mean())

    def _drawn(self, worth: float) -> Drawn:
        validation, train = (self._kind.draw(self._random, rows, worth) for rows in (self._rows, self._train))
        nats = 3 - sum(validation) / 2 - NATS * worth + self._random.normal(0, NATS, len(self._rows))
        return Drawn(validation, train, nats)


def _name(place: int) -> str:
    return f"validation:{place}"


def _merit(content: NDArray[np.float64], style: NDArray[np.float64]) -> NDArray[np.float64]:
    return (content * style + content + style) / 3


def _evaluation(prompt: str, scores: Scores) -> Evaluation:
    rows = enumerate(zip(*(part.tolist() for part in scores), strict=True))
    return Evaluation(
        candidate=Candidate(prompt=prompt),
        split="validation",
        scores=tuple(
            ExampleScore(example=_name(place), output="", content=content, style=style)
            for place, (content, style) in rows
        ),
    )


def false_keeps(kind: Kind, compared_on: Rows, spends: bool, runs: int, rounds: int = 12) -> tuple[float, float]:
    """If all prompts are equally good: the share of rounds that keep a change, and of runs that do so at least once."""
    kept = [[run.round(NONE) for _ in range(rounds)] for run in _runs(kind, compared_on, spends, runs)]
    return float(np.mean(kept)), float(np.mean([any(run) for run in kept]))


def power(kind: Kind, compared_on: Rows, spends: bool, runs: int, strength: float, after: int = 0) -> float:
    """Share of runs that keep one of six proposals of different worth, after so many rounds of worthless proposals."""
    found = 0
    for run in _runs(kind, compared_on, spends, runs):
        for _ in range(after):
            run.round(NONE)
        found += run.round([strength * worth for worth in WORTH])
    return found / runs


def _runs(kind: Kind, compared_on: Rows, spends: bool, runs: int) -> list[Run]:
    return [Run(kind, compared_on, seed, spends) for seed in range(runs)]


PROCEDURES: tuple[tuple[str, Rows, bool], ...] = (
    ("shared rows, alpha each round", "shared", False),
    ("train rows, alpha each round", "train", False),
    ("held-out rows, alpha each round", "held out", False),
    ("**train rows, alpha over the run**", "train", True),
    ("**held-out rows, alpha over the run**", "held out", True),
)


def main(runs: int) -> None:
    print(f"alpha {ALPHA}, {VALIDATION} validation rows, {runs} runs each\n")
    print("| answers | proposals compared on | false keeps a round | runs of 12 rounds with one | found: weak "
          "| found: strong | strong, after 3 empty rounds |\n|---|---|---|---|---|---|---|")  # fmt: skip
    for kind in KINDS:
        for name, compared_on, spends in PROCEDURES:
            by_round, by_run = false_keeps(kind, compared_on, spends, runs)
            found = [power(kind, compared_on, spends, runs, *strength) for strength in ((1.2, 0), (2.4, 0), (2.4, 3))]
            shares = " | ".join(f"{share:.2f}" for share in found)
            print(f"| {kind.name} | {name} | {by_round:.3f} | {by_run:.2f} | {shares} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.studies.gating", description=__doc__.partition("\n")[0])
    parser.add_argument("runs", type=int, nargs="?", default=400, metavar="RUNS", help="of each line (default: 400)")
    main(parser.parse_args().runs)

"""What the gate keeps of changes that are worth nothing, and of those that are worth something: simulated runs.

    python -m bench.studies.gating [RUNS]

Rows have a difficulty of their own, drawn once a run; a prompt's answer to a row comes right by chance, as its
difficulty and the prompt's worth have it, and stays as it is. Each round six proposals and the present prompt are
compared on some rows, and the best is judged by the product's own gate, likelihood and all.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agent.records.evaluation import Evaluation, ExampleScore
from agent.records.examples import Candidate
from agent.records.rounds import Verdict
from eval.alpha_spending import alpha_to_spend
from eval.gate import deciding_rows, gate

ALPHA = 0.1
VALIDATION, RACED, HELD_OUT = 32, 12, 8
NONE = (0.0,) * 6
NATS = 0.3  # by which a log-odds of worth makes a reference likelier, and by which it differs from prompt to prompt
WORTH = (1.0, 0.7, 0.5, 0.3, 0.0, -0.5)  # of six proposals, times the strength; in log-odds of a right answer

Race = Literal["shared", "train", "held out"]
Scores = tuple[NDArray[np.float64], NDArray[np.float64]]  # content and style


class Kind(NamedTuple):
    """How content and style of one prompt come out on rows, by their difficulties [N, 2] and its worth in log-odds."""

    name: str
    draw: Callable[[np.random.Generator, NDArray[np.float64], float], Scores]


def _binary(chance: np.random.Generator, rows: NDArray[np.float64], worth: float) -> Scores:
    content, style = (chance.random((2, len(rows))) < _share(rows + worth).T).astype(float)
    return content, style


def _graded(chance: np.random.Generator, rows: NDArray[np.float64], worth: float) -> Scores:
    """Content as of an F1, anything from 0 to 1."""
    content = np.clip(_share(rows[:, 0] + worth) + chance.normal(0, 0.3, len(rows)), 0, 1)
    return content, (chance.random(len(rows)) < _share(rows[:, 1] + worth)).astype(float)


def _styled(chance: np.random.Generator, rows: NDArray[np.float64], worth: float) -> Scores:
    """What is known is known; only the form changes."""
    return (rows[:, 0] > 0).astype(float), (chance.random(len(rows)) < _share(rows[:, 1] + worth)).astype(float)


KINDS = (Kind("right or wrong", _binary), Kind("graded", _graded), Kind("style only", _styled))


def _share(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-log_odds))


class Drawn(NamedTuple):
    """How a prompt does: content and style on validation and on train rows, and the references' NLL on the former."""

    validation: Scores
    train: Scores
    nats: NDArray[np.float64]


class Run:
    """A run of edit rounds on one set of rows.

    Args:
        race: where proposals are compared: on validation rows that then decide, too (as it was once); on train rows;
            on validation rows that are held out of the decision.
        spends: whether alpha is spent over the run, or every round is tested at alpha (as it was once).
    """

    def __init__(self, kind: Kind, race: Race, seed: int, spends: bool = True) -> None:
        self._chance = np.random.default_rng(seed)
        self._kind, self._race, self._spends = kind, race, spends
        self._rows = self._chance.normal(0, 1.5, (VALIDATION, 2))
        self._train = self._chance.normal(0, 1.5, (RACED, 2))
        self._worth, self._present = 0.0, self._drawn(0.0)
        self.verdicts: list[Verdict] = []

    def round(self, worths: Sequence[float]) -> bool:
        """Whether a round with proposals of these worths, beside the present prompt's, keeps its best."""
        proposals = [self._drawn(self._worth + worth) for worth in worths]
        best = int(np.argmax([self._raced(drawn) for drawn in (self._present, *proposals)]))
        if best == 0:
            return False
        names = [_name(place) for place in range(HELD_OUT)] if self._race == "held out" else []
        pairs = {"before": self._present, "after": proposals[best - 1]}
        before, after = (deciding_rows(_evaluation(name, drawn.validation), names) for name, drawn in pairs.items())
        most = alpha_to_spend(ALPHA, self.verdicts) if self._spends else ALPHA
        verdict = gate(before, after, most, lambda pair: _likelihood(pairs[pair.candidate.prompt], pair))
        self.verdicts.append(verdict)
        if verdict.kept:
            self._worth, self._present = self._worth + worths[best - 1], proposals[best - 1]
        return verdict.kept

    def _raced(self, drawn: Drawn) -> float:
        """Mean merit on the rows of the race."""
        if self._race == "train":
            return float(_merit(*drawn.train).mean())
        return float(_merit(*drawn.validation)[: HELD_OUT if self._race == "held out" else RACED].mean())

    def _drawn(self, worth: float) -> Drawn:
        validation, train = (self._kind.draw(self._chance, rows, worth) for rows in (self._rows, self._train))
        nats = 3 - sum(validation) / 2 - NATS * worth + self._chance.normal(0, NATS, len(self._rows))
        return Drawn(validation, train, nats)


def _name(place: int) -> str:
    return f"validation:{place}"


def _likelihood(drawn: Drawn, pair: Evaluation) -> list[float]:
    return [float(drawn.nats[int(score.example.partition(":")[2])]) for score in pair.scores]


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


def false_keeps(kind: Kind, race: Race, spends: bool, runs: int, rounds: int = 12) -> tuple[float, float]:
    """Where all prompts are equally good: the share of rounds that keep one, and of runs that do at least once."""
    kept = [[run.round(NONE) for _ in range(rounds)] for run in _runs(kind, race, spends, runs)]
    return float(np.mean(kept)), float(np.mean([any(run) for run in kept]))


def power(kind: Kind, race: Race, spends: bool, runs: int, strength: float, after: int = 0) -> float:
    """Share of runs that keep one of six proposals of different worth, after so many rounds that had none of worth."""
    found = 0
    for run in _runs(kind, race, spends, runs):
        for _ in range(after):
            run.round(NONE)
        found += run.round([strength * worth for worth in WORTH])
    return found / runs


def _runs(kind: Kind, race: Race, spends: bool, runs: int) -> list[Run]:
    return [Run(kind, race, seed, spends) for seed in range(runs)]


WAYS: tuple[tuple[str, Race, bool], ...] = (
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
        for name, race, spends in WAYS:
            by_round, by_run = false_keeps(kind, race, spends, runs)
            found = [power(kind, race, spends, runs, *how) for how in ((1.2, 0), (2.4, 0), (2.4, 3))]
            told = " | ".join(f"{share:.2f}" for share in found)
            print(f"| {kind.name} | {name} | {by_round:.3f} | {by_run:.2f} | {told} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400)

"""Is it worth choosing among a run's pairs question by question? `python -m bench.studies.routing RUN …`

A run's kept pairs are all there; on the sealed test rows of finished runs, the best pair on all rows stands beside a
router that asks, for each question, which pair did best on the nearest validation questions.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from agent.records.evaluation import Evaluation
from eval.stats import sign_flip
from graphs.context import Context
from graphs.services.run import RunServices
from memory.embedder import MiniLm
from memory.run.folder import RunFolder

NEAREST = 3


class Compared(NamedTuple):
    """Test rewards row by row: of the best pair, of the router, and of a choice that knows each row's answer."""

    best: list[float]
    routed: list[float]
    seeing: list[float]


def compared(run: RunFolder, pool: str = "") -> Compared:
    """Every kept pair of a finished run on its test rows, and the three ways to choose among them, row by row."""
    context = RunServices(Context(run=str(run.path), pool=pool))
    outcome, first = run.outcome(), run.baseline()
    assert outcome and first, f"{run.name} has not finished"
    pairs = list(dict.fromkeys([first.seed, first.best, *(row.best for row in run.rounds()), outcome.best]))
    known = [context.evaluate(pair, "validation") for pair in pairs]
    tested = [context.evaluate.open_test(pair) for pair in pairs]
    near = _nearest(context)
    chosen = [route(known, rows, pairs.index(outcome.best)) for rows in near]
    rewards = [[score.reward for score in evaluation.scores] for evaluation in tested]
    return Compared(
        best=rewards[pairs.index(outcome.best)],
        routed=[rewards[pair][row] for row, pair in enumerate(chosen)],
        seeing=[max(of_row) for of_row in zip(*rewards, strict=True)],
    )


def route(known: Sequence[Evaluation], rows: Sequence[int], best: int) -> int:
    """The pair with the highest mean reward on these validation rows; the best on all rows among equals."""
    means = [fmean(evaluation.scores[row].reward for row in rows) for evaluation in known]
    return best if means[best] == max(means) else means.index(max(means))


def _nearest(context: RunServices) -> list[list[int]]:
    """For each test question, the places of the NEAREST validation questions."""
    import numpy as np

    task, embed = context.spec, MiniLm()
    asked = np.array(embed([row.question for row in task.test]))
    there = np.array(embed([row.question for row in task.validation]))
    return [list(map(int, order[:NEAREST])) for order in np.argsort(-asked @ there.T, axis=1)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line a run and the paired test over all."""
    parser = argparse.ArgumentParser(prog="python -m bench.studies.routing", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs; `pool` beside one is used")
    differences = []  # of runs: the same test rows come back under other seeds, and are no news then
    for path in parser.parse_args(arguments).runs:
        pool = path.parent / "pool"
        found = compared(RunFolder.open(path), str(pool) if pool.is_dir() else "")
        best, routed, seeing = (fmean(rewards) for rewards in found)
        differences.append(routed - best)
        print(f"{path}: best pair {best:.3f}, routed {routed:.3f}, a choice that sees the answer {seeing:.3f}")
    mean, worse = fmean(differences), sign_flip([-difference for difference in differences])
    print(f"routed less best: {mean:+.4f} (p = {sign_flip(differences):.3f} better, {worse:.3f} worse)")
    return 0


if __name__ == "__main__":
    sys.exit(main())

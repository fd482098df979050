"""The oracle: the levers that a greedy search finds in hindsight. Policies are held against it.

No bound: it looks one round ahead, and chooses by validation rows as they do.
"""

from collections.abc import Callable
from statistics import fmean

from agent.records.examples import Candidate
from bench.decisions.run_variant import before_test
from memory.run.folder import RunFolder

LEVERS = "por"  # an edit, weights on rows as given, weights on refined rows


def best_run(rounds: int, target: float, play: Callable[[str], RunFolder]) -> RunFolder:
    """The run of the steps that a greedy search ends with; what it cost to find them is nobody's.

    At each depth every lever is tried after the steps kept so far. Of those that changed the pair, the one with the
    highest validation reward is kept; ties go to merit, then to the cheaper.

    Args:
        play: the finished run of these steps, one letter of `LEVERS` a round (policy `steps …`).
    """
    steps, best = "", None
    while len(steps) < rounds:
        tried = {steps + lever: play(steps + lever) for lever in LEVERS}
        before = _pair(best) if best else None
        changed = {name: run for name, run in tried.items() if _pair(run) != (before or _seed(run))}
        if not changed:
            return best or tried[steps + LEVERS[0]]
        steps, best = max(changed.items(), key=lambda one: _worth(one[1]))
        if _reward(best) >= target:
            return best
    assert best is not None, "a task has at least one round"
    return best


def _worth(run: RunFolder) -> tuple[float, float, float]:
    """Compared in this order; rounded, so that sums in another order are no difference."""
    outcome = run.outcome()
    assert outcome is not None, "steps are played to their end"
    merits = [score.merit for score in run.load(outcome.best, "validation").scores.values()]
    return round(_reward(run), 9), round(fmean(merits), 9), -before_test(run).forward_tokens


def _reward(run: RunFolder) -> float:
    first, rounds = run.baseline(), run.rounds()
    assert first is not None, "a finished run has a baseline"
    return rounds[-1].reward if rounds else first.reward


def _pair(run: RunFolder) -> Candidate:
    outcome = run.outcome()
    assert outcome is not None, "steps are played to their end"
    return outcome.best


def _seed(run: RunFolder) -> Candidate:
    first = run.baseline()
    assert first is not None, "a finished run has a baseline"
    return first.best

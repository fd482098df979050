"""How much of alpha a test may spend, so that a whole run keeps a worthless change with no more than that chance."""

from collections.abc import Iterable

from agent.records.rounds import Verdict

SHARE = 1 / 3  # of what is left; larger: early rounds keep more and late ones less


def alpha_to_spend(alpha: float, earlier: Iterable[Verdict]) -> float:
    """The largest p-value with which the next trial is kept.

    A test spends a third of what is left of alpha; one that keeps its trial gives it back. So, however many rounds
    follow, the chance that a run keeps any change that is worth nothing is at most alpha, if each p-value holds given
    the verdicts before it (the online graph of Tian & Ramdas 2021, "Online control of the familywise error rate", with
    geometric weights). Here the same rows judge every round. A pair that they once favoured is hard to beat on them, so
    that makes the gate stricter: see the simulation in bench/studies/gating.py.

    Args:
        earlier: the verdicts of the run so far. Those without a level tested nothing, and spent nothing. A trial that
            passed its test, and was taken back for what it forgets, gives back what it spent: keeping fewer trials than
            passed makes no false keep likelier.
    """
    failed = [verdict for verdict in earlier if not (verdict.kept or verdict.overruled)]
    spent = sum(verdict.level for verdict in failed if verdict.level is not None)
    return max(0.0, alpha - spent) * SHARE

"""How much of alpha a test may spend, so that a whole run keeps a worthless change with no more than that chance."""

from collections.abc import Iterable

from agent.records.rounds import Verdict

SHARE = 1 / 3  # of what is left; larger: early rounds keep more and late ones less
MOST = 1 / 2  # of what is left, where a test at a third could not succeed


def alpha_to_spend(alpha: float, earlier: Iterable[Verdict], least: float = 0.0) -> float:
    """The largest p-value with which the next trial is kept.

    A test spends a third of what is left of alpha, or up to half of it where a third would be wasted: with five rows
    left to mend, no p-value is below 1/32. One that keeps its trial gives it back. So, however many rounds
    follow, the chance that a run keeps any change that is worth nothing is at most alpha, if each p-value holds given
    the verdicts before it (the online graph of Tian & Ramdas 2021, "Online control of the familywise error rate", with
    geometric weights). Here the same rows judge every round. A pair that they once favoured is hard to beat on them, so
    that makes the gate stricter: see the simulation in bench/studies/gating.py.

    Args:
        earlier: the verdicts of the run so far. Those without a level tested nothing, and spent nothing. A trial that
            passed its test, and was taken back for what it forgets, gives back what it spent: keeping fewer trials than
            passed makes no false keep likelier.
        least: the smallest p-value that the test can give, known from the pair before the trial (`eval.gate.least_p`).
            So levels still depend on nothing that the trial's own p-value depends on.
    """
    failed = [verdict for verdict in earlier if not (verdict.kept or verdict.overruled)]
    spent = sum(verdict.level for verdict in failed if verdict.level is not None)
    left = max(0.0, alpha - spent)
    return max(left * SHARE, least if least <= left * MOST else 0.0)

"""How much of alpha a test may spend, so that a whole run keeps a worthless change with no more than that chance."""

from collections.abc import Iterable

from agent.rounds import Verdict

SHARE = 1 / 3  # of what is left; larger: early rounds keep more and late ones less


def level(alpha: float, earlier: Iterable[Verdict]) -> float:
    """The largest p-value with which the next trial is kept.

    A test spends a third of what is left of alpha; one that keeps its trial gives it back. However many rounds follow,
    and whatever they are decided by, the chance that a run keeps any change that is worth nothing is at most alpha
    (the online graph of Tian & Ramdas 2021, "Online control of the familywise error rate", with geometric weights).

    Args:
        earlier: the verdicts of the run so far. Those without a level tested nothing, and spent nothing.
    """
    spent = sum(verdict.level for verdict in earlier if verdict.level is not None and not verdict.kept)
    return max(0.0, alpha - spent) * SHARE

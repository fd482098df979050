"""What a round comes to whose action was broken off, by a user or a budget: a row that says so, and changes nothing."""

from agent.records.rounds import Trial, Verdict
from graphs.state import State

CANCELLED = "Cancelled by the user."


def cancelled_trial(state: State, judged: bool, why: str = CANCELLED) -> State:
    """The trial, which has nothing to keep; and, where it came to be judged, the verdict on it.

    Args:
        judged: the lever has made its trial: what that took stays charged to it.
        why: who or what broke it off, in a sentence.
    """
    trial = Trial(candidate=None, note=why, cancelled=True)
    if not judged:
        return {"trial": trial}
    reward = state["signal"].reward
    verdict = Verdict(kept=False, reason=why, before=reward, after=reward, p_value=1.0)
    return {"trial": trial.model_copy(update={"spend": state["trial"].spend}), "verdict": verdict}

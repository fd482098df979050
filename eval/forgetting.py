"""What new weights have lost elsewhere, against what they may lose: on general text, and on tasks to be kept."""

from typing import Literal

from agent.config.task import Gate
from agent.counting import plural
from agent.records.rounds import KeptScore, Verdict

UNMEASURED = "what it forgets could not be measured: the general text does not fit into the model's window"


def object_to_forgetting(verdict: Verdict, allowed: Gate) -> Verdict:
    """The verdict by rewards, with the objections to what the trial's weights lose; any of them takes the trial back.

    A drift above the budget is allowed where it is no more than the best pair's.

    Args:
        verdict: with `drift`, `drift_before` and `keep` as measured.
        allowed: `gate:` of the task.
    """
    if too_forgetful(verdict, allowed.drift):
        limit = f"gate.drift allows {allowed.drift:g}"
        verdict = _objected(verdict, "drift", f"it forgets {verdict.drift:.3g} nats a token on general text; {limit}")
    elif verdict.drift is None and allowed.drift is not None:
        verdict = verdict.model_copy(update={"reason": f"{verdict.reason} ({UNMEASURED})"})
    fallen = [score for score in verdict.keep if score.base - score.reward > allowed.keep_tolerance + 1e-9]
    if fallen:
        falls = " and ".join(map(in_words, fallen))
        limit = f"gate.keep_tolerance allows a fall of {allowed.keep_tolerance:g}"
        verdict = _objected(verdict, "keep", f"it falls on {falls}; {limit}")
    return verdict


def too_forgetful(verdict: Verdict, budget: float | None) -> bool:
    """Whether the trial drifts beyond the budget, and further than the best pair."""
    if budget is None or verdict.drift is None:
        return False
    return verdict.drift > max(budget, verdict.drift_before or 0.0)


def in_words(score: KeptScore) -> str:
    """The task and its two rewards, on how many rows."""
    return f"{score.task} from {score.base:.2f} to {score.reward:.2f} on {plural(score.rows, 'row')}"


def _objected(verdict: Verdict, objection: Literal["drift", "keep"], why: str) -> Verdict:
    overruled = verdict.kept or verdict.overruled
    link = "; taken back: " if verdict.kept else ", and " if verdict.objection else "; also, "
    return verdict.model_copy(
        update={
            "kept": False,
            "objection": verdict.objection or objection,
            "overruled": overruled,
            "reason": f"{verdict.reason}{link}{why}",
        }
    )

"""The node that judges: whether the trial's pair stands in place of the best pair."""

from typing import Any

from agent.moves import Rollback
from agent.records import Evaluation
from agent.rounds import Verdict
from graphs.context import Context
from graphs.state import State, decided, metered


@metered
def judge(state: State, context: Context) -> dict[str, Any]:
    """The gate: the trial's pair against the best pair, paired on the validation rows that did not choose it."""
    before, trial = context.evaluate(state["best"], "validation"), state["trial"]
    if trial.candidate is None:
        reward = before.reward
        return {"verdict": Verdict(kept=False, reason=trial.note, before=reward, after=reward, p_value=1.0)}
    after = context.evaluate(trial.candidate, "validation")
    if isinstance(decided(state).move, Rollback) and decided(state).by == "user":
        verdict = Verdict(kept=True, reason="Asked for.", before=before.reward, after=after.reward, p_value=1.0)
        return {"verdict": verdict}
    verdict = out_of_window(_gate(before, after, state, context), before, after)
    if "gate" in context.spec.config.without:
        verdict = verdict.model_copy(update={"kept": True, "reason": f"kept without a gate: {verdict.reason}"})
    return {"verdict": verdict}


def out_of_window(verdict: Verdict, before: Evaluation, after: Evaluation) -> Verdict:
    """The verdict, telling of rows that only the trial's longer prompt makes too long for the model's window."""
    lost = after.too_long - before.too_long
    if lost <= 0:
        return verdict
    reason = (
        f"{verdict.reason} ({lost} rows no longer fit into the model's window under this prompt and count as wrong)"
    )
    return verdict.model_copy(update={"reason": reason})


def _gate(before: Evaluation, after: Evaluation, state: State, context: Context) -> Verdict:
    from eval import stats
    from eval.levels import level

    most = level(context.spec.config.gate.alpha, _earlier(state, context))
    before, after = (stats.deciding(pair, state["trial"].raced) for pair in (before, after))
    verdict = stats.judge(before, after, most, _simpler(context, state))
    if not verdict.kept and stats.too_few_to_tell(before, after, most):
        names = [score.example for score in before.scores]
        nats_before, nats_after = (context.evaluate.surprise(pair.candidate, names) for pair in (before, after))
        verdict = stats.corroborate(verdict, nats_before, nats_after, most)
    return verdict


def _earlier(state: State, context: Context) -> list[Verdict]:
    """All verdicts of the run before this round."""
    first, rounds = context.folder.baseline(), context.folder.rounds()[: state["number"]]
    return [*([first.verdict] if first and first.verdict else []), *(row.verdict for row in rounds)]


def _simpler(context: Context, state: State) -> bool:
    best, trial = state["best"], state["trial"].candidate
    if trial is None or trial.adapter != best.adapter:
        return False
    return context.folder.prompt(trial.prompt).length < context.folder.prompt(best.prompt).length

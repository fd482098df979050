"""The node that judges: whether the trial's pair becomes the best pair."""

from collections import Counter
from collections.abc import Sequence

from agent.counting import plural
from agent.reasoning import spoken
from agent.records.actions import Rollback
from agent.records.evaluation import Evaluation
from agent.records.rounds import SameAnswer, Verdict
from graphs.services.run import RunServices
from graphs.state import State, decided

ALIKE = 0.9  # share of the answered rows with one and the same answer from which on a user is told


def judge(state: State, services: RunServices) -> State:
    """The gate: the trial's pair against the best pair, paired on the validation rows that did not choose it."""
    before, trial = services.evaluate(state["best"], "validation"), state["trial"]
    if trial.candidate is None:
        reward = before.reward
        return {"verdict": Verdict(kept=False, reason=trial.note, before=reward, after=reward, p_value=1.0)}
    after = services.evaluate(trial.candidate, "validation")
    if isinstance(decided(state).move, Rollback) and decided(state).by == "user":
        verdict = Verdict(
            kept=True, reason="The user asked for it.", before=before.reward, after=after.reward, p_value=1.0
        )
        return {"verdict": verdict}
    trial = trial.model_copy(update={"same_answer": same_answer(after)})
    return {"verdict": _compared(before, after, trial.raced, state, services), "trial": trial}


def same_answer(pair: Evaluation) -> SameAnswer | None:
    """The one answer that a pair gives to nearly all rows; None where it does not, or is right with that."""
    answers = [spoken(score.output).strip() for score in pair.scores if not score.too_long]
    if pair.reward == 1 or len(answers) < 2:
        return None
    answer, rows = Counter(answers).most_common(1)[0]
    return SameAnswer(answer=answer, rows=rows, answered=len(answers)) if rows >= ALIKE * len(answers) else None


def _compared(
    before: Evaluation, after: Evaluation, compared_on: Sequence[str], state: State, services: RunServices
) -> Verdict:
    """The gate's verdict on a pair that was chosen on the rows of these names, and what new weights forget."""
    earlier, prompt = earlier_verdicts(state, services), services.folder.prompt
    best, trial = before.candidate, after.candidate
    # The same weights under a cheaper prompt win a tie, and so do weights that forget less.
    if trial.adapter == best.adapter:
        is_simpler = prompt(trial.prompt).price < prompt(best.prompt).price
        return gate(before, after, compared_on, earlier, services, is_simpler)
    is_simpler = services.forgetting.forgets_less(trial.adapter, best.adapter)
    verdict = gate(before, after, compared_on, earlier, services, is_simpler)
    return weigh_forgetting(verdict, trial.adapter, best.adapter, services)


def weigh_forgetting(verdict: Verdict, adapter: str | None, present: str | None, services: RunServices) -> Verdict:
    """The verdict with what new weights have lost elsewhere; where that is too much, the trial is taken back."""
    from eval.forgetting import object_to_forgetting

    forgetting, config = services.forgetting, services.spec.config
    lost = {
        "drift": forgetting.drift(adapter),
        "drift_before": forgetting.drift(present),
        "keep": forgetting.kept(adapter),
    }
    verdict = verdict.model_copy(update=lost)
    return verdict if "gate" in config.without else object_to_forgetting(verdict, config.gate)


def gate(
    before: Evaluation,
    after: Evaluation,
    compared_on: Sequence[str],
    earlier: Sequence[Verdict],
    services: RunServices,
    simpler: bool = False,
) -> Verdict:
    """The verdict on a pair that was chosen on the rows of these names, after these verdicts of the run."""
    from eval.alpha_spending import alpha_to_spend
    from eval.gate import deciding_rows, least_p
    from eval.gate import gate as compare

    def reference_nll(pair: Evaluation) -> Sequence[float | None]:
        return services.evaluate.reference_nll(pair.candidate, [score.example for score in pair.scores])

    old, new = (deciding_rows(pair, compared_on) for pair in (before, after))
    most = alpha_to_spend(services.spec.config.gate.alpha, earlier, least_p(old))
    verdict = with_remarks(compare(old, new, most, reference_nll, simpler), before, after)
    if "gate" in services.spec.config.without:
        return verdict.model_copy(update={"kept": True, "reason": f"kept without a gate: {verdict.reason}"})
    return verdict


def with_remarks(verdict: Verdict, before: Evaluation, after: Evaluation) -> Verdict:
    """The verdict, with remarks on rows that had no say, and on rows that the trial's longer prompt makes too long."""
    reason, lost = verdict.reason, after.too_long - before.too_long
    if verdict.rows is not None and verdict.rows < len(after.scores):
        reason += f" (on the {plural(verdict.rows, 'row')} that did not choose it)"
    if lost > 0:
        reason += f" ({lost} rows no longer fit into the model's window under this prompt and count as wrong)"
    return verdict.model_copy(update={"reason": reason})


def earlier_verdicts(state: State, services: RunServices) -> list[Verdict]:
    """All verdicts of the run before this round, the baseline's included."""
    first, rounds = services.folder.baseline(), services.folder.rounds()[: state["number"]]
    return [*([first.verdict] if first and first.verdict else []), *(row.verdict for row in rounds)]

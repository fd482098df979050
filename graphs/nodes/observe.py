"""The node that sees: what the best pair does, what its failing rows lack, and what each lever promises."""

from typing import Any

from agent.policy.base import stop_reason
from agent.protocols import Briefing
from agent.records.evaluation import Evaluation
from agent.records.events import RoundStarted
from agent.records.signal import Diagnosis
from agent.signal import monitor
from agent.signal.outlook import with_outlook
from graphs.rows.labels import features_of, own_probes
from graphs.services.run import RunServices
from graphs.state import State, seed_of


def observe(state: State, context: RunServices) -> dict[str, Any]:
    """History and the best pair's scores → signal; its failing examples → diagnosis."""
    from eval.stats import standard_error

    evaluation = context.evaluate(state["best"], "validation")
    history = context.folder.rounds()[: state["number"]]
    noise = standard_error([score.reward for score in evaluation.scores])
    refined = state["best"].prompt != context.spec.config.prompt.prompt().id
    seen = () if "signal" in context.spec.config.without else history
    signal = monitor.observe(evaluation, noise, seen, refined, context.spec.shown, context.spec.remade)
    diagnosed = Diagnosis(failing=0, total=len(evaluation.scores))
    if stop_reason(Briefing(signal, diagnosed, history, state["spend"]), context.spec.config):
        failing = sum(score.reward < 1 for score in evaluation.scores)
        return {"signal": signal, "diagnosis": Diagnosis(failing=failing, total=len(evaluation.scores))}
    context.tell(RoundStarted(number=state["number"] + 1))
    if context.spec.config.observes:
        signal = signal.model_copy(update={"drift": context.drift(state["best"])})
    diagnosis = _diagnosed(evaluation, state, context)
    costs = context.round_costs(context.folder.prompt(state["best"].prompt))
    signal = with_outlook(signal, diagnosis, seen, context.spec.config, costs)
    return {"signal": signal, "diagnosis": diagnosis}


def _diagnosed(evaluation: Evaluation, state: State, context: RunServices) -> Diagnosis:
    """By the classifier's probes; by the rewards alone, which cost nothing, for a policy that does not look."""
    from tools.diagnosis.classify import diagnose_by_rewards

    config, examples = context.spec.config, context.spec.validation
    if not config.observes or "classifier" in config.without:
        return diagnose_by_rewards(evaluation, examples)
    prompt, history = context.folder.prompt(state["best"].prompt), context.folder.rounds()[: state["number"]]
    return context.classifier.diagnose(
        evaluation, examples, prompt, seed_of(state, context),
        known=features_of(history, state["best"], context), own=own_probes(history, context),
    )  # fmt: skip

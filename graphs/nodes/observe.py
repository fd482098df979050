"""The node that sees: what the best pair does, what its failing rows lack, and what each lever promises."""

from agent.policy.base import stop_reason
from agent.protocols import Briefing
from agent.records.evaluation import Evaluation
from agent.records.events import RoundStarted
from agent.records.signal import Diagnosis
from agent.signal import monitor
from agent.signal.cost_model import estimate_costs
from agent.signal.outlook import with_outlook
from graphs.rows.labels import features_of, probes_of_run
from graphs.services.run import RunServices
from graphs.state import State, seed_of


def observe(state: State, services: RunServices) -> State:
    """History and the best pair's scores → signal; its failing examples → diagnosis."""
    from eval.stats import standard_error

    task, config, best = services.spec, services.spec.config, state["best"]
    evaluation = services.evaluate(best, "validation")
    history = services.folder.rounds()[: state["number"]]
    noise = standard_error([score.reward for score in evaluation.scores])
    refined = best.prompt != config.prompt.prompt().id
    seen = () if "signal" in config.without else history
    signal = monitor.observe(evaluation, noise, seen, refined, task.shown, task.remade)
    diagnosed = Diagnosis(failing=0, total=len(evaluation.scores))
    if stop_reason(Briefing(signal, diagnosed, history, state["spend"]), config):
        failing = sum(score.reward < 1 for score in evaluation.scores)
        return {"signal": signal, "diagnosis": Diagnosis(failing=failing, total=len(evaluation.scores))}
    services.emit(RoundStarted(number=state["number"] + 1))
    signal = signal.model_copy(update={"drift": services.forgetting.drift(best.adapter)})
    diagnosis = _diagnosed(evaluation, state, services)
    costs = estimate_costs(config, services.folder.prompt(best.prompt), task.train, task.validation)
    signal = with_outlook(signal, diagnosis, seen, config, costs)
    return {"signal": signal, "diagnosis": diagnosis}


def _diagnosed(evaluation: Evaluation, state: State, services: RunServices) -> Diagnosis:
    """By the classifier's probes; by the rewards alone, which cost nothing, for a policy that does not look."""
    from tools.diagnosis.classify import diagnose_by_rewards

    config, examples = services.spec.config, services.spec.validation
    if not config.observes or "classifier" in config.without:
        return diagnose_by_rewards(evaluation, examples)
    prompt, history = services.folder.prompt(state["best"].prompt), services.folder.rounds()[: state["number"]]
    return services.classifier.diagnose(
        evaluation, examples, prompt, seed_of(state, services),
        known=features_of(history, state["best"], services), own=probes_of_run(history, services),
    )  # fmt: skip

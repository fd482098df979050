"""The node that sees: what the best pair does, what its failing rows lack, and what each lever promises."""

from typing import TYPE_CHECKING

from agent.config.policies import PLANNING
from agent.policy.base import stop_reason
from agent.policy.rules import Rules
from agent.protocols import Briefing
from agent.records.events import RoundStarted
from agent.records.signal import Diagnosis
from agent.signal import monitor
from agent.signal.cost_model import estimate_costs
from agent.signal.outlook import with_outlook
from graphs.rows.failures import classify
from graphs.services.run import RunServices
from graphs.state import State

if TYPE_CHECKING:
    from eval.tasks.kept import KeptTask


def observe(state: State, services: RunServices) -> State:
    """History and the best pair's scores → signal; its failing examples → diagnosis."""
    from eval.stats import standard_error

    task, config, best = services.spec, services.spec.config, state["best"]
    evaluation = services.evaluate(best, "validation")
    history = services.folder.rounds()[: state["number"]]
    noise = standard_error([score.reward for score in evaluation.scores])
    refined, prompt = best.prompt != config.prompt.prompt().id, services.folder.prompt(best.prompt)
    seen = () if "signal" in config.without else history
    signal = monitor.observe(
        evaluation, noise, seen, refined, task.shown, task.remade, few_shot=prompt.shown > 0, luck=task.luck
    )
    diagnosed = Diagnosis(failing=0, total=len(evaluation.scores))
    if stop_reason(Briefing(signal, diagnosed, history, state["spend"]), config):
        failing = sum(score.reward < 1 for score in evaluation.scores)
        return {"signal": signal, "diagnosis": Diagnosis(failing=failing, total=len(evaluation.scores))}
    services.emit(RoundStarted(number=state["number"] + 1))
    signal = signal.model_copy(update={"drift": services.forgetting.drift(best.adapter)})
    diagnosis = classify(evaluation, task.validation, state, services)
    costs = estimate_costs(config, prompt, task.train, task.validation)
    training = Rules(config).training(signal, history) if config.policy in PLANNING else None
    if training and training.bare:
        lora = estimate_costs(config, prompt.bare, task.train, task.validation).lora
        costs = costs.model_copy(update={"lora": lora})
    costs = costs.model_copy(update={"keeping": sum(map(_judging, services.kept_tasks))})
    signal = with_outlook(signal, diagnosis, seen, config, costs, training)
    return {"signal": signal, "diagnosis": diagnosis}


def _judging(kept: "KeptTask") -> float:
    """What answers to the validation rows of a task to be kept are estimated to take, in forward tokens."""
    task = kept.task
    return estimate_costs(task.config, task.config.prompt.prompt(), task.train, task.validation).judging

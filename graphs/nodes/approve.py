"""The node that asks a user, and the way that the answer leads to."""

from collections.abc import Sequence
from typing import Literal

from langgraph.types import interrupt

from agent.config.generation import require_weights
from agent.errors import BadInput
from agent.policy.rules import Rules
from agent.records.actions import Action, Alternative, Decision, EditPrompt, Rollback, Stop, TrainLora
from agent.records.events import PlanAnswered
from agent.records.rounds import Baseline, Round
from agent.records.signal import Outlook
from agent.signal.cost_model import FASTER
from graphs.approval import Approve, Cost, Forecast, Reject, question, read
from graphs.services.run import RunServices
from graphs.state import State

Answered = Approve | Action | Reject | None


def approve(state: State, services: RunServices) -> State:
    """In supervised use, ask; `graphs.approval` has the forms of question and answer.

    A node of its own that changes nothing before it is answered: LangGraph runs it again from its start. A wrong answer
    is asked again, with what is wrong as `fault`: LangGraph keeps the first answer to an interrupt even where the node
    raises on it.
    """
    decision = state["decision"]
    if not services.supervised or decision is None:
        return {}
    number, cost = state["number"] + 1, cost_of(decision.move, services)
    ahead, rounds, left = forecasts(state, services), state["number"], seconds_left(state, services)
    training = Rules(services.spec.config).training(state["signal"], services.folder.rounds()[:rounds])
    asked = question(number, decision, cost, "", ahead, left, training)
    answer, fault = _possible(read(interrupt(asked), decision.move, rounds, training), services)
    while answer is None:
        again = question(number, decision, cost, fault, ahead, left, training)
        answer, fault = _possible(read(interrupt(again), decision.move, rounds, training), services)
    if isinstance(answer, Approve):
        services.emit(PlanAnswered(number=number, answer="approve", move=decision.move))
        return {}
    if isinstance(answer, Reject):
        services.emit(PlanAnswered(number=number, answer="reject", move=decision.move, message=answer.message))
        return {"decision": None, "refused": (*state["refused"], decision.move.action)}
    services.emit(PlanAnswered(number=number, answer="edit", move=answer))
    own = Decision(
        move=answer,
        reason="Asked for by the user.",
        numbers=decision.numbers,
        by="user",
        alternative=decision.alternative or Alternative(action=decision.move, reason=decision.reason),
    )
    return {"decision": own}


def _possible(answered: tuple[Answered, str], services: RunServices) -> tuple[Answered, str]:
    """The answer, unless it is a training and there are no weights here: then None, and why."""
    if isinstance(answered[0], TrainLora):
        try:
            require_weights(services.spec.config, "Training")
        except BadInput as error:
            return None, str(error)
    return answered


def forecasts(state: State, services: RunServices) -> list[Forecast]:
    """What both levers would take and bring now; a lever without an outlook is left out."""
    signal, rounds, first = state["signal"], services.folder.rounds(), services.folder.baseline()
    found = list[Forecast]()
    levers: dict[Literal["train_lora", "edit_prompt"], Outlook | None] = {
        "train_lora": signal.lora.outlook, "edit_prompt": signal.edit.outlook,
    }  # fmt: skip
    for lever, outlook in levers.items():
        if outlook is None:
            continue
        pace = pace_of(lever, rounds, first)
        found.append(
            Forecast(
                lever=lever, seconds=pace and pace * outlook.cost, gain=outlook.gain, spread=outlook.spread,
                epochs=services.spec.config.lora.epochs if lever == "train_lora" else 0,
            )
        )  # fmt: skip
    return found


def pace_of(lever: str, rounds: Sequence[Round], first: Baseline | None) -> float | None:
    """Seconds that a forward token takes with this lever: as its rounds took, or the other's; else as the seed's
    scoring did, without the loading of the model. None: nothing was measured."""
    paces = dict[str, float]()
    for name in ("train_lora", "edit_prompt"):
        spends = [row.trial.spend for row in rounds if row.decision.move.action == name]
        if tokens := sum(spend.forward_tokens for spend in spends):
            paces[name] = sum(spend.seconds for spend in spends) / tokens
    if lever in paces:
        return paces[lever]
    if lever == "edit_prompt":
        trained = paces.get("train_lora")
        return first.pace if first and first.pace else trained and trained * FASTER
    answered = paces.get("edit_prompt") or (first and first.pace)
    return answered / FASTER if answered else None


def seconds_left(state: State, services: RunServices) -> float | None:
    """Of the run's minutes; None: they are not limited."""
    minutes = services.spec.config.budget.minutes
    return None if minutes is None else max(0.0, minutes * 60 - state["spend"].seconds)


def cost_of(action: Action, services: RunServices) -> Cost:
    """What an action will take at most: the price a user agrees to."""
    task, config = services.spec, services.spec.config
    edit, rows = config.edit, len(services.spec.train)
    judged = "judge" in config.roles
    match action:
        case Rollback():
            return Cost()
        case Stop():
            return Cost(test_answers=2 * len(task.test), judged=judged)
        case TrainLora():
            validation = len(task.validation) + sum(len(kept.task.validation) for kept in services.kept_tasks)
            return Cost(epochs=action.epochs, training_rows=rows, validation_answers=validation, judged=judged)
        case EditPrompt():
            calls, searched = 0, 0
            texts = [part for part in action.parts if part != "retrieval"]
            if edit.editor == "gepa":  # a call for each reflection
                calls, searched = (edit.critiques, edit.answers) if texts else (0, 0)
            elif "editor" in config.roles:  # a critique a row, the steps, and a call for each rewrite
                steps = min(edit.proposals, len(texts) + ("system" in texts))  # system text twice
                rewrites = edit.rewrites if "questions" in action.parts else 0
                calls = min(edit.critiques, rows) + steps + min(rewrites, rows)
            return Cost(
                prompts=edit.proposals + 1, rows_per_prompt=edit.minibatch, validation_answers=len(task.validation),
                search_answers=searched, llm_calls=calls, judged=judged,
            )  # fmt: skip


def route(state: State) -> Literal["plan", "train_lora", "edit_prompt", "rollback", "finish"]:
    """The one router: to the lever that was decided on, back to the plan if it was turned down, or to the end."""
    if state.get("outcome"):
        return "finish"
    decision = state["decision"]
    if decision is None:
        return "plan"
    action = decision.move.action
    return "finish" if action == "stop" else action

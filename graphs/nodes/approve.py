"""The node that asks a user, and the way that the answer leads to."""

from typing import Literal

from langgraph.types import interrupt

from agent.records.actions import Action, Alternative, Decision, EditPrompt, Rollback, Stop, TrainLora
from graphs.approval import Approve, Cost, Reject, question, read
from graphs.services.run import RunServices
from graphs.state import State


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
    answer, fault = read(interrupt(question(number, decision, cost)), decision.move, state["number"])
    while answer is None:
        answer, fault = read(interrupt(question(number, decision, cost, fault)), decision.move, state["number"])
    if isinstance(answer, Approve):
        return {}
    if isinstance(answer, Reject):
        if answer.message:
            services.note(f"The user turned {decision.move.action} down: {answer.message}")
        return {"decision": None, "refused": (*state["refused"], decision.move.action)}
    asked = Decision(
        move=answer,
        reason="Asked for by the user.",
        numbers=decision.numbers,
        by="user",
        alternative=decision.alternative or Alternative(action=decision.move, reason=decision.reason),
    )
    return {"decision": asked}


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

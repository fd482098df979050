"""The node that asks a user, and the way that the answer leads to."""

from collections.abc import Iterator
from typing import Any, Literal

from langgraph.types import interrupt

from agent.config.task import TaskConfig
from agent.records.actions import Action, Decision, EditPrompt, Rollback, TrainLora
from graphs.approval import read
from graphs.services.run import RunServices
from graphs.state import State


def approve(state: State, context: RunServices) -> dict[str, Any]:
    """In supervised use, ask. A node of its own without side effect: LangGraph runs it again from its start.

    Resumed with `{"approve": true}`, `{"approve": false}` (plan again, without this lever), or
    `{"instead": {"action": …}}` (the user's own move). Anything else is asked again, with what is wrong as `fault`:
    LangGraph keeps the first answer to an interrupt even where the node raises on it.
    """
    decision = state["decision"]
    if not context.supervised or decision is None:
        return {}
    question = {
        "number": state["number"] + 1,
        "decision": decision.model_dump(mode="json"),
        "cost": _cost(decision.move, context),
    }
    answer, fault = read(interrupt(question), state["number"])
    while answer is None:
        answer, fault = read(interrupt({**question, "fault": fault}), state["number"])
    if answer.instead:
        asked = Decision(
            move=answer.instead,
            reason="Asked for by the user.",
            numbers=decision.numbers,
            by="user",
            rules_would=decision.rules_would or f"{decision.move}: {decision.reason}",
        )
        return {"decision": asked}
    if answer.approve:
        return {}
    return {"decision": None, "refused": (*state["refused"], decision.move.action)}


def _cost(move: Action, context: RunServices) -> str:
    """What a move will take, in words: the price a user agrees to."""
    task, edit = context.spec, context.spec.config.edit
    if isinstance(move, Rollback):
        return "nothing"
    if isinstance(move, TrainLora):
        cost = (
            f"{move.epochs} epochs over up to {len(task.train)} rows, then {len(task.validation)} answers to judge it"
        )
    elif isinstance(move, EditPrompt):
        tries = f"up to {edit.proposals + 1} prompts on up to {edit.minibatch} rows each"
        cost = f"{tries}, then {len(task.validation)} answers to judge the best"
    else:
        cost = f"{2 * len(task.test)} answers on the test rows"
    return ", and ".join([cost, *_calls(move, task.config, len(task.train))])


def _calls(move: Action, config: TaskConfig, rows: int) -> Iterator[str]:
    """What the external LLM is asked in a move: a critique a row, the steps, and a call for each rewrite.

    Fewer, where fewer train rows fail.
    """
    edit = config.edit
    if isinstance(move, EditPrompt) and "editor" in config.roles:
        steps = min(edit.proposals, len(move.parts) + ("system" in move.parts))  # system text is rewritten twice
        rewrites = edit.rewrites if "questions" in move.parts else 0
        yield f"up to about {min(edit.critiques, rows) + steps + min(rewrites, rows)} calls to the external LLM"
    if "judge" in config.roles:
        yield "calls to the judging LLM for every answer"


def route(state: State) -> Literal["plan", "train_lora", "edit_prompt", "rollback", "finish"]:
    """The one router: to the lever that was decided on, back to the plan if it was turned down, or to the end."""
    if "outcome" in state:
        return "finish"
    decision = state["decision"]
    if decision is None:
        return "plan"
    action = decision.move.action
    return "finish" if action == "stop" else action

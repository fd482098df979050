"""What a user is asked before an action, and what the answer means: LangChain's human-in-the-loop schema.

The same shapes as `langchain.agents.middleware.human_in_the_loop` (langchain 1.5.2), so that LangGraph's own chat front
ends show the question and can answer it. Its fourth decision, `respond`, is not offered: no text stands for a training.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails

from agent.records.actions import Action, Decision, EditPrompt, Rollback, Stop, TrainLora, named
from agent.records.base import Record

FORMS = (
    '{"decisions": [{"type": "approve"}]}, {"decisions": [{"type": "reject"}]}, or {"decisions": [{"type": "edit", '
    '"edited_action": {"name": "train_lora", "args": {…}}}]}'
)
ACTIONS: dict[str, type[TrainLora] | type[EditPrompt] | type[Rollback] | type[Stop]] = {
    "train_lora": TrainLora,
    "edit_prompt": EditPrompt,
    "rollback": Rollback,
    "stop": Stop,
}


class Cost(Record):
    """What an action will take at most. The faces put it into words."""

    epochs: int = Field(0, description="over the training rows")
    training_rows: int = 0
    prompts: int = Field(0, description="compared with each other, the present one included")
    rows_per_prompt: int = 0
    search_answers: int = Field(0, description="to train rows, to prompts that the editor tries for itself")
    validation_answers: int = Field(0, description="to judge the result")
    test_answers: int = 0
    llm_calls: int = Field(0, description="to the external LLM, about; fewer where fewer train rows fail")
    judged: bool = Field(False, description="whether the judging LLM is asked about every answer")


class Forecast(Record):
    """What a lever would take and bring if it were used now, so that a user can weigh the other one, too."""

    lever: Literal["train_lora", "edit_prompt"]
    seconds: float | None = Field(None, description="wall-clock, at the pace of this run so far; None: not known")
    epochs: int = Field(0, description="of the training that `seconds` is of")
    gain: float | None = Field(None, description="merit that it is expected to bring; None: not known")
    spread: float | None = Field(None, description="standard deviation of that")


class ActionRequest(Record):
    """What is to be done, with its settings; `description` is for people."""

    name: str
    args: dict[str, Any]
    description: str = ""


class ReviewConfig(Record):
    """How the action of this name may be answered."""

    action_name: str
    allowed_decisions: tuple[Literal["approve", "edit", "reject"], ...] = ("approve", "edit", "reject")


class Question(Record):
    """What a supervised run asks before an action, and an interrupt's value.

    `action_requests` and `review_configs` are LangChain's; what follows is for faces of our own.
    """

    action_requests: tuple[ActionRequest, ...] = ()  # empty, as is the next, in checkpoints from before they were asked
    review_configs: tuple[ReviewConfig, ...] = ()
    number: int
    decision: Decision
    cost: Cost | str  # text in checkpoints from before costs were numbers
    forecasts: tuple[Forecast, ...] = ()
    training: TrainLora | None = Field(None, description="as the rules would train now: what a user leaves out")
    seconds_left: float | None = Field(None, description="of the run's minutes, when it was asked; None: no limit")
    fault: str = Field("", description="what is wrong with the answer before, which was not executed")

    def completed(self, action: Action) -> Action:
        """The action as it would be done now; see `completed`."""
        return completed(action.action, named(action), self.decision.move, self.training)


def question(
    number: int,
    decision: Decision,
    cost: Cost,
    fault: str = "",
    forecasts: Sequence[Forecast] = (),
    seconds_left: float | None = None,
    training: TrainLora | None = None,
) -> dict[str, Any]:
    """The question about a round's decision as an interrupt's value: plain JSON values."""
    action = decision.move
    takes = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in cost if value) or "nothing"
    lines = [f"Round {number}: {action}", decision.reason, f"Cost: {takes}"]
    if fault:
        lines.insert(0, f"The last answer cannot be executed: {fault}")
    request = ActionRequest(
        name=action.action, args=action.model_dump(mode="json", exclude={"action"}), description="\n\n".join(lines)
    )
    asked = Question(
        action_requests=(request,),
        review_configs=(ReviewConfig(action_name=action.action),),
        number=number,
        decision=decision,
        cost=cost,
        forecasts=tuple(forecasts),
        seconds_left=seconds_left,
        training=training,
        fault=fault,
    )
    return asked.model_dump(mode="json")


class EditedAction(Record):
    """The user's own action in place of the one that was asked about: of the same name, or of another."""

    name: Literal["train_lora", "edit_prompt", "rollback", "stop"]
    args: dict[str, Any] = Field(default_factory=dict)


class Approve(Record):
    """Do it."""

    type: Literal["approve"] = "approve"


class Edit(Record):
    """Do this instead."""

    type: Literal["edit"] = "edit"
    edited_action: EditedAction


class Reject(Record):
    """Plan again, without this action. `message` is noted in the run's events."""

    type: Literal["reject"] = "reject"
    message: str = ""


class Answer(Record):
    """One decision, since one action is asked about at a time."""

    decisions: tuple[Annotated[Approve | Edit | Reject, Field(discriminator="type")]] = Field()


APPROVE: dict[str, object] = {"decisions": [{"type": "approve"}]}


def instead(name: str, **args: object) -> dict[str, object]:
    """The answer that does something else than what was asked about."""
    return {"decisions": [{"type": "edit", "edited_action": {"name": name, "args": args}}]}


def as_answer(action: Action) -> dict[str, object]:
    """`instead` with this action. The settings that it does not name are filled in by `read`."""
    return instead(action.action, **named(action))


def completed(
    name: str, args: Mapping[str, object], planned: Action | None = None, training: TrainLora | None = None
) -> Action:
    """The action of this name. What `args` leave out is as planned, where the same lever is planned; of a training that
    is not, as in `training`; else the action's own default.

    Raises:
        ValidationError: there is no such setting, or this is no value of it.
    """
    base = next((action for action in (planned, training) if action and action.action == name), None)
    left_out = base.model_dump() if base else {}
    if args.get("rows", left_out.get("rows")) != left_out.get("rows"):
        left_out.pop("bare", None)  # other rows may not teach the form that the few-shot examples bring
    return ACTIONS[name].model_validate({**left_out, **args})


def read(
    answer: object, planned: Action, rounds: int, training: TrainLora | None = None
) -> tuple[Approve | Action | Reject | None, str]:
    """What is to be done: as planned, the user's own action, or a new plan. None and a sentence for a wrong answer.

    Args:
        answer: what a client sent.
        planned: the action that was asked about.
        rounds: how many there have been, to go back to.
        training: as the rules would train now. Both fill in what an edit does not name; see `completed`.
    """
    try:
        [decision] = Answer.model_validate(answer).decisions
    except ValidationError as error:
        return None, f"{', and '.join(map(_fault, error.errors()))}. Answer with {FORMS}"
    if not isinstance(decision, Edit):
        return decision, ""
    edited = decision.edited_action
    try:
        args = {name: _parsed(value) for name, value in edited.args.items()}
        action = completed(edited.name, args, planned, training)
    except ValidationError as error:
        faults = {fault["loc"][0]: fault for fault in reversed(error.errors())}  # the first of each setting
        return None, "; ".join(_setting_fault(ACTIONS[edited.name], fault) for fault in faults.values())
    if isinstance(action, Rollback) and rounds == 0:
        return None, "there has been no round to go back from"
    if isinstance(action, Rollback) and action.to_round >= rounds:
        return None, f"to_round must be between 0 and {rounds - 1}, but it is {action.to_round}"
    return action, ""


def _parsed(value: object) -> object:
    """Chat front ends send a setting that was edited as text: a list comes as its JSON."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        with suppress(ValueError):
            parsed: object = json.loads(value)
            return parsed
    return value


def _fault(error: ErrorDetails) -> str:
    decisions, named = error["loc"][:2], error["loc"][3:]  # without the decision's type, which pydantic puts third
    place = ".".join(map(str, (*decisions, *named))) or "the answer"
    if error["type"] == "missing":
        return f"{place} is missing"
    if error["type"] == "extra_forbidden":
        return f"{place} is unknown"
    return f"{place} is {error['input']!r}" + (f": {error['msg']}" if error["type"] == "literal_error" else "")


def _bounds(allowed: Mapping[str, Any]) -> str:
    """What a setting may be, in words: the range of a number, or its values; empty for others."""
    low, high = allowed.get("minimum"), allowed.get("maximum")
    if low is not None:
        return f"at least {low}" if high is None else f"between {low:g} and {high:g}"
    *values, last = ("true", "false") if allowed.get("type") == "boolean" else allowed.get("enum", ("",))
    return f"{', '.join(values)} or {last}" if values else ""


def _setting_fault(action: type[Record], error: ErrorDetails) -> str:
    """What is wrong with a setting of an action, with the values that are allowed."""
    name = ".".join(map(str, error["loc"]))
    allowed: dict[str, Any] = action.model_json_schema()["properties"].get(str(error["loc"][-1]), {})
    bounds = _bounds(allowed)
    if error["type"] == "missing":
        return f"{name} is missing" + (f"; it must be {bounds}" if bounds else "")
    if error["type"] == "extra_forbidden":
        settings = [setting for setting in action.model_fields if setting != "action"]
        near = get_close_matches(str(error["loc"][-1]), settings, n=1)
        return f"{name} is unknown " + (f"(did you mean {near[0]}?)" if near else f"(there is {', '.join(settings)})")
    if bounds:
        return f"{name} must be {bounds}, but it is {error['input']!r}"
    return f"{name}: {error['msg']}, but it is {error['input']!r}"

"""What a user answers to a plan: yes, no, or another move; and what is wrong with an answer that is none of these."""

from typing import Any

from pydantic import StrictBool, ValidationError, model_validator
from pydantic_core import ErrorDetails

from agent.records.actions import Action, EditPrompt, Rollback, Stop, TrainLora
from agent.records.base import Record

FORMS = '{"approve": true}, {"approve": false}, or {"instead": {"action": "train_lora", …}}'
MOVES: tuple[type[Record], ...] = (TrainLora, EditPrompt, Rollback, Stop)


class Answer(Record):
    """One of the two is given."""

    approve: StrictBool | None = None
    instead: Action | None = None

    @model_validator(mode="after")
    def says_one_thing(self) -> "Answer":
        if (self.approve is None) == (self.instead is None):
            raise ValueError(f"one of {FORMS} is wanted")
        return self


def read(given: object, rounds: int) -> tuple[Answer | None, str]:
    """An answer, or None and what is wrong with it, with the values that are allowed.

    Args:
        given: what a client sent.
        rounds: how many there have been, to go back to.
    """
    try:
        answer = Answer.model_validate(given)
    except ValidationError as error:
        return None, "; ".join(map(_fault, error.errors()))
    if isinstance(answer.instead, Rollback) and answer.instead.to_round > rounds:
        return None, f"instead.to_round must be between 0 and {rounds}, but it is {answer.instead.to_round}"
    return answer, ""


def _fault(error: ErrorDetails) -> str:
    place, given = [str(step) for step in error["loc"]], error["input"]
    if not place:
        wrong = f"it is {given!r}" if error["type"] == "model_type" else str(error["ctx"]["error"])
        return f"{FORMS} is wanted, but {wrong}" if error["type"] == "model_type" else wrong
    kind = next((kind for kind in MOVES if kind.model_fields["action"].default in place), None)
    name = ".".join(step for step in place if kind is None or step != kind.model_fields["action"].default)
    bounds = _bounds(kind, place[-1]) if kind else ""
    if error["type"] == "missing":
        return f"{name} is missing" + (f"; it must be {bounds}" if bounds else "")
    if bounds:
        return f"{name} must be {bounds}, but it is {given!r}"
    return f"{name}: {error['msg']}, but it is {given!r}"


def _bounds(kind: type[Record], field: str) -> str:
    """The range of a number, in words; empty where the field has none."""
    allowed: dict[str, Any] = kind.model_json_schema()["properties"].get(field, {})
    low, high = allowed.get("minimum"), allowed.get("maximum")
    if low is None:
        return ""
    return f"at least {low}" if high is None else f"between {low:g} and {high:g}"

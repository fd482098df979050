"""The open question, and the form in which its plan can be changed: made of the action's own record."""

from typing import Any, NamedTuple

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from markupsafe import Markup
from starlette.datastructures import FormData

from agent.errors import BadInput
from agent.records.actions import Action, EditPrompt
from graphs.approval import ACTIONS
from graphs.control.steering import RunStatus
from memory.run.folder import RunFolder
from ui.page import rendering
from ui.page.place import Here, Run
from ui.talk import plans

router = APIRouter(tags=["parts"])
CHANGED = ("train_lora", "edit_prompt")  # what a plan can be changed to; the others have buttons of their own
WORDS = "your own words, to be tried in the system text; then nothing else is proposed"


class Input(NamedTuple):
    """A setting of an action as a form asks for it. `kind`: number, text, one (of the options), some (of them)."""

    name: str
    kind: str
    value: object
    help: str
    options: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    whole: bool = False


def question_card(run: RunFolder, status: RunStatus) -> Markup:
    """What the run waits for, with approve, edit and reject; empty where it waits for nothing."""
    if status.question is None:
        return Markup()
    move = status.question.decision.move
    inputs = inputs_of(move) if move.action in CHANGED else inputs_of(ACTIONS["edit_prompt"]())  # type: ignore[call-arg]
    action = move.action if move.action in CHANGED else "edit_prompt"
    return rendering.text(
        "question.html.j2",
        run=run,
        question=status.question,
        seen=plans.mark(status.question),
        inputs=inputs,
        action=action,
        actions=CHANGED,
        proposal=plans.proposal(move, status.question),
        cost=plans.details(status.question.cost),
    )


@router.get("/runs/{name}/settings", summary="The settings of an action, as inputs", response_class=HTMLResponse)
def show_settings(run: Run, place: Here, action: str) -> HTMLResponse:
    """The inputs of an action, as it would be done if nothing is changed in them."""
    if action not in CHANGED:
        raise BadInput(f"{action!r} is no action with settings; there is {' and '.join(CHANGED)}.")
    question = place.status(run).question
    chosen: Action = ACTIONS[action]()  # type: ignore[call-arg]
    return rendering.render("inputs.html.j2", inputs=inputs_of(question.completed(chosen) if question else chosen))


def inputs_of(action: Action) -> list[Input]:
    """The settings of an action, with their present values."""
    found = []
    for name, field in action.model_json_schema()["properties"].items():
        if name == "action":
            continue
        found.append(_input(name, _without_null(field), getattr(action, name), field.get("description", "")))
    if isinstance(action, EditPrompt):  # for people only, so that the planner's schema does not have it
        found.append(Input("instruction", "text", action.instruction, WORDS))
    return found


def args_from(action: str, form: FormData) -> dict[str, object]:
    """What a form says of an action's settings; fields that were left empty are left out."""
    args: dict[str, object] = {}
    for field in inputs_of(ACTIONS[action]()):  # type: ignore[call-arg]
        values = [str(value) for value in form.getlist(field.name) if str(value).strip()]
        if values:
            args[field.name] = values if field.kind == "some" else _value(field, values[-1])
    return args


def _value(field: Input, text: str) -> object:
    """As JSON would have it: the graph takes the numbers of a chat, not their texts."""
    if field.kind != "number":
        return {"true": True, "false": False}.get(text, text)
    try:
        return int(text) if field.whole else float(text)
    except ValueError:
        raise BadInput(f"{field.name} must be a number, but it is {text[:40]!r}.") from None


def _input(name: str, field: dict[str, Any], value: object, help: str) -> Input:
    if field.get("type") == "array":
        return Input(name, "some", value, help, tuple(field["items"]["enum"]))
    if field.get("type") == "boolean":
        return Input(name, "one", str(value).lower(), help, ("true", "false"))
    if "enum" in field:
        return Input(name, "one", value, help, tuple(field["enum"]))
    whole = field.get("type") == "integer"
    return Input(name, "number", value, help, (), field.get("minimum"), field.get("maximum"), whole)


def _without_null(field: dict[str, Any]) -> dict[str, Any]:
    for other in field.get("anyOf", ()):
        if other.get("type") != "null":
            chosen: dict[str, Any] = other
            return chosen
    return field

"""The conversation beside a run: what the user says, and what comes of it."""

from typing import Annotated

from fastapi import APIRouter, Form
from fastapi.responses import HTMLResponse

from agent.errors import BadInput
from agent.records.actions import Rollback
from agent.records.looks import PromptTried, TryPrompt
from graphs.approval import APPROVE, Reject
from graphs.control.steering import Steering
from memory.run.folder import RunFolder
from ui.decision_wording import finding
from ui.page.place import Here, Place, Run
from ui.page.rendering import partial, text
from ui.page.run.orders import working

router = APIRouter(prefix="/runs/{name}", tags=["orders"])
HELP = (
    "/approve (or yes), /reject WHY (or no), /run N, /rollback N, /try TEXT, /pause, /finish. The buttons do the same."
)


@router.post("/say", summary="Say something to the run")
def say(run: Run, place: Here, said: Annotated[str, Form(min_length=1, max_length=4000)]) -> HTMLResponse:
    """What was said and what was answered, for the feed beside the run."""
    try:
        answer, fault = _answer(run, place, said.strip()), False
    except BadInput as error:
        answer, fault = str(error), True
    return HTMLResponse(partial("#feed", text("turn.html.j2", said=said, answer=answer, fault=fault), "beforeend"))


@router.post("/try", summary="Ask the best pair something")
def try_model(run: Run, place: Here, question: Annotated[str, Form(min_length=1, max_length=2000)]) -> HTMLResponse:
    """Its answer, beside the question."""
    found = looking(run, place).look(TryPrompt(question=question))
    assert isinstance(found, PromptTried)
    return HTMLResponse(text("tried.html.j2", tried=found))


def looking(run: RunFolder, place: Place) -> Steering:
    """Whoever can look at the run's pair. Raises BadInput: nobody works on it, and who came would go on with it."""
    steering = place.steers.attached(run)
    if steering is None and not run.outcome():
        raise BadInput(f"Nobody works on {run.name} now. Resume it, and ask while it waits or is paused.")
    return steering or place.steers.steered(run, supervised=True)


def _answer(run: RunFolder, place: Place, said: str) -> str:
    name, _, rest = said.partition(" ")
    match name.lower():
        case "/approve" | "yes" | "y" | "ok":
            working(run, place).answer(APPROVE)
            return "It is being done."
        case "/reject" | "no" | "n":
            working(run, place).answer({"decisions": [Reject(message=rest).model_dump()]})
            return "Then something else is planned."
        case "/run" if rest.isdecimal():
            place.steers.steered(run, supervised=True).go_on(int(rest))
            return f"Up to {rest} rounds are done without asking."
        case "/rollback" if rest.isdecimal():
            place.steers.steered(run, supervised=True).act(Rollback(to_round=int(rest)))
            return f"Going back to the pair after round {rest}."
        case "/pause":
            working(run, place).pause()
            return "It pauses after the step under way."
        case "/finish":
            place.steers.steered(run, supervised=True).finish()
            return "The test rows are being opened."
        case "/try" if rest:
            return finding(looking(run, place).look(TryPrompt(question=rest)))
    return f"That was not understood. {HELP}"

"""What changes a run: each order goes to whoever works on it, and the answer shows what it is doing then."""

from typing import Annotated, Literal

from fastapi import APIRouter, Form, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse
from markupsafe import Markup

from agent.errors import BadInput
from agent.records.actions import Rollback
from agent.records.limits import OtherLimits
from graphs.approval import APPROVE, Reject, instead
from graphs.control.anybody import Anybody
from graphs.control.steering import RunStatus
from memory.run.folder import RunFolder
from ui.page.place import Here, Place, Run
from ui.page.rendering import partial, text
from ui.page.run.overview import live_panel
from ui.page.run.question import CHANGED, args_from, question_card
from ui.talk import plans

router = APIRouter(prefix="/runs/{name}", tags=["orders"], default_response_class=HTMLResponse)


@router.post("/answer", summary="Answer the open question")
async def answer(
    run: Run, place: Here, request: Request, decision: Annotated[Literal["approve", "edit", "reject"], Form()],
    number: Annotated[int, Form()], message: Annotated[str, Form(max_length=2000)] = "",
    action: Annotated[str, Form()] = "", seen: Annotated[str, Form(max_length=100)] = "",
) -> HTMLResponse:  # fmt: skip
    """Approve, reject, or put another action in the place of the planned one, with the settings in the form.

    `seen` is the mark of the plan that the page showed: another of the same round is not answered.
    """
    given: dict[str, object] = APPROVE
    if decision == "reject":
        given = {"decisions": [Reject(message=message).model_dump()]}
    if decision == "edit":
        if action not in CHANGED:
            raise BadInput(f"{action!r} is no action; there is {' and '.join(CHANGED)}.")
        given = instead(action, **args_from(action, await request.form()))
    status = await run_in_threadpool(lambda: _answered(run, place, given, number, seen))
    return shown(run, status)


def _answered(run: RunFolder, place: Place, given: dict[str, object], number: int, seen: str) -> RunStatus:
    steering = Anybody(run, place.steers)
    question = steering.status().question
    if seen and question and question.number == number and plans.mark(question) != seen:
        raise BadInput(f"Another plan waits for round {number} by now; nothing was done.")
    return steering.answer(given, number)


@router.post("/go-on", summary="Resume; or do so many rounds without asking")
def go_on(
    run: Run, place: Here, rounds: Annotated[int | None, Form(ge=1, le=1000)] = None,
    supervised: Annotated[bool, Form()] = False,
) -> HTMLResponse:  # fmt: skip
    """A run that nobody works on gets a worker process, which lives on when this server ends."""
    return shown(run, Anybody(run, place.steers).go_on(rounds, supervised))


@router.post("/pause", summary="Stop after the step under way, or at once")
def pause(run: Run, place: Here, now: Annotated[bool, Form()] = False) -> HTMLResponse:
    """With `now` the step is broken off, and done again when the run goes on."""
    return shown(run, Anybody(run, place.steers).pause(now))


@router.post("/cancel", summary="Break off the step under way")
def cancel(run: Run, place: Here) -> HTMLResponse:
    """The round is over, nothing is changed, and the next one is planned."""
    return shown(run, Anybody(run, place.steers).cancel_step())


@router.post("/roll-back", summary="Back to the pair after a round")
def roll_back(run: Run, place: Here, number: Annotated[int, Form(ge=0)]) -> HTMLResponse:
    """0 is the pair after the baseline."""
    status = Anybody(run, place.steers).act(Rollback(to_round=number))
    return shown(run, status, f"Going back to the pair after round {number}.")


@router.post("/extend", summary="Set new limits")
def extend(run: Run, place: Here, limits: Annotated[OtherLimits, Form()]) -> HTMLResponse:
    """What is left empty stays as it is. A finished run is opened again."""
    if not limits.named:
        raise BadInput("Give at least one limit: rounds, minutes, USD or target.")
    return shown(run, Anybody(run, place.steers).extend(**limits.named), "The new limits hold.")


@router.post("/finish", summary="End the run: open the test rows, write the report")
def finish(run: Run, place: Here) -> HTMLResponse:
    """Final, but for `extend`, which marks the test result as seen."""
    return shown(run, Anybody(run, place.steers).finish(), "The test rows are being opened.")


@router.post("/leave", summary="End the worker process of a run")
def leave(run: Run, place: Here) -> HTMLResponse:
    """The run stops cleanly, and can be gone on with."""
    return shown(run, Anybody(run, place.steers).leave())


def shown(run: RunFolder, status: RunStatus, said: str = "") -> HTMLResponse:
    """The parts of the page that an order changes at once; the rest comes with the events.

    Args:
        said: a sentence for the top of the page.
    """
    return HTMLResponse(
        partial("#live", live_panel(run, status))
        + partial("#question", question_card(run, status))
        + partial("#said", text("said.html.j2", text=said) if said else Markup(), "innerHTML")
    )

"""A new run: of a task folder that is there."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Form
from fastapi.responses import HTMLResponse

from agent.errors import BadInput
from agent.example_tasks import shipped
from graphs.context import new_run
from ui.page.place import Here, Place
from ui.page.rendering import render

router = APIRouter(tags=["start"])


class Known(NamedTuple):
    """A task that a run can be started of; `key` names it in the form."""

    key: str
    path: Path


@router.get("/new", summary="Start a run", response_class=HTMLResponse)
def show_form(place: Here) -> HTMLResponse:
    """The form: a task that is there, or a file of rows."""
    return render("new.html.j2", tasks=tasks(place))


@router.post("/runs", summary="Start a run of a task")
def start(
    place: Here, task: Annotated[str, Form()], name: Annotated[str, Form(max_length=80)] = "",
    rounds: Annotated[int | None, Form(ge=1, le=10_000)] = None, minutes: Annotated[float | None, Form(gt=0)] = None,
    target: Annotated[float | None, Form(gt=0, le=1)] = None, supervised: Annotated[bool, Form()] = False,
) -> HTMLResponse:  # fmt: skip
    """Makes the run and sets a worker on it; the answer leads to its page."""
    found = next((known for known in tasks(place) if known.key == task), None)
    if found is None:
        raise BadInput(f"There is no task {task!r} here. Choose one of the list.")
    limits = {"budget.rounds": rounds, "budget.minutes": minutes, "target": target}
    overrides = [f"{key}={value}" for key, value in limits.items() if value is not None]
    return begin(place, found.path, overrides, name or None, supervised)


def begin(place: Place, task: Path, overrides: Sequence[str], name: str | None, supervised: bool) -> HTMLResponse:
    """Make a run and set a worker on it; the answer leads a browser to its page."""
    run = new_run(task, overrides, place.root, name)
    place.steers.steered(run, supervised)
    return HTMLResponse(headers={"hx-redirect": f"/runs/{run.name}"})


def tasks(place: Place) -> list[Known]:
    """Ours, and those in folders of the present one."""
    found = {f"example: {path.parent.name}": path.parent for path in shipped(".").glob("*/task.yaml")}
    here = [path for pattern in ("task.yaml", "*/task.yaml", "*/*/task.yaml") for path in Path.cwd().glob(pattern)]
    inside = place.root.resolve()
    for path in here:
        folder = path.parent.resolve()
        if not folder.is_relative_to(inside) and folder not in found.values():
            found[str(path.parent.relative_to(Path.cwd()))] = folder
    return [Known(key, path) for key, path in sorted(found.items())]

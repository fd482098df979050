"""The runs, in short: what the first page shows."""

from collections.abc import Sequence
from typing import NamedTuple

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from markupsafe import Markup

from agent.errors import BadInput
from graphs.control.steering import RunStatus
from memory.run.folder import RunFolder, runs
from ui.page.place import Here, Place
from ui.page.rendering import render
from ui.report import svg

router = APIRouter(tags=["pages"])
MOST = 60  # runs on the page; older ones on demand
SPARK = 120  # rounds in a sparkline


class Listed(NamedTuple):
    """A run in a row; `status` is None where its folder is damaged, and `fault` says how."""

    name: str
    created: str
    status: RunStatus | None
    spark: Markup
    test: float | None = None
    fault: str = ""


@router.get("/", summary="The runs, newest first", response_class=HTMLResponse)
def list_runs(place: Here, skip: int = 0) -> HTMLResponse:
    """The page of all runs; `skip` as many, to see older ones."""
    found = runs(place.root)
    rows = [_listed(place, run) for run in found[max(0, skip) : max(0, skip) + MOST]]
    older = max(0, skip) + MOST if len(found) > max(0, skip) + MOST else None
    return render("runs.html.j2", rows=rows, older=older, total=len(found), root=place.root)


def _listed(place: Place, run: RunFolder) -> Listed:
    try:
        run = place.run(run.name)
        created, outcome = run.about.created, run.outcome()
        status = place.status(run)
    except BadInput as error:
        return Listed(run.name, "", None, Markup(), fault=str(error))
    test = outcome.best_test.reward if outcome else None
    return Listed(run.name, created, status, sparkline(rewards(run), status.limits.target), test)


def rewards(run: RunFolder) -> list[float]:
    """The validation reward of the best pair: after the baseline, and after each round."""
    baseline = run.baseline()
    return [baseline.reward, *(row.reward for row in run.rounds())] if baseline else []


def sparkline(values: Sequence[float], target: float | None) -> Markup:
    """Rewards in [0, 1] as a small step line, the target dashed."""
    if not values:
        return Markup()
    values = values[-SPARK:]
    frame = svg.Frame(0, max(len(values) - 1, 1), 1.0, 3, 25, left=2, right=118)
    path = f"M{frame.x(0):.1f} {frame.y(values[0]):.1f}h0" + "".join(
        f"H{frame.x(place):.1f}V{frame.y(value):.1f}" for place, value in enumerate(values[1:], 1)
    )
    label = f"reward from {values[0]:.2f} to {values[-1]:.2f}"
    dashed = svg.line(2, frame.y(target), 118, frame.y(target), "target") if target is not None else Markup()
    end = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="2.4"/>').format(
        frame.x(len(values) - 1 if len(values) > 1 else 0), frame.y(values[-1])
    )
    return Markup(
        '<svg class="chart spark" viewBox="0 0 120 28" role="img" aria-label="{}">{}<path class="best" d="{}"/>{}</svg>'
    ).format(label, dashed, path, end)

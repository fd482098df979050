"""A run's page, from its folder alone: what stands, what is going on, and its latest rounds."""

from collections.abc import Sequence
from typing import NamedTuple

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from markupsafe import Markup

from agent.records.examples import Candidate
from agent.records.rounds import Baseline, Round
from graphs.control.steering import RunStatus
from memory.run.folder import RunFolder
from ui import wording
from ui.page import rendering
from ui.page.place import Here, Run, task_of
from ui.page.run.feed import LATEST, MOST, latest_entries, together
from ui.page.run.question import question_card
from ui.page.run.talking import asked_now
from ui.page.run.turns import turns_from
from ui.report import charts
from ui.report.llm import read_llm_section
from ui.report.model import Report
from ui.report.sections import RoundSection, read_section
from ui.report.write import trial_point

router = APIRouter(tags=["pages"])
FIRST = 6  # rounds that the page begins with; earlier ones are loaded on demand


class Meter(NamedTuple):
    """A budget: what is used of it. `share` is None where there is no limit."""

    name: str
    used: str
    limit: str
    share: float | None


@router.get("/runs/{name}", summary="A run", response_class=HTMLResponse)
def show_run(run: Run, place: Here) -> HTMLResponse:
    """The page of a run: its latest rounds; what is behind `details` comes on demand, what is new by `/events`."""
    status = place.status(run)
    entries, offset = latest_entries(run)
    turns, talk = turns_from(run, -LATEST)
    rows = len(run.rounds())
    return rendering.render(
        "run.html.j2",
        run=run,
        status=status,
        report=read_overview(run),
        live=live_panel(run, status),
        question=question_card(run, status),
        summary=summary(run, status),
        sections=latest_sections(run, FIRST),
        earlier=rows - FIRST if rows > FIRST else 0,
        items=together(entries, turns[-MOST:]),
        asked=asked_now(run, place),
        position=f"{offset}-{rows}-{talk}",
        exports=bool(rows),
    )


def read_overview(run: RunFolder) -> Report:
    """The facts of a run that cost little however long it is: no evaluations, no training logs."""
    baseline, rounds, outcome = run.baseline(), run.rounds(), run.outcome()
    return Report(
        run=run, task=task_of(run), baseline=baseline, rounds=rounds, outcome=outcome, sections=[], trainings=[],
        llm=read_llm_section(rounds, []), prompt=None, split="test" if outcome else "validation", pairs=[],
        best_scores=[],
    )  # fmt: skip


def live_panel(run: RunFolder, status: RunStatus) -> Markup:
    """What the run does now, with the buttons that fit."""
    return rendering.text("live.html.j2", run=run, status=status)


def summary(run: RunFolder, status: RunStatus) -> Markup:
    """What came of the run so far: the reward, the budgets, the curve."""
    report = read_overview(run)
    points = [trial_point(row) for row in report.rounds if row.decision.move.action != "stop"]
    start = report.baseline.reward if report.baseline else None
    target = status.limits.target or report.task.target
    curve = charts.reward_curve(points, start, target)
    return rendering.text(
        "summary.html.j2", run=run, report=report, status=status, target=target, curve=curve,
        meters=meters(status),
    )  # fmt: skip


def meters(status: RunStatus) -> list[Meter]:
    """The budgets that there are, and what is used of each; tokens without a limit, too."""
    limits, spend, tokens = status.limits, status.spend, status.limits.train_tokens
    found = [Meter("rounds", str(status.rounds), str(limits.rounds), _share(status.rounds, limits.rounds))]
    seconds = limits.minutes * 60 if limits.minutes else None
    found.append(
        Meter(
            "time in steps",
            wording.duration(spend.seconds),
            wording.duration(seconds) if seconds else "",
            _share(spend.seconds, seconds),
        )
    )
    if tokens:
        found.append(
            Meter("tokens trained", f"{spend.train_tokens:,}", f"{tokens:,}", _share(spend.train_tokens, tokens))
        )
    found.append(Meter("forward tokens", wording.forward_tokens(spend), "", None))
    if limits.usd is not None or spend.usd:
        limit = wording.money(limits.usd) if limits.usd is not None else ""
        found.append(Meter("money", wording.money(spend.usd), limit, _share(spend.usd, limits.usd)))
    if most := limits.llm_tokens:
        found.append(Meter("LLM tokens", f"{spend.llm_tokens:,}", f"{most:,}", _share(spend.llm_tokens, most)))
    return found


def _share(used: float, limit: float | None) -> float | None:
    return None if limit is None else min(1.0, used / limit) if limit else 1.0


def latest_sections(run: RunFolder, most: int, before: int | None = None) -> list[RoundSection]:
    """The latest rounds in full, the newest first.

    Args:
        before: only rounds with a lower number.
    """
    rounds = run.rounds()
    end = len(rounds) if before is None else max(0, min(before - 1, len(rounds)))
    return sections_between(run, rounds, max(0, end - most), end)[::-1]


def sections_between(run: RunFolder, rounds: Sequence[Round], start: int, end: int) -> list[RoundSection]:
    """The rounds at these places of the ledger, each beside the pair that stood before it."""
    baseline = run.baseline()
    return [read_section(run, rounds[place], pair_before(baseline, rounds, place)) for place in range(start, end)]


def pair_before(baseline: Baseline | None, rounds: Sequence[Round], place: int) -> Candidate | None:
    if place:
        return rounds[place - 1].best
    return baseline.best if baseline else None

"""Parts of a run's page that are loaded on demand: earlier rounds, charts, examples, candidates side by side."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from fastapi import APIRouter
from fastapi.responses import FileResponse, HTMLResponse

from agent.errors import BadInput
from agent.records.evaluation import ExampleScore
from agent.records.examples import Candidate, Example
from agent.records.rounds import Round
from agent.records.training import Training
from eval.tasks.splits import read_splits
from memory.run.folder import RunFolder
from ui import wording
from ui.page import rendering
from ui.page.place import Run, task_of
from ui.page.run.overview import latest_sections, read_overview, sections_between
from ui.report import charts, signal
from ui.report.model import OutputPair, read_pairs
from ui.report.write import loss_run, write_report

router = APIRouter(tags=["parts"])
MORE = 12  # rounds, or rows, that are loaded at a time
CHARTED = 24  # rounds whose promises are drawn
TRAINED = 8  # trainings whose loss is drawn
FEW = 3  # examples that stand early on the page
REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"


class Compared(NamedTuple):
    """A row, with what two pairs answered to it."""

    name: str
    row: Example | None
    first: ExampleScore
    second: ExampleScore


@router.get("/runs/{name}/rounds", summary="Earlier rounds in full", response_class=HTMLResponse)
def show_rounds(run: Run, before: int) -> HTMLResponse:
    """The rounds before one, newest first, with a button for more."""
    sections = latest_sections(run, MORE, before)
    first = sections[-1].row.number if sections else 1
    return rendering.render("rounds.html.j2", run=run, sections=sections, earlier=first - 1)


@router.get("/runs/{name}/charts", summary="Signal, outlooks and loss", response_class=HTMLResponse)
def show_charts(run: Run) -> HTMLResponse:
    """The charts below the reward curve, and the best prompt."""
    report = read_overview(run)
    rounds, outcome = report.rounds, report.outcome
    scores = list(_scores(run, report.best).values()) if report.best else []
    states = signal.states(report.baseline, rounds, scores, outcome.drift if outcome else None)
    promised = signal.forecasts(rounds[-CHARTED:])
    losses = [loss_run(row, training) for row, training in _trainings(run, rounds)]
    return rendering.render(
        "charts.html.j2",
        report=report,
        best_pair=signal.best_pair_chart(states) if rounds else "",
        drifted=any(state.drift == state.drift for state in states),
        promise=signal.promise_chart(promised) if promised else "",
        loss=charts.loss_curve(losses) if losses else "",
        some_rounds=f" of the last {CHARTED}" if len(rounds) > CHARTED else "",
        some_trainings=f", the last {TRAINED}" if len(losses) == TRAINED else "",
        prompt=run.prompt(report.best.prompt) if report.best else None,
    )


@router.get("/runs/{name}/examples", summary="Examples, before and after", response_class=HTMLResponse)
def show_examples(run: Run, all: bool = False) -> HTMLResponse:
    """The rows that changed most, under the seed prompt and under the best pair: a few, or a dozen."""
    report = read_overview(run)
    pairs: list[OutputPair] = []
    if report.baseline and report.best:
        pairs = read_pairs(run, report.baseline.seed, report.best, report.split, rows_of(run))
    moved = bool(pairs) and report.baseline is not None and report.best != report.baseline.seed
    shown = pairs if all else pairs[:FEW]
    return rendering.render("examples.html.j2", run=run, report=report, pairs=shown, total=len(pairs), moved=moved)


@router.get("/runs/{name}/sides", summary="Two candidates on the same rows", response_class=HTMLResponse)
def show_sides(run: Run, first: int = 0, second: int = -1, skip: int = 0) -> HTMLResponse:
    """What the trials of two rounds answered to the same validation rows; 0: the seed prompt, -1: the best pair."""
    if run.baseline() is None:
        return rendering.render("sides.html.j2", run=run, options=[])
    chosen = [_candidate(run, number) for number in (first, second)]
    answered = [_scores(run, candidate) for candidate in chosen]
    rows = rows_of(run)
    both = [
        Compared(name, rows.get(name), score, answered[1][name])
        for name, score in answered[0].items()
        if name in answered[1]
    ]
    both.sort(key=lambda compared: -abs(compared.first.merit - compared.second.merit))
    skip = max(0, skip)
    return rendering.render(
        "sides.html.j2",
        run=run,
        options=_options(run),
        numbers=(first, second),
        names=[_named(run, number) for number in (first, second)],
        rewards=[_mean(scores) for scores in answered],
        compared=both[skip : skip + MORE],
        total=len(both),
        skip=skip,
        more=skip + MORE if len(both) > skip + MORE else None,
    )


@router.get("/runs/{name}/report", summary="The report, to keep or to send", response_class=FileResponse)
def show_report(run: Run) -> FileResponse:
    """report.html as the run wrote it; written now where the run was cut off before."""
    if not run.report_html.exists() or not run.reported:
        write_report(run, list(rows_of(run).values()))
    return FileResponse(run.report_html, media_type="text/html", headers={"content-security-policy": REPORT_POLICY})


def rows_of(run: RunFolder) -> Mapping[str, Example]:
    """The validation and test rows of the run's task by name; empty where they cannot be read any more."""
    try:
        return _rows(run)
    except BadInput:
        return {}


@lru_cache(4)
def _rows(run: RunFolder) -> dict[str, Example]:
    rows, *_ = read_splits(task_of(run).data, Path(run.about.source))
    return {row.name: row for row in (*rows["validation"], *rows["test"])}


def _trainings(run: RunFolder, rounds: list[Round]) -> list[tuple[Round, Training]]:
    """The latest trainings that there is a log of."""
    trained = [place for place, row in enumerate(rounds) if row.decision.move.action == "train_lora"][-TRAINED:]
    sections = [section for place in trained for section in sections_between(run, rounds, place, place + 1)]
    return [(section.row, section.training) for section in sections if section.training]


def _scores(run: RunFolder, candidate: Candidate) -> dict[str, ExampleScore]:
    """By the name of the row; one that was measured in several ways stands there as last measured."""
    return {score.example: score for score in run.load(candidate, "validation").scores.values()}


def _candidate(run: RunFolder, number: int) -> Candidate:
    report = read_overview(run)
    if report.baseline is None or report.best is None:
        raise BadInput("Nothing is measured yet.")
    if number < 0:
        return report.best
    if number == 0:
        return report.baseline.seed
    if number > len(report.rounds) or (trial := report.rounds[number - 1].trial.candidate) is None:
        raise BadInput(f"Round {number} brought no candidate; there are {len(report.rounds)} rounds.")
    return trial


def _options(run: RunFolder) -> list[tuple[int, str]]:
    """The candidates that can be compared: the seed, the trial of each round, the best pair."""
    numbers = [row.number for row in run.rounds() if row.trial.candidate]
    return [(number, _named(run, number)) for number in (-1, 0, *reversed(numbers))]


def _named(run: RunFolder, number: int) -> str:
    if number <= 0:
        return "seed prompt" if number == 0 else "best pair"
    row = run.rounds()[number - 1]
    return f"round {number}: {wording.lever(row.decision.move)}, {wording.kept(row)}"


def _mean(scores: Mapping[str, ExampleScore]) -> float | None:
    return sum(score.reward for score in scores.values()) / len(scores) if scores else None

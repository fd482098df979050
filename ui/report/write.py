"""The report of a run: one self-contained HTML page and its Markdown twin, rewritten after every round."""

import math
import shlex
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from agent.records.examples import Example
from agent.records.rounds import Round
from memory.run.folder import RunFolder
from memory.storage.disk import write_atomically
from ui import decision_wording, wording
from ui.report import charts, signal, signal_charts
from ui.report.diff import lines
from ui.report.llm import bills
from ui.report.markdown import escape, fence
from ui.report.model import Page, read_page
from ui.report.sections import Training

LOADER = FileSystemLoader(Path(__file__).parent / "templates")


def write_report(run: RunFolder, rows: Sequence[Example] = ()) -> Path:
    """Writes report.html and report.md into the run folder and returns the path of the page.

    May be called at any time: a run that is going on, or has measured nothing yet, gets a report that says so.

    Args:
        rows: validation and test rows of the task, so that outputs stand beside their question; may be left out.
    Raises:
        BadInput: the run's task.yaml cannot be read.
        NesyLoraError: the run folder cannot be written.
    """
    page = read_page(run, {row.name: row for row in rows})
    commands = _commands(page)
    promised = signal.forecasts(page.told)
    states = signal.states(page.baseline, page.rounds, page.standing, page.outcome.drift if page.outcome else None)
    facts: dict[str, object] = {"page": page, "commands": commands, "curve": _sparkline(page), "promised": promised}
    facts["states"] = [] if page.long else states
    facts["drifted"] = any(math.isfinite(state.drift) for state in states)
    facts["shell"] = "\n".join(f"{command}  # {purpose}" for command, purpose in commands)
    drawn = _charts(page) | {"course_chart": signal_charts.course_chart(states)}
    drawn["promise_chart"] = signal_charts.promise_chart(promised) if promised else Markup()
    write_atomically(run.report_html, _pages().get_template("report.html.j2").render(facts | drawn))
    write_atomically(run.report_md, _markdown().get_template("report.md.j2").render(facts))
    return run.report_html


def _charts(page: Page) -> dict[str, Markup]:
    bars = []
    if page.outcome:
        both = (("seed prompt", page.outcome.baseline_test), ("best pair", page.outcome.best_test))
        bars = [charts.Bar(label, result.reward, result.low, result.high) for label, result in both]
    start = page.baseline.reward if page.baseline else None
    points = [_point(row) for row in page.rounds if row.decision.move.action != "stop"]
    paid = bills(page.baseline, page.rounds, page.outcome)
    return {
        "money_chart": charts.money_chart(paid) if paid else Markup(),
        "interval_chart": charts.interval_chart(bars),
        "reward_curve": charts.reward_curve(points, start, page.task.target),
        "loss_curve": charts.loss_curve([_loss_run(row, training) for row, training in page.trainings]),
    }


def _sparkline(page: Page) -> str:
    """Best reward after the baseline and after each of the last rounds, as far as a line is wide."""
    rewards = [row.reward for row in (page.baseline, *page.rounds) if row][-72:]
    if not rewards:
        return ""
    return f"{wording.sparkline(rewards)}  {wording.number(rewards[0])} → {wording.number(rewards[-1])}"


def _point(row: Round) -> charts.Point:
    verdict, move = row.verdict, row.decision.move
    title = f"round {row.number}, {wording.lever(move)}, {wording.kept(verdict)}: {row.trial.note}"
    reward = math.nan
    if row.trial.candidate is not None:
        reward = verdict.after
        change = f"{wording.number(verdict.before)} → {wording.number(reward)}, p {wording.evidence(verdict)}"
        title = f"round {row.number}, {wording.lever(move)}, {wording.kept(verdict)}: {change}"
    return charts.Point(row.number, reward, move.action, verdict.kept, title)


def _loss_run(row: Round, training: Training) -> charts.LossRun:
    return charts.LossRun(
        label=f"round {row.number}",
        losses=[_known(step.loss) for step in training.steps],
        norms=[_known(step.grad_norm) for step in training.steps],
        epochs=[_known(loss) for loss in training.epoch_losses],
    )


def _known(value: float | None) -> float:
    return math.nan if value is None else value


def _commands(page: Page) -> list[tuple[str, str]]:
    """What to type next, and what it is for."""
    path = page.run.path
    run = page.run.name if path.parent == Path.cwd() / "runs" else shlex.quote(str(path))
    commands = [] if page.outcome else [(f"nesylora resume {run}", "go on where the run stands")]
    if page.best:
        pair = f"--prompt {_from_here(path / 'prompts' / f'{page.best.prompt}.json')}"
        if page.best.adapter:
            pair += f" --adapter {_from_here(page.run.adapter_folder(page.best.adapter))}"
        commands.append(
            (f"nesylora eval {_from_here(Path(page.run.about.source))} {pair}", "score the best pair again")
        )
    commands.append((f"nesylora chat {run}", "steer the run yourself, or ask its best pair something"))
    return [*commands, (f"nesylora report {run}", "write this report again")]


def _from_here(path: Path) -> str:
    """`path` as a shell takes it; relative where it can be, since a report is shown to others."""
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


@cache
def _pages() -> Environment:
    return _with_words(Environment(loader=LOADER, autoescape=True, trim_blocks=True, lstrip_blocks=True))


@cache
def _markdown() -> Environment:
    """Everything that is put in is escaped, as in HTML, unless it is marked as Markdown already."""
    environment = _with_words(Environment(loader=LOADER, finalize=escape, trim_blocks=True, lstrip_blocks=True))
    environment.filters |= {"fence": fence, "lines": lambda prompt: "\n".join(lines(prompt))}
    return environment


def _with_words(environment: Environment) -> Environment:
    environment.filters |= {say.__name__: say for say in (*wording.SAYINGS, *decision_wording.SAYINGS)}
    environment.globals |= {"glossary": wording.GLOSSARY, "parts": wording.PARTS}
    environment.globals |= {"sorters": wording.SORTERS, "levers": wording.LEVERS}
    return environment

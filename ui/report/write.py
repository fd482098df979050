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
from agent.records.training import Training
from memory.run.folder import RunFolder
from memory.storage.disk import write_atomically
from ui import decision_wording, wording
from ui.report import charts, morning, signal
from ui.report.diff import lines
from ui.report.llm import bills
from ui.report.markdown import escape, fence
from ui.report.model import Report, read_report

LOADER = FileSystemLoader(Path(__file__).parent / "templates")


def write_report(run: RunFolder, rows: Sequence[Example] = ()) -> Path:
    """Writes report.html and report.md into the run folder and returns the path of the report.

    May be called at any time: a run that is going on, or has measured nothing yet, gets a report that says so.

    Args:
        rows: validation and test rows of the task, so that outputs stand beside their question; may be left out.
    Raises:
        BadInput: the run's task.yaml cannot be read.
        NesyLoraError: the run folder cannot be written.
    """
    report = read_report(run, {row.name: row for row in rows})
    outcome = report.outcome
    states = signal.states(report.baseline, report.rounds, report.best_scores, outcome.drift if outcome else None)
    promised = signal.forecasts(report.detailed)
    commands = _commands(report)
    # Best reward after the baseline and after each of the last rounds, as far as a line is wide.
    rewards = [row.reward for row in (report.baseline, *report.rounds) if row][-72:]
    curve = ""
    if rewards:
        curve = f"{wording.sparkline(rewards)}  {wording.number(rewards[0])} → {wording.number(rewards[-1])}"
    facts: dict[str, object] = {
        "report": report,
        "gains": morning.kept_by_gain(report.sections, report.rounds),
        "dead_ends": morning.dead_ends(report.rounds),
        "troubles": morning.troubles(run, report.rounds),
        "remarks": morning.remarks(run),
        "noise": states[-1].noise if states else None,
        "states": [] if report.long else states,
        "drifted": any(math.isfinite(state.drift) for state in states),
        "promised": promised,
        "curve": curve,
        "commands": commands,
        "shell": "\n".join(f"{command}  # {purpose}" for command, purpose in commands),
    }
    drawn = _charts(report) | {"best_pair_chart": signal.best_pair_chart(states)}
    drawn["promise_chart"] = signal.promise_chart(promised) if promised else Markup()
    write_atomically(run.report_html, _pages().get_template("report.html.j2").render(facts | drawn))
    write_atomically(run.report_md, _markdown().get_template("report.md.j2").render(facts))
    return run.report_html


def _charts(report: Report) -> dict[str, Markup]:
    bars = []
    if report.outcome:
        tested = report.outcome.tested
        bars = [charts.Bar(label, result.reward, result.low, result.high) for label, result, _ in tested]
    start = report.baseline.reward if report.baseline else None
    points = [trial_point(row) for row in report.rounds if row.decision.move.action != "stop"]
    losses = [loss_run(row, training) for row, training in report.trainings]
    paid = bills(report.baseline, report.rounds, report.outcome)
    return {
        "money_chart": charts.money_chart(paid) if paid else Markup(),
        "interval_chart": charts.interval_chart(bars),
        "reward_curve": charts.reward_curve(points, start, report.task.target),
        "loss_curve": charts.loss_curve(losses),
    }


def loss_run(row: Round, training: Training) -> charts.LossRun:
    """A training as the loss chart draws it."""
    return charts.LossRun(
        label=f"round {row.number}",
        losses=[step.loss for step in training.steps],
        norms=[step.grad_norm for step in training.steps],
        epochs=training.epoch_losses,
    )


def trial_point(row: Round) -> charts.Point:
    """A round as the reward curve marks it."""
    verdict, move = row.verdict, row.decision.move
    title = f"round {row.number}, {wording.lever(move)}, {wording.kept(row)}: {row.trial.note}"
    reward = math.nan
    if row.trial.candidate is not None:
        reward = verdict.after
        change = f"{wording.number(verdict.before)} → {wording.number(reward)}, p {wording.evidence(verdict)}"
        title = f"round {row.number}, {wording.lever(move)}, {wording.kept(row)}: {change}"
    return charts.Point(row.number, reward, move.action, verdict.kept, title)


def _commands(report: Report) -> list[tuple[str, str]]:
    """Commands that go on from here, and what each is for."""
    path = report.run.path
    run = report.run.name if path.parent == Path.cwd() / "runs" else shlex.quote(str(path))
    commands = [] if report.outcome else [(f"nesylora resume {run}", "go on where the run stands")]
    if report.best:
        pair = f"--prompt {_from_here(path / 'prompts' / f'{report.best.prompt}.json')}"
        if report.best.adapter:
            pair += f" --adapter {_from_here(report.run.adapter_folder(report.best.adapter))}"
        commands.append(
            (f"nesylora eval {_from_here(Path(report.run.about.source))} {pair}", "score the best pair again")
        )
    commands.append((f"nesylora chat {run}", "steer the run yourself, or ask its best pair something"))
    return [*commands, (f"nesylora report {run}", "write this report again")]


def _from_here(path: Path) -> str:
    """`path` quoted for a shell; relative where possible, since a report is shown to others."""
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


@cache
def _pages() -> Environment:
    return with_words(Environment(loader=LOADER, autoescape=True, trim_blocks=True, lstrip_blocks=True))


@cache
def _markdown() -> Environment:
    """Everything that is put in is escaped, as in HTML, unless it is marked as Markdown already."""
    environment = with_words(Environment(loader=LOADER, finalize=escape, trim_blocks=True, lstrip_blocks=True))
    environment.filters |= {"fence": fence, "lines": lambda prompt: "\n".join(lines(prompt))}
    return environment


def with_words(environment: Environment) -> Environment:
    """The environment, in which templates may use our wording."""
    environment.filters |= {phrase.__name__: phrase for phrase in (*wording.SAYINGS, *decision_wording.SAYINGS)}
    environment.tests["gained"] = wording.gained
    environment.globals |= {"glossary": wording.GLOSSARY, "parts": wording.PARTS}
    environment.globals |= {"sorters": wording.SORTERS, "levers": wording.LEVERS}
    return environment

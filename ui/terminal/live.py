"""The terminal view of a run: what is done scrolls by and stays, what is going on stands in one line below."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from agent.records.actions import Decision
from agent.records.events import (
    BaselineScored,
    DecisionMade,
    Event,
    InquiryMade,
    LimitsSet,
    Note,
    PlanAnswered,
    RoundJudged,
    RoundStarted,
    RunFinished,
    RunStarted,
    RunStopped,
    WorkProgressed,
)
from agent.records.rounds import Baseline, Outcome, Round, Spend, Trial
from agent.time_left import TimeLeft
from graphs.cancelling import CANCELLED
from graphs.control.extension import in_words
from ui import wording
from ui.decision_wording import alternative, beside_rules, decider, doubts, inquiry, refusal
from ui.decision_wording import reason as why
from ui.talk.plans import answered

EVERY = 10.0  # seconds between progress lines where nobody watches
STYLES = {"train_lora": "blue", "edit_prompt": "yellow"}


class LiveView:
    """Shows a run's progress and events; used as a context manager.

    On a terminal a progress line with the time left stands below the finished rounds. Elsewhere (a log, CI, nohup)
    everything is plain lines without control characters, progress at most every ten seconds.

    Args:
        bars: whether progress is shown here at all; a chat shows it in a line of its own.
        stamps: begin the lines of a log with the time.
    """

    def __init__(
        self,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
        bars: bool = True,
        stamps: bool = False,
    ) -> None:
        self.console = console or Console(highlight=False)
        self._clock = clock
        self._shows_progress = bars
        self._stamps = stamps
        self._at: datetime | None = None  # when what is shown happened; None: now
        self._bars: Progress | None = None
        self._what = ""
        self._left = TimeLeft(clock)
        self._logged = clock()
        self._lock = threading.RLock()  # notes about waits for the LLM come from another thread
        self._folder = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_progress()

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        """Satisfies `agent.protocols.Progress`."""
        with self._lock:
            self._progress(what, done, total, note)

    def event(self, event: Event, time: str = "") -> None:
        """Shows what has happened; satisfies `agent.protocols.Listener`.

        Args:
            time: of the event (ISO 8601), for the stamp of its lines; empty: now.
        """
        with self._lock:
            self._at = datetime.fromisoformat(time).astimezone() if time else None
            if isinstance(event, WorkProgressed):
                self._progress(event.what, event.done, event.total, event.note)
            else:
                self._end_progress()
                self._show(event)

    def _progress(self, what: str, done: int, total: int, note: str) -> None:
        if not self._shows_progress:
            return
        if what != self._what:
            self._end_progress()
            self._what = what
        left = self._left.of(what, done, total)
        if not self.console.is_terminal:
            self._log_progress(done, total, note, left)
        elif done < total:
            self._draw_progress(done, total, note)
        else:
            self._end_progress()

    def _show(self, event: Event) -> None:
        match event:
            case RunStarted():
                self._folder = event.folder
                self._say(Text(event.name, style="bold"))
                self._say(Text(f"{event.task} · {event.model} · {event.policy} · {event.folder}", style="dim"))
            case BaselineScored(row=row):
                self._baseline(row)
            case RoundStarted(number=number):
                self._say(Text(f"\nround {number}", style="bold"))
            case InquiryMade(inquiry=made):
                self._say(Text(f"looked: {wording.printable(inquiry(made))}", style="dim"))
            case DecisionMade(decision=decision):
                self._decision(decision)
            case PlanAnswered():
                if event.answer != "approve":  # what follows shows that
                    self._say(Text(wording.printable(answered(event)), style="italic"))
            case RoundJudged(row=row):
                self._verdict(row)
            case LimitsSet(row=row):
                again = "; the run is opened again, its test rows are seen" if row.reopened else ""
                self._say(Text(f"limits: {in_words(row.limits)}{again}", style="italic"))
            case RunStopped(reason=reason):
                self._say(Text(f"stopped: {wording.printable(reason)}", style="italic"))
            case Note(text=text):
                self._say(Text(wording.printable(text), style="italic"))
            case RunFinished(outcome=outcome):
                self._finish(outcome)

    # --- events ----------------------------------------------------------------------------------

    def _baseline(self, row: Baseline) -> None:
        from_seed = "" if row.best == row.seed else f"{wording.number(row.seed_reward)} → "
        line = Text.assemble(("baseline ", "bold"), f"reward {from_seed}{wording.number(row.reward)}")
        line.append(f"  content {wording.number(row.content)}, style {wording.number(row.style)}", "dim")
        self._say(line, _so_far(row.spend))
        self._say(Text(wording.printable(row.note), style="dim"))

    def _decision(self, decision: Decision) -> None:
        action = decision.move
        line = Text(f"{wording.mark(action)} {wording.lever(action)}", style=f"bold {STYLES.get(action.action, '')}")
        line.append(f"  {wording.printable(why(decision))}", "not bold default")
        self._say(line, Text(f" ({decider(decision)})", style="dim"))
        for doubt in doubts(decision):
            self._say(Text(wording.printable(doubt), "dim"))
        if decision.by in ("planner", "learned") and (would := alternative(decision)):
            same = beside_rules(decision)
            self._say(Text(f"the rules{f', {same}' if same else ''}: {wording.printable(would)}", "dim"))

    def _verdict(self, row: Round) -> None:
        verdict = row.verdict
        if row.trial.cancelled:
            took = f"cancelled after {wording.duration(row.trial.spend.seconds)}: nothing is changed"
            self._say(Text(took, style="bold"), _so_far(row.spend))
            if row.trial.note != CANCELLED:
                self._say(Text(wording.printable(row.trial.note), style="dim"))
            return
        for sentence in _what_was_done(row.trial):
            self._say(Text(wording.printable(sentence), style="dim"))
        line = Text(f"{wording.number(verdict.before)} → {wording.number(verdict.after)}  ")
        line.append(wording.kept(row), "bold green" if wording.gained(row) else "dim")
        if verdict.measure == "merit":
            line.append(f"  merit {wording.signed(verdict.merit_gain)}", "dim")
        asked_back = row.decision.by == "user" and row.decision.move.action == "rollback"  # no gate was asked
        p = "" if asked_back else f"  p {wording.evidence(verdict)}"
        took = f"{wording.lever(row.decision.move)} took {wording.duration(row.trial.spend.seconds)}"
        if wording.gained(row) and row.reward != verdict.after:  # rows that did not choose it decided
            line.append(f"  {wording.number(row.reward)} on all rows", "dim")
        line.append(f"{p}  {took}", "dim")
        self._say(line, _so_far(row.spend))
        if verdict.objection:
            self._say(Text(wording.printable(verdict.reason), style="dim"))
        elif lost := wording.forgotten(verdict):
            self._say(Text(wording.printable(lost), style="dim"))

    def _finish(self, outcome: Outcome) -> None:
        self._say(Text(f"\nstopped: {wording.printable(outcome.stopped)}", style="bold"))
        table = Table("sealed test rows", box=None, pad_edge=False, header_style="dim")
        for column in ("joint reward", "95 % interval", "content", "style", "rows", "drift"):
            table.add_column(column, justify="right")
        for name, result, drift in outcome.tested:
            between = f"{wording.number(result.low)} – {wording.number(result.high)}"
            parts = (
                wording.number(result.content),
                wording.number(result.style),
                str(result.rows),
                wording.number(drift),
            )
            table.add_row(name, wording.number(result.reward), between, *parts)
        self.console.print(table)
        if outcome.seen:
            self._say(Text("The test rows had been seen before the run was extended: this result is no blind one."))
        if alike := wording.always(outcome):
            self._say(Text(alike, style="dim"))
        against = f"best pair against seed prompt: p {wording.p_value(outcome.p_value)}"
        self._say(Text(f"{against}; {wording.cost(outcome.spend)}", style="dim"))
        if outcome.drift:
            lost = f"drift {wording.signed(outcome.drift)} nats a token: what the weights have lost on general text"
            self._say(Text(lost, style="dim"))
        if outcome.keep:
            self._say(Text(f"tasks to be kept: {wording.printable(wording.kept_scores(outcome.keep))}", style="dim"))
        if lost_rows := outcome.best_test.too_long:
            self._say(Text(f"{lost_rows} test rows do not fit into the model's window under this prompt: wrong"))
        if outcome.usage:
            self._say(Text(f"external LLM: {wording.asked(outcome.usage)}", style="dim"))
        if self._folder:
            self._say(Text(f"report: {Path(self._folder) / 'report.html'}"))

    # --- lines -----------------------------------------------------------------------------------

    def _say(self, *parts: Text) -> None:
        """A line that stays; in a log it is never broken, so that it can be searched."""
        line = Text.assemble(*parts)
        if self._stamps and not self.console.is_terminal:
            line = Text.assemble((f"{self._at or datetime.now():%Y-%m-%d %H:%M:%S}  ", "dim"), *line.split("\n")[-1:])
        self.console.print(line, soft_wrap=not self.console.is_terminal)

    def _log_progress(self, done: int, total: int, note: str, left: float | None) -> None:
        self._at, now = None, self._clock()
        if now - self._logged < EVERY:
            return
        self._logged = now
        parts = [f"{self._what} {done}/{total}", note]
        if left is not None and done < total:
            parts.append(f"about {wording.duration(left)} left")
        self._say(Text(wording.printable(", ".join(filter(None, parts)))))

    def _draw_progress(self, done: int, total: int, note: str) -> None:
        if self._bars is None:
            self._bars = _bars(self.console)
            self._bars.start()
            self._bars.add_task(
                wording.printable(self._what), total=total, completed=done, note=wording.printable(note)
            )
        # Drawn here and now: while a step computes, the thread that draws ten times a second may hardly get a turn.
        task = self._bars.task_ids[0]
        self._bars.update(task, completed=done, total=total, note=wording.printable(note), refresh=True)

    def _end_progress(self) -> None:
        """The line goes as soon as its work is done: what is typed next must not be drawn over."""
        self._what, self._left = "", TimeLeft(self._clock)
        if self._bars:
            self._bars.stop()
            self._bars = None


def _what_was_done(trial: Trial) -> Iterator[str]:
    """What a lever did, and what the editor's LLM had to do with it."""
    yield trial.note
    refused = [refusal(proposal) for proposal in trial.proposals if proposal.merit is None]
    if trial.critiques:
        yield f"{wording.plural(len(trial.critiques), 'critique')} by the editor's LLM"
    if refused:
        yield f"{wording.plural(len(refused), 'proposal')} refused: {'; '.join(refused)}"
    if trial.remaking:
        yield wording.remade(trial.remaking)
    if trial.same_answer:
        yield wording.same_answer(trial.same_answer)


def _so_far(spend: Spend) -> Text:
    money = f", {wording.money(spend.usd)}" if spend.usd else ""
    return Text(f"  ({wording.duration(spend.seconds)}{money} so far)", style="dim")


def _bars(console: Console) -> Progress:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=18),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}", style="dim", markup=False),
        TimeRemainingColumn(compact=True),
    )
    return Progress(*columns, console=console, transient=True)

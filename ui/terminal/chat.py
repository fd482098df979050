"""The terminal chat: the same graph, stopped before every action, with the user at the switch."""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from rich.markup import escape

from agent.config.llm import Llm
from agent.errors import Busy, NesyLoraError
from agent.records.events import DecisionMade, Event, RunStarted, RunStopped
from graphs.control.steering import RunStatus, Steering
from memory.run.folder import RunFolder
from memory.run.naming import as_typed
from ui import wording
from ui.control.signals import only_ctrl_c
from ui.report.write import write_report
from ui.status_wording import CONDITIONS, progress
from ui.talk.lines import Kind, Line, line
from ui.talk.talk import Talk
from ui.terminal.live import LiveView

STYLES: dict[Kind, str] = {
    "text": "", "strong": "bold", "dim": "dim", "added": "green", "removed": "red", "fault": "yellow", "ask": "bold",
}  # fmt: skip
SOON = 0.5  # seconds in which a change is waited for at a time
ENDS = 2.0  # seconds for the step under way to be broken off; what it has done is on disk
LATER = 10.0  # seconds until a run that could not be reached is looked at again


def chat(folder: RunFolder, llm: Llm | None = None, alone: bool = False) -> int:
    """Talk until the run is finished or the user leaves.

    On a terminal the prompt stays usable while the run works. Elsewhere (a pipe, a test) lines are read one by one,
    each when the run waits again.

    Args:
        llm: hears what no phrase says. None: the task's own, if it has one.
        alone: the process is the chat's own, and ends with it: at once, even where a model is just being loaded.
    """
    on_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    view = ChatView(bars=not on_terminal)
    with ExitStack() as stack:
        stack.enter_context(view)
        here = Visit(folder, view, stack, llm)
        if on_terminal:
            _on_terminal(here)
        else:
            _line_by_line(here)
        if here.now.condition != "finished" and not here.elsewhere:
            here.say(line(f"Go on later with: nesylora chat {as_typed(folder.path)}", "dim"))
        if not here.elsewhere and here.run.status().condition == "working":
            here.say(line("closing…", "dim"))
        if alone and here.now.condition != "finished":
            slow = threading.Timer(ENDS, _end_at_once, [None if here.elsewhere else folder])
            slow.daemon = True
            slow.start()
    if alone:
        _end_at_once()
    return 0


def _end_at_once(folder: RunFolder | None = None) -> None:
    """End the process: all that a run needs is on disk, and unloading the libraries would take seconds.

    Args:
        folder: whose step could not be broken off; it is no longer worked on.
    """
    from graphs.control.process import forget

    if folder is not None and folder.path.exists():
        forget(folder)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


class ChatView(LiveView):
    """Shows what happens, but for what the conversation says itself: the plan."""

    def event(self, event: Event, time: str = "") -> None:
        if not isinstance(event, DecisionMade | RunStarted | RunStopped):
            super().event(event, time)


class Visit:
    """What both ways of chatting have in common: the run, the conversation, and what has been seen of it."""

    def __init__(self, folder: RunFolder, view: LiveView, stack: ExitStack, llm: Llm | None) -> None:
        self.console = view.console
        self.folder = folder
        self._view = view
        self.run, self.elsewhere = stack.enter_context(reached(folder, view))
        self._seen = folder.events_from(0)[1]  # another process' events, from now on
        self.now: RunStatus = self.run.status()
        self.talk = Talk(self.run, folder, self.say)
        where = " Another process works on it; you see and steer the same." if self.elsewhere else ""
        self.say(line(f"Run {folder.name}.{where} Type /help for what you can do.", "strong"))
        if llm:
            self._listen(llm, stack)

    def say(self, said: Line) -> None:
        """Print a line."""
        style = STYLES[said.kind]
        text = f"[{style}]{escape(said.text)}[/]" if style else escape(said.text)
        self.console.print(text, highlight=False, soft_wrap=not self.console.is_terminal)

    def _listen(self, llm: Llm, stack: ExitStack) -> None:
        from ui.talk.llm import listening

        def notify(text: str) -> None:
            self.say(line(text, "dim"))

        try:
            listener = stack.enter_context(listening(self.folder, llm, self.now.limits, notify))
        except Busy as error:
            self.say(line(f"Plain language is off: {error}", "fault"))
            return
        self.talk.listen(listener)
        self.say(line(f"{llm.of('chat').model} understands plain language; commands go around it.", "dim"))

    def look(self, seconds: float = SOON) -> bool:
        """Show what has changed since the last look. Whether anything has."""
        now = self.run.status(after=self.now.version, seconds=seconds)
        changed, before, self.now = now.version != self.now.version, self.now.condition, now
        if self.elsewhere:
            log, self._seen = self.folder.events_from(self._seen)
            for entry in log.entries:
                self._view.event(entry.event)
        if changed:
            self.talk.changed(now)
        if self.elsewhere and now.condition == "stopped" != before and not now.trouble:
            self.say(line("No process works on the run any more. /go goes on."))
        return changed

    def interrupted(self, error: KeyboardInterrupt) -> None:
        """Ctrl-C: the step under way is cancelled; where none is, the way out is told.

        Raises:
            Stopped: SIGTERM or SIGHUP. The process ends, and the step is done again when the run goes on.
        """
        only_ctrl_c(error)
        try:
            self.talk.tell(*self.talk.stop())
        except NesyLoraError as error:
            self.say(line(str(error), "fault"))


@contextmanager
def reached(folder: RunFolder, view: LiveView) -> Iterator[tuple[Steering, bool]]:
    """The run, and whether another process works on it; if none does, this one begins to."""
    from graphs.control.anybody import Anybody, Workers
    from graphs.control.client import live
    from graphs.control.driver import drive

    if live(folder):  # and another one, once that has ended
        yield Anybody(folder, Workers()), True
        return
    with drive(folder, supervised=True, listener=view, report=write_report) as driver:
        yield driver, False


# --- line by line ----------------------------------------------------------------------------------


def _line_by_line(here: Visit) -> None:
    settle(here, begins=True)
    while True:
        try:
            text = here.console.input("[bold]> [/]")
        except EOFError:
            return
        except KeyboardInterrupt as error:
            here.interrupted(error)
            continue
        if not sys.stdin.isatty():  # nobody has seen it being typed
            here.console.print(text, markup=False, highlight=False, soft_wrap=True)
        if not here.talk.hear(text):
            return
        settle(here)


def settle(here: Visit, begins: bool = False) -> None:
    """Wait until the run waits for the user again; Ctrl-C cancels its step.

    Raises:
        NesyLoraError: what stopped the run as it began.
    """
    here.talk.changed(here.now) if begins else None
    while True:
        try:
            changed = here.look()
            if here.now.condition == "stopped" and here.now.trouble and begins:
                raise NesyLoraError(here.now.trouble)
            idle = here.now.condition != "working" or not here.now.supervised
            if idle and (not changed or here.now.condition == "stopped"):
                return
        except KeyboardInterrupt as error:
            here.interrupted(error)


# --- on a terminal ---------------------------------------------------------------------------------


def _on_terminal(here: Visit) -> None:
    from prompt_toolkit.patch_stdout import patch_stdout

    from ui.terminal.prompting import prompt_session

    session = prompt_session(lambda: here.now.rounds, lambda: status_line(here.now, here.talk.waits))
    over = threading.Event()

    def watch() -> None:
        here.talk.changed(here.now)
        while not over.is_set():
            try:
                here.look()
            except NesyLoraError as error:
                here.say(line(str(error), "fault"))
                over.wait(LATER)
            session.app.invalidate()

    with patch_stdout(raw=True):
        watcher = threading.Thread(target=watch, name="watch", daemon=True)
        watcher.start()
        try:
            while _heard(here, session.prompt):
                pass
        finally:
            over.set()
            watcher.join(5 * SOON)


def _heard(here: Visit, ask: Callable[[], str]) -> bool:
    """One line of the user's. False: they leave."""
    try:
        text = ask()
    except EOFError:
        return False
    except KeyboardInterrupt as error:
        here.interrupted(error)
        return True
    try:
        return here.talk.hear(text)
    except KeyboardInterrupt as error:
        only_ctrl_c(error)
        here.say(line("Interrupted.", "fault"))
        return True


def status_line(now: RunStatus, waits: str) -> str:
    """Reward, budget, what is under way, and what is waited for, in a line."""
    target = f"/{wording.number(now.limits.target)}" if now.limits.target is not None else ""
    money = f" {wording.money(now.spend.usd)}" if now.spend.usd or now.limits.usd is not None else ""
    money += f" of {wording.money(now.limits.usd)}" if now.limits.usd is not None else ""
    minutes = f" of {now.limits.minutes:g} min" if now.limits.minutes is not None else ""
    doing = waits if now.condition == "waiting" else CONDITIONS[now.condition]
    if now.condition == "working" and now.step:
        doing = progress(now.step)
    parts = [
        f" reward {wording.number(now.reward)}{target}", f"round {now.rounds}/{now.limits.rounds}",
        f"{wording.duration(now.spend.seconds)}{minutes}{money}", doing,
    ]  # fmt: skip
    return " │ ".join(parts)

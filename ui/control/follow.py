"""`nesylora attach`: a run that another process works on, followed live."""

import time
from contextlib import AbstractContextManager, nullcontext, suppress

from agent.errors import NesyLoraError
from agent.records.events import RunStarted
from graphs.control import process
from graphs.control.client import attach
from graphs.control.steering import RunStatus, Steering
from memory.run.events import TimedEvent
from memory.run.folder import RunFolder
from memory.run.naming import as_typed
from ui.control.events import print_event
from ui.control.signals import only_ctrl_c
from ui.control.work import TOLD_TO_STOP, exit_code
from ui.terminal.live import LiveView

FAILED = 1
LETS_GO = 10.0  # seconds in which a process lets go of a run that has ended or was stopped
WAIT = 2.0  # seconds that one request waits for news


def follow(folder: RunFolder, json: bool = False) -> int:
    """Show what happens in the run until it ends, or the user leaves it. Returns the exit code of the run.

    Raises:
        Stopped: by a signal other than Ctrl-C.
        BadInput, Busy: see `graphs.control.client.attach`.
    """
    steering = attach(folder)
    view = None if json else LiveView(stamps=True)
    shown: AbstractContextManager[object] = view or nullcontext()
    try:
        with shown:
            last = _follow(folder, steering, view)
    except KeyboardInterrupt as error:
        only_ctrl_c(error)
        _say(
            f"\nDetached from run {folder.name}, which goes on. Back to it: nesylora attach {as_typed(folder.path)}",
            view,
        )
        return 0
    if folder.outcome():
        return exit_code(folder)
    _say(last.trouble or f"The run was stopped. Go on with: nesylora resume {as_typed(folder.path)}", view)
    failed = last.trouble if last.pid else process.noted(folder)  # it may answer still, with nothing noted yet
    return FAILED if failed else TOLD_TO_STOP


def _follow(folder: RunFolder, steering: Steering, view: LiveView | None) -> RunStatus:
    """Until no process works on it, or it has ended."""
    log, offset = folder.events_from(0)
    begun = max((place for place, entry in enumerate(log.entries) if isinstance(entry.event, RunStarted)), default=0)
    entries, asked, told, status = log.entries[begun:], "", "", steering.status()
    while True:
        for entry in entries:
            _show(entry, view)
        if status.question and view and asked != (asked := str(status.question)):
            view.console.print(f"It waits for an answer: nesylora chat {as_typed(folder.path)}")
        if view and told != (told := _pause(status, folder)) and told:
            view.console.print(told)
        if status.condition in ("finished", "stopped"):
            break
        if status.step and status.step.total and view:
            view(status.step.what, status.step.done, status.step.total, status.step.note)
        status = steering.status(status.version, WAIT)
        log, offset = folder.events_from(offset)
        entries = log.entries
    _let_go(steering, status)
    for entry in folder.events_from(offset)[0].entries:  # of an error, it tells after it has stopped
        _show(entry, view)
    return status


def _let_go(steering: Steering, status: RunStatus) -> None:
    """Wait for the process to end: the next command is to find the run free. One that asks stays for its users."""
    until = time.monotonic() + LETS_GO
    with suppress(NesyLoraError):  # it does not answer, or the run has been taken away
        while status.pid and not status.supervised and time.monotonic() < until:
            time.sleep(0.05)
            status = steering.status()


def _pause(status: RunStatus, folder: RunFolder) -> str:
    """That somebody has paused it, or will have after this step; empty where nobody has."""
    on = f"Go on with: nesylora ctl resume {as_typed(folder.path)}"
    if status.condition == "paused":
        return f"It is paused. {on}"
    return f"It pauses after this step. {on}" if status.pausing else ""


def _show(entry: TimedEvent, view: LiveView | None) -> None:
    if view is None:
        print_event(entry.event, entry.time)
    else:
        view.event(entry.event, entry.time)


def _say(text: str, view: LiveView | None) -> None:
    """To people only."""
    if view:
        view.console.print(text, soft_wrap=True, markup=False)

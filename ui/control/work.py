"""A run worked on by this process, from the command line; and one in the background."""

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

from agent.errors import BadInput, Busy
from agent.protocols import Listener
from graphs.control.client import settled, start_worker
from graphs.control.driver import Driver, drive
from graphs.control.extension import extend_stopped, in_words
from graphs.control.watching import limits_of
from memory.run.folder import RunFolder
from memory.run.naming import as_typed
from ui.control.events import JsonEvents
from ui.control.signals import Ending
from ui.report.write import write_report
from ui.telling.run import telling
from ui.telling.tracker import Tracker
from ui.terminal.live import LiveView

REACHED, IMPROVED, NOTHING = 0, 4, 5
TOLD_TO_STOP = 143  # by another process: as if by SIGTERM
IDLE = 900.0  # seconds after which a worker that waits for a user ends: a face that comes back starts another


def exit_code(folder: RunFolder) -> int:
    """0: the target is reached; 4: something was gained, below the target; 5: nothing was. Of a run that has ended."""
    first, outcome, rounds, target = folder.baseline(), folder.outcome(), folder.rounds(), limits_of(folder).target
    assert first is not None and outcome is not None and target is not None, "the run has ended"
    if (rounds[-1] if rounds else first).reward >= target:
        return REACHED
    return NOTHING if outcome.best in first.brought else IMPROVED


def work(folder: RunFolder, ending: Ending, *, json: bool = False, supervised: bool = False) -> int:
    """Work on the run to its end. Returns the exit code.

    Args:
        supervised: it asks others, over its socket, before each action; and it ends once nobody has come for a while.

    Raises:
        Busy: another process has the run; with the ways to follow and to steer it.
    """
    from eval.tasks.task import load_config

    refuse_second(folder)
    config = load_config(folder.task_file)
    view: JsonEvents | LiveView = JsonEvents() if json else LiveView(stamps=True)
    shown: AbstractContextManager[object] = view if isinstance(view, LiveView) else nullcontext()
    try:
        listener: Listener = Tracker(view, config.track) if config.track else view
    except BadInput:
        folder.discard_unless_begun()  # or a run that was never begun would keep its name
        raise
    with (
        telling(folder, config.notify),
        shown,
        drive(folder, supervised=supervised, listener=listener, report=write_report) as driver,
    ):
        try:
            if supervised:
                _attend(driver)
            else:
                driver.wait()
        except KeyboardInterrupt:
            ending.begin("ending after the batch under way; a second signal ends it at once")
            raise
    return exit_code(folder) if folder.outcome() else TOLD_TO_STOP


def refuse_second(folder: RunFolder) -> None:
    """Raises Busy where a process works on the run, with what can be done from here."""
    if remote := settled(folder):
        status = remote.status()
        raise Busy(
            f"Process {status.pid} works on run {folder.name} (it is {status.condition}), and only one can. Follow it "
            f"with: nesylora attach {as_typed(folder.path)}. Steer it with: nesylora ctl (pause, extend, cancel, stop)"
        )


def detach(folder: RunFolder) -> int:
    """Start a process of its own for the run, and leave it to it."""
    refuse_second(folder)
    status = start_worker(folder).status()
    print(f"Run {folder.name} works in the background (process {status.pid}); its log: {folder.path / 'console.log'}")
    print(f"Follow it:  nesylora attach {as_typed(folder.path)}    Steer it:  nesylora ctl --help")
    return 0


def extend(folder: RunFolder, changes: Mapping[str, float | None]) -> None:
    """Set limits of a run that no process works on, and say what holds now."""
    from eval.tasks.task import load_config

    refuse_second(folder)
    row = extend_stopped(folder, load_config(folder.task_file), changes)
    print(f"{folder.name}: {in_words(row.limits)}")
    if row.reopened:
        print("It had finished. Its test rows have been seen, and its next result on them will say so.")


def _attend(driver: Driver) -> None:
    """Until the run is left, or nobody has asked for a while what it does, and it waits."""
    while not driver.is_idle(IDLE) and driver.condition != "stopped":
        time.sleep(0.5)
    driver.wait(0.0)  # raises what stopped it

"""A run that another process works on, steered from here."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import BinaryIO, cast

from agent.errors import BadInput, Busy, NesyLoraError
from agent.records.actions import Action
from agent.records.looks import Finding, Look
from graphs.control import process, wire
from graphs.control.steering import Condition, RunStatus, Steering
from graphs.control.watching import status_of_folder
from memory.run.folder import RunFolder
from memory.run.naming import as_typed
from memory.storage.lock import holder

STARTS = 120.0  # seconds that a worker may take until it can be reached
ENDS = 60.0  # seconds for a worker that is told to end
NOTES = 1.0  # seconds in which a process that has just taken a run notes itself there
ANSWERS = 30.0  # seconds for an answer, beside what is waited for on purpose


class Remote:
    """A run that another process works on. Satisfies `graphs.control.steering.Steering`.

    Each call is a connection of its own, so it may be used from several threads, and holds nothing open.
    """

    def __init__(self, folder: RunFolder, at: process.Process) -> None:
        self._folder = folder
        self._at = at
        self._ended = 0  # the version of what is said once it is gone: that does not change any more

    def status(self, after: int = -1, seconds: float = 0.0) -> RunStatus:
        try:
            return self._steer("status", {"after": after, "seconds": seconds}, seconds)
        except Gone as gone:  # what the folder says is still true
            if not self._folder.path.exists():  # the task could not be used, and nothing was measured
                raise
            if after == self._ended:
                time.sleep(seconds)
            self._ended = self._ended or max(int(time.time() * 1000), after + 1)
            left = status_of_folder(self._folder)
            trouble = "" if left.condition == "finished" else str(gone)
            return left.model_copy(update={"version": self._ended, "trouble": trouble})

    def answer(self, answer: Mapping[str, object], number: int | None = None) -> RunStatus:
        return self._steer("answer", {"answer": dict(answer), "number": number})

    def act(self, action: Action) -> RunStatus:
        return self._steer("act", {"action": action})

    def go_on(self, rounds: int | None = None) -> RunStatus:
        return self._steer("go_on", {"rounds": rounds})

    def pause(self, now: bool = False) -> RunStatus:
        return self._steer("pause", {"now": now})

    def cancel_step(self) -> RunStatus:
        return self._steer("cancel_step", {})

    def extend(self, **limits: float | None) -> RunStatus:
        return self._steer("extend", limits)

    def share(self, limits: Mapping[str, float | None]) -> RunStatus:
        """As `graphs.control.driver.Driver.share`."""
        return self._steer("share", {"limits": dict(limits)})

    def finish(self) -> RunStatus:
        return self._steer("finish", {})

    def leave(self) -> RunStatus:
        try:
            return self._steer("leave", {})
        except Gone:  # quicker than its answer
            return self.status()

    def look(self, look: Look) -> Finding:
        return cast(Finding, self._call("look", {"look": look}, None))

    def _steer(self, call: str, arguments: Mapping[str, object], waits: float = 0.0) -> RunStatus:
        return cast(RunStatus, self._call(call, arguments, ANSWERS + waits))

    def _call(self, call: str, arguments: Mapping[str, object], timeout: float | None) -> RunStatus | Finding:
        """What the other process returns.

        Args:
            timeout: seconds for the answer; None: as long as it takes.
        """
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(timeout)
                connection.connect(self._at.socket)
                connection.sendall(wire.request(call, arguments))
                with connection.makefile("rb") as lines:
                    line = lines.readline()
        except TimeoutError:
            raise Busy(f"Process {self._at.pid}, which works on run {self._folder.name}, does not answer.") from None
        except OSError:
            line = b""
        if not line.endswith(b"\n"):
            raise Gone(self._gone())
        return wire.result(line, call)

    def _gone(self) -> str:
        now = process.noted(self._folder)
        if now is None or now.pid != self._at.pid or now.trouble:
            why = f": {now.trouble}" if now and now.trouble else ", as it was told to"
            go_on = f"{GO_ON}{as_typed(self._folder.path)}"
            return f"Process {self._at.pid} has let go of run {self._folder.name}{why}. {go_on}"
        return killed(self._folder, self._at)


GO_ON = "Go on with: nesylora resume "


class Gone(NesyLoraError):
    """The process that worked on the run is no more."""


def attach(folder: RunFolder) -> Steering:
    """The run, which another process works on; see `settled`.

    Raises:
        BadInput: none does.
        Busy: one does, and cannot be reached.
    """
    remote = settled(folder)
    if remote is not None:
        return remote
    if trouble := process.lost(folder):
        raise Busy(trouble)
    if held := holder(folder.lock_path):
        raise Busy(
            f"The run {folder.name} is in use by {held}, which cannot be steered from outside (a program of your own, "
            "a benchmark, another machine). Wait for its end, or stop it there."
        )
    if folder.outcome():
        raise BadInput(
            f"Run {folder.name} has finished: no process works on it. {EXTEND}{as_typed(folder.path)} --rounds N"
        )
    raise BadInput(f"No process works on run {folder.name}. {GO_ON}{as_typed(folder.path)}")


EXTEND = "To go on: nesylora ctl extend "


def live(folder: RunFolder) -> Remote | None:
    """The run if a process works on it and can be reached."""
    at = process.noted(folder)
    if at is None or not at.socket or at.host != socket.gethostname():
        return None
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(ANSWERS)
            connection.connect(at.socket)
    except OSError:
        return None
    return Remote(folder, at)


def settled(folder: RunFolder) -> Remote | None:
    """The run if a process works on it and can be reached; one that has just taken it, or lets go, is waited for."""
    begun = time.monotonic()
    while (remote := live(folder)) is None and holder(folder.lock_path) and not process.lost(folder):
        patience = STARTS if process.on_its_way(folder) else NOTES
        if time.monotonic() - begun > patience:
            return None
        time.sleep(0.05)
    return remote


def status_of(folder: RunFolder, attached: Callable[[RunFolder], Steering | None] = live) -> RunStatus:
    """Where a run stands: as whoever works on it says, else as its folder has it.

    Args:
        attached: finds whoever works on it and can be reached.

    Raises:
        BadInput: the ledger is damaged.
        Gone: so is the folder.
    """
    try:
        if steering := attached(folder):
            return steering.status()
    except (BadInput, Gone):
        raise
    except NesyLoraError as error:  # a run that does not answer, or in another version's words, hides no other
        return status_of_folder(folder, "working").model_copy(update={"trouble": str(error)})
    return resting(folder)


def resting(folder: RunFolder) -> RunStatus:
    """The status of a run that nobody works on whom we can reach: somebody else may have it. Errors as `status_of`."""
    status = status_of_folder(folder)
    if status.condition == "finished":
        return status
    if held := holder(folder.lock_path):
        if passing := process.on_its_way(folder):
            condition: Condition = "working" if passing.socket else "stopped"
            return status.model_copy(
                update={"condition": condition, "trouble": process.lost(folder) or passing.trouble}
            )
        trouble = f"It is in use by {held}, which cannot be steered from here."
        return status.model_copy(update={"condition": "working", "trouble": trouble})
    last = process.noted(folder)
    return status.model_copy(update={"trouble": (last.trouble or killed(folder, last)) if last else ""})


def killed(folder: RunFolder, last: process.Process) -> str:
    """What is said of a process that is gone and has noted nothing."""
    return (
        f"Process {last.pid}, which worked on run {folder.name}, has ended without a word (killed, or out of memory). "
        f"What was completed is kept. {GO_ON}{as_typed(folder.path)}"
    )


def steer(folder: RunFolder, supervised: bool = True) -> Steering:
    """The run to be steered: if no process works on it, one is started.

    Args:
        supervised: whether a process that is started asks before each action. One that works on the run already goes on
            as it was started.

    Raises:
        Busy: a process has it and cannot be reached.
        NesyLoraError: the process that was started has ended at once; the message says why.
    """
    remote = settled(folder)
    if remote is not None:
        return remote
    if holder(folder.lock_path):
        return attach(folder)  # raises
    return start_worker(folder, supervised)


def start_worker(folder: RunFolder, supervised: bool = False) -> Steering:
    """A process of its own that works on the run and outlives this one. It writes to `console.log` in the run folder.

    Where somebody else starts one at the same moment, it is theirs.

    Raises:
        Busy: another process has the run, and cannot be reached.
        NesyLoraError: it has ended at once; the message says why. BadInput, where it said so.
    """
    log = folder.path / "console.log"
    command = [sys.executable, "-P", "-m", "nesylora", "resume", str(folder.path), "--worker"]
    with log.open("a+b") as said:  # kept open: a run of a task that cannot be used is taken away
        before = said.seek(0, os.SEEK_END)
        worker = subprocess.Popen(
            [*command, *(["--supervised"] if supervised else [])], stdin=subprocess.DEVNULL, stdout=said,
            stderr=subprocess.STDOUT, start_new_session=True, env=process.environment(),
        )  # fmt: skip
        try:
            return _reached(folder, worker, said, before)
        except BaseException:  # a signal, too: nobody would know of a process that cannot be reached yet
            _end(worker)
            raise


def _reached(folder: RunFolder, worker: "subprocess.Popen[bytes]", said: BinaryIO, before: int) -> Steering:
    """The run, once the process that was started for it can be reached. Errors as `start_worker`.

    Args:
        said: what it writes, from `before` on.
    """
    until = time.monotonic() + STARTS
    while time.monotonic() < until:
        at = process.noted(folder)
        if at is not None and at.pid == worker.pid and (remote := live(folder)):
            threading.Thread(target=worker.wait, daemon=True).start()  # or its end leaves a zombie
            return remote
        if worker.poll() == Busy.exit_code:
            return attach(folder)  # another process has taken the run first
        if worker.poll() is not None:
            said.seek(before)
            last = said.read().decode(errors="replace").strip().splitlines()
            kind = BadInput if worker.returncode == BadInput.exit_code else NesyLoraError
            raise kind(
                f"The process for run {folder.name} has ended with code {worker.returncode}: "
                f"{last[-1] if last else 'it said nothing'}"
            )
        time.sleep(0.05)
    raise NesyLoraError(
        f"The process for run {folder.name} cannot be reached after {STARTS:.0f} s: see {folder.path / 'console.log'}"
    )


def _end(worker: "subprocess.Popen[bytes]") -> None:
    """Has it let go of its run; kills it where it does not."""
    worker.terminate()
    try:
        worker.wait(ENDS)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()

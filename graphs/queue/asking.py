"""What the process that works on a run of a queue is asked, on a machine that may be busy."""

import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress

from agent.errors import Busy
from graphs.control import process
from graphs.control.steering import RunStatus, Steering
from graphs.queue.pulse import Pulse
from memory.run.folder import RunFolder
from memory.storage.lock import holder

POLL = 2.0  # seconds that one request waits for news of a run
LETS_GO = 300.0  # seconds in which a process that has ended its run lets go of it
HANGS = 120.0  # seconds without an answer after which a process is ended, once the time of the queue is over
ENDS = 30.0  # seconds for a process that is told to end


def status_of(
    run: RunFolder, steering: Steering, after: int, due: Callable[[], bool], pulse: Pulse | None = None
) -> RunStatus:
    """The run's status, once it is beyond this version or a while has passed. Otherwise as `asked`."""
    return asked(run, lambda: steering.status(after, POLL if after >= 0 else 0.0), due, pulse)


def asked(
    run: RunFolder, ask: Callable[[], RunStatus], due: Callable[[], bool], pulse: Pulse | None = None
) -> RunStatus:
    """What the process of the run answers. A busy machine is waited for.

    Args:
        due: whether the time of the queue is over: then a process that goes on not to answer is ended.
        pulse: one that neither answers nor gives another sign of life is ended, too.
    """
    since = time.monotonic()
    while True:
        try:
            return ask()
        except Busy:
            if not holder(run.lock_path):
                raise
            if (due() and time.monotonic() - since >= HANGS) or (pulse and not pulse.beats()):
                end_process(run)


def end_process(run: RunFolder) -> None:
    """End the process that works on the run, with force where it does not hear."""
    at = process.noted(run)
    if at is None or at.host != socket.gethostname():
        return
    for sent in (signal.SIGTERM, signal.SIGKILL):
        if holder(run.lock_path):
            with suppress(ProcessLookupError):
                os.kill(at.pid, sent)
            until_free(run, ENDS)


def until_free(run: RunFolder, seconds: float = LETS_GO) -> None:
    """Wait until the process has let go of the run: it writes its report last."""
    until = time.monotonic() + seconds
    while holder(run.lock_path) and time.monotonic() < until:
        time.sleep(0.05)

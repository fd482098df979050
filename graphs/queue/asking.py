"""What the process that works on a run of a queue is asked, on a machine that may be busy."""

import time
from collections.abc import Callable

from agent.errors import Busy
from graphs.control.steering import RunStatus, Steering
from memory.run.folder import RunFolder
from memory.storage.lock import holder

POLL = 2.0  # seconds that one request waits for news of a run
LETS_GO = 300.0  # seconds in which a process that has ended its run lets go of it


def status_of(run: RunFolder, steering: Steering, after: int) -> RunStatus:
    """The run's status, once it is beyond this version or a while has passed."""
    return asked(run, lambda: steering.status(after, POLL if after >= 0 else 0.0))


def asked(run: RunFolder, ask: Callable[[], RunStatus]) -> RunStatus:
    """What the process of the run answers. A busy machine is waited for."""
    while True:
        try:
            return ask()
        except Busy:
            if not holder(run.lock_path):
                raise


def until_free(run: RunFolder) -> None:
    """Wait until the process has let go of the run: it writes its report last."""
    until = time.monotonic() + LETS_GO
    while holder(run.lock_path) and time.monotonic() < until:
        time.sleep(0.05)

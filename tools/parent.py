"""A process that works for another one, and ends with it."""

import os
import signal
import threading


def end_with_parent() -> None:
    """End this process when the process at the other end of stdin interrupts it, and as soon as that is gone."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # Ray blocks it in all that its tasks start

    def wait() -> None:
        os.read(0, 1)  # not sys.stdin: a thread that waits in it keeps the interpreter from its end
        os._exit(1)  # as a kill would; what is on disk goes on from there

    threading.Thread(target=wait, daemon=True).start()

"""A process that works for another one, and ends with it."""

import os
import threading


def end_with_parent() -> None:
    """End this process as soon as the process at the other end of stdin is gone, however it ended."""

    def wait() -> None:
        os.read(0, 1)  # not sys.stdin: a thread that waits in it keeps the interpreter from its end
        os._exit(1)  # as a kill would; what is on disk goes on from there

    threading.Thread(target=wait, daemon=True).start()

"""Runs a command until stdin ends, however the process at its other end did: then nothing of it is left behind.

A script of its own: `python -I beside.py COMMAND …`. It imports nothing of NeSyLoRA.
"""

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

GRACE = 10.0  # seconds that the command has to end by itself


def main(command: list[str]) -> int:
    # In a group of its own: an engine has processes of its own, and Ctrl-C is for those who use it.
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    def wait() -> None:
        while os.read(0, 1):
            pass
        end(child)

    threading.Thread(target=wait, daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT):  # not in the handler, which would hold what `wait` waits for
        signal.signal(number, lambda *_: threading.Thread(target=end, args=(child,), daemon=True).start())
    code = child.wait()
    with suppress(ProcessLookupError):  # processes of its own that have outlived it
        os.killpg(child.pid, signal.SIGKILL)
    return code


def end(child: "subprocess.Popen[bytes]") -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, number)
            child.wait(GRACE)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

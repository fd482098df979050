"""Says which server is waited for: without that, a run that begins would seem to hang for a minute."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SOON = 2.0  # seconds in which a server usually answers
_told = set[str]()


@contextmanager
def told(what: str) -> Iterator[None]:
    """Around a wait for this: after two seconds it is said on standard error, once in a process."""
    timer = threading.Timer(SOON, _tell, (what,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _tell(what: str) -> None:
    if what not in _told:
        _told.add(what)
        print(f"nesylora: waiting for {what}", file=sys.stderr, flush=True)

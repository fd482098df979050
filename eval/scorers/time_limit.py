"""A limit on the time that a scorer of the user's own may take for one answer: a run must not hang in it."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

from agent.errors import ExtensionFailed
from eval.scorers.patterns import TooSlow

T = TypeVar("T")

LIMIT = 30.0  # seconds of one call
IN_A_ROW = 3  # calls given up one after another, and the scorer is broken


class _Late(BaseException):
    """Not an Exception, which the user's code may catch."""


class TimeLimit:
    """Calls a function of the user's, and gives up a call that takes too long.

    In a thread other than the main one, code that never lets go of the interpreter (Python's `re` while it searches)
    cannot be given up. `regex` with its `timeout` can.

    Args:
        what: names the scorer in errors.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._late = 0

    def __call__(self, call: Callable[[], T]) -> T:
        """What the call returns or raises.

        Raises:
            TooSlow: it was given up.
            ExtensionFailed: it was, for the third time in a row.
        """
        try:
            found = _called_with_alarm(call) if _can_set_alarm() else _called_in_thread(call)
        except _Late:
            self._late += 1
        else:
            self._late = 0
            return found
        if self._late >= IN_A_ROW:
            raise ExtensionFailed(
                f"The {self._what} was given up on {IN_A_ROW} answers in a row, on each after {LIMIT:g} seconds. "
                "Correct it, then start again."
            )
        raise TooSlow(f"The {self._what} was given up on this answer after {LIMIT:g} seconds.")


def _can_set_alarm() -> bool:
    """In the main thread, of a system that has alarms, while nobody else waits for one."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        return False
    return signal.getitimer(signal.ITIMER_REAL)[0] == 0


def _called_with_alarm(call: Callable[[], T]) -> T:
    def late(number: int, frame: FrameType | None) -> None:
        raise _Late

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, LIMIT, 1.0)  # again each second, where a bare `except` swallowed the first
    try:
        return call()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _called_in_thread(call: Callable[[], T]) -> T:
    found: list[T] = []
    raised: list[BaseException] = []

    def work() -> None:
        try:
            found.append(call())
        except BaseException as error:
            raised.append(error)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    worker.join(LIMIT)
    if worker.is_alive():
        raise _Late
    if raised:
        raise raised[0]
    return found[0]

"""SIGTERM, SIGHUP and Ctrl-C: the first ends cleanly, the second at once."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP"}


class Stopped(KeyboardInterrupt):
    """A signal asks the process to end. `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(NAMES[signal.Signals(number)])
        self.number = number


class Ending:
    """Whether the process is ending already, so that another signal ends it at once.

    `advice` is the sentence that a user is left with: what became of the work, and how it goes on.
    """

    def __init__(self) -> None:
        self._begun = False
        self.advice = ""

    def begin(self, message: str) -> None:
        """From here on another signal leaves at once."""
        self._begun = True
        with suppress(OSError):  # nobody reads it any more
            print(f"\nnesylora: {message}", file=sys.stderr, flush=True)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Of a signal."""
        if self._begun:
            os._exit(128 + number)
        if number == signal.SIGHUP:
            _leave_the_terminal()
        if number != signal.SIGINT:  # a chat may go on after a Ctrl-C
            self._begun = True
        raise Stopped(number)


@contextmanager
def clean_ending() -> Iterator[Ending]:
    """Signals raise `Stopped` in the main thread inside. Those that are ignored, as under nohup, stay ignored."""
    ending = Ending()
    if threading.current_thread() is not threading.main_thread():
        yield ending
        return
    before = {number: signal.getsignal(number) for number in NAMES}
    ours = [number for number, handler in before.items() if handler not in (signal.SIG_IGN, None)]
    for number in ours:
        signal.signal(number, ending.handle)
    try:
        yield ending
    finally:
        for number in ours:
            signal.signal(number, before[number])


def quiet_end() -> None:
    """Of a process whose work is done: Ctrl-C while the interpreter ends shows no traceback of a library's clean-up."""
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:  # else it is ignored, as under nohup
        signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def outlive_the_terminal() -> Iterator[None]:
    """The end of the terminal does not end the process inside; what it still says then is lost."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        yield
        return
    before = signal.signal(signal.SIGHUP, lambda number, frame: _leave_the_terminal())
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def only_ctrl_c(error: KeyboardInterrupt) -> None:
    """Raise it again unless it is Ctrl-C: a face that goes on after a Ctrl-C must not do so after another signal."""
    if isinstance(error, Stopped) and error.number != signal.SIGINT:
        raise error


def exit_code(error: KeyboardInterrupt) -> int:
    """130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP, as a shell gives them."""
    return 128 + (error.number if isinstance(error, Stopped) else signal.SIGINT)


def _leave_the_terminal() -> None:
    """What is still said would meet a terminal that is closed."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        if os.isatty(stream):
            os.dup2(nowhere, stream)

"""Requests to an engine, many at a time, while the run may be broken off."""

import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TypeVar

T = TypeVar("T")

LOOKS_UP = 0.2  # seconds between two looks at whether the run is broken off


def in_parallel(
    work: Callable[[int], T],
    places: Sequence[int],
    width: int,
    look_up: Callable[[], object],
    abandon: Callable[[], object],
) -> Generator[tuple[int, T], None, None]:
    """What `work` makes of each place, as it comes.

    Args:
        width: most calls at the same time.
        look_up: called all the while in this thread; what it raises ends the waiting, and begins no further call.
        abandon: called where that, an error, or who closes the iterator, ends it: calls under way need not wait any
            more.

    Raises:
        Exception: whatever `work` raises first.
    """
    waiting, done = SimpleQueue[int](), SimpleQueue[tuple[int, Future[T]]]()
    for place in places:
        waiting.put(place)

    def run() -> None:
        while True:
            try:
                place = waiting.get_nowait()
            except Empty:
                return
            made = Future[T]()
            try:
                made.set_result(work(place))
            except BaseException as error:  # raised again where it is waited for
                made.set_exception(error)
            done.put((place, made))

    # Daemons, not a pool of executors: Python would wait for answers that nobody wants any more, at its end.
    for number in range(min(width, len(places))):
        threading.Thread(target=run, name=f"engine {number}", daemon=True).start()
    left = len(places)
    try:
        while left:
            try:
                place, made = done.get(timeout=LOOKS_UP)
            except Empty:
                look_up()
                continue
            look_up()
            yield place, made.result()
            left -= 1
    finally:
        if left:
            with suppress(Empty):
                while True:
                    waiting.get_nowait()
            abandon()

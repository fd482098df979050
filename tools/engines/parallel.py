"""Requests to an engine, many at a time, while the run may be broken off."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

T = TypeVar("T")

LOOKS_UP = 0.2  # seconds between two looks at whether the run is broken off


def in_parallel(
    work: Callable[[int], T], places: Sequence[int], width: int, look_up: Callable[[], object]
) -> Iterator[tuple[int, T]]:
    """What `work` makes of each place, as it comes.

    Args:
        width: most calls at the same time.
        look_up: called all the while in this thread; what it raises ends the waiting, and begins no further call.

    Raises:
        Exception: whatever `work` raises first.
    """
    pool = ThreadPoolExecutor(max(1, min(width, len(places))), thread_name_prefix="engine")
    try:
        waiting: dict[Future[T], int] = {pool.submit(work, place): place for place in places}
        while waiting:
            done, _ = wait(waiting, timeout=LOOKS_UP, return_when=FIRST_COMPLETED)
            look_up()
            for future in done:
                yield waiting.pop(future), future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)

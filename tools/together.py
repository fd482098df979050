"""Many questions to the external LLM at once."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

from agent.errors import LlmUnavailable
from agent.protocols import Progress

T = TypeVar("T")
Given = TypeVar("Given")


def together(
    work: Callable[[Given], T], given: Sequence[Given], width: int, what: str, progress: Progress
) -> tuple[dict[int, T], LlmUnavailable | None]:
    """The work on each of `given`, `width` of them at a time, progress told as each one ends.

    Returns:
        What came of it, by place and in order; and, if the LLM was lost, the error that stopped those not begun.
    """
    lost = None
    with ThreadPoolExecutor(width) as pool:
        places = {pool.submit(work, one): place for place, one in enumerate(given)}
        try:
            for done, future in enumerate(as_completed(places), 1):
                future.result()
                progress(what, done, len(given))
        except LlmUnavailable as error:
            lost = error
        finally:
            pool.shutdown(cancel_futures=True)
    came = {place: future for future, place in places.items() if not (future.cancelled() or future.exception())}
    return {place: future.result() for place, future in came.items()}, lost

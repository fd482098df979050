"""Many questions to the external LLM at once."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import suppress
from typing import TypeVar

from agent.errors import LlmUnavailable
from agent.protocols import Chat, Progress

T = TypeVar("T")
Given = TypeVar("Given")


def together(
    work: Callable[[Given], T], given: Sequence[Given], chat: Chat, what: str, progress: Progress
) -> tuple[dict[int, T], LlmUnavailable | None]:
    """The work on each of `given`, as many at a time as the chat takes, progress told as each one ends.

    Returns:
        What came of it, by place and in order; and, if the LLM was lost, the error that stopped those not begun.
    """
    lost, interrupted = None, True
    with ThreadPoolExecutor(chat.width) as pool:
        places = {pool.submit(work, one): place for place, one in enumerate(given)}
        try:
            for done, future in enumerate(as_completed(places), 1):
                future.result()
                progress(what, done, len(given))
            interrupted = False
        except LlmUnavailable as error:
            lost, interrupted = error, False
        finally:
            if interrupted:
                chat.abandon()
            pool.shutdown(cancel_futures=True)
    return dict(_came(places)), lost


def _came(places: dict[Future[T], int]) -> Iterator[tuple[int, T]]:
    """Raises what is neither a result nor the LLM's absence."""
    for future, place in places.items():
        if not future.cancelled():
            with suppress(LlmUnavailable):
                yield place, future.result()

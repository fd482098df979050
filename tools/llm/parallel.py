"""Many questions to the external LLM at the same time."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from typing import TypeVar

from agent.errors import LlmUnavailable
from agent.protocols import Chat, Progress

T = TypeVar("T")
Item = TypeVar("Item")


def run_parallel(
    work: Callable[[Item], T], items: Sequence[Item], chat: Chat, what: str, progress: Progress
) -> tuple[dict[int, T], LlmUnavailable | None]:
    """Do the work on each item in threads, as many as the chat allows; `progress` is called as each one ends.

    An interrupt abandons the chat's calls. Items that have not begun when the LLM is lost are left out.

    Returns:
        The results by index, in order; and the LlmUnavailable that stopped the rest, or None.

    Raises:
        Whatever the work raises, except LlmUnavailable.
    """
    lost, interrupted = None, True
    with ThreadPoolExecutor(chat.width) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            for done, future in enumerate(as_completed(futures), 1):
                future.result()
                progress(what, done, len(items))
            interrupted = False
        except LlmUnavailable as error:
            lost, interrupted = error, False
        finally:
            if interrupted:
                chat.abandon()
            pool.shutdown(cancel_futures=True)
    results: dict[int, T] = {}
    for index, future in enumerate(futures):
        if not future.cancelled():
            with suppress(LlmUnavailable):
                results[index] = future.result()
    return results, lost

"""Rows run in batches of like length, as many at a time as memory holds."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import transformers

from agent.errors import NesyLoraError
from tools.memory_budget import is_out_of_memory
from tools.model.chat_template import TokenRow
from tools.packed.padding import rows_together

T = TypeVar("T")


class TooLarge(NesyLoraError):
    """Memory does not hold a row of so many tokens, and new ones."""

    def __init__(self, tokens: int, new: int) -> None:
        super().__init__(
            f"Memory does not hold one row of {tokens} tokens and {new} new ones. Lower generation.max_new_tokens, or "
            "take a smaller model."
        )


class RowBatches:
    """Runs rows a batch at a time. Once memory has run out, all later batches are smaller.

    Args:
        base: the model they are run through.
        size: most rows of a batch.
    """

    def __init__(self, base: transformers.PreTrainedModel, size: int) -> None:
        self._base = base
        self._size = size
        self._most: int | None = None  # rows that memory holds, known once it has run out

    def count(self, rows: int, at_least: int = 0) -> int:
        """How many batches so many rows take, if memory holds them."""
        return -(-rows // self._rows(at_least))

    def _rows(self, at_least: int) -> int:
        size = max(self._size, at_least)
        return size if self._most is None else min(size, self._most)

    def run(
        self,
        rows: Sequence[TokenRow],
        places: Iterable[int],
        new: int,
        run: Callable[[list[int]], T],
        at_least: int = 0,
        release: Callable[[], bool] = lambda: False,
    ) -> Iterator[tuple[list[int], T]]:
        """Run the rows at these places, shortest first; a batch that runs out of memory is halved and run again.

        Args:
            new: tokens that each may get in addition.
            run: runs the rows at some of the places.
            at_least: rows of a batch, where the usual size is smaller.
            release: gives memory back that others keep; whether there was any. Then a batch is tried again as it is.

        Yields:
            The places of a batch, and what `run` returned for them.

        Raises:
            TooLarge: memory does not hold one row alone.
        """
        waiting = sorted(places, key=lambda place: len(rows[place]))
        while waiting:
            batch = waiting[: self._rows(at_least)]
            batch = batch[: rows_together(self._base, [len(rows[place]) + new for place in batch])]
            try:
                result = run(batch)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if release():
                    continue
                if len(batch) == 1:
                    raise TooLarge(len(rows[batch[0]]), new) from None
                self._most = len(batch) // 2
                continue
            yield batch, result
            waiting = waiting[len(batch) :]

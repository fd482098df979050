"""Completions of a batch as they grow token by token, and when each of its rows may stop."""

from collections.abc import Callable, Sequence

from agent.protocols import StopEarly
from agent.records.examples import Example


class Completions:
    """Takes the next token of every active row; a row stops at an end token, or once more text cannot matter.

    Args:
        examples: what the rows answer.
        ends: ids that end a row.
        decode: the text of ids.
        stop_early: whether a row may stop with this text; None: rows run until an end token.

    Attributes:
        ids: the new tokens of each row, without its end token.
        active: the rows that go on, in order.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        ends: Sequence[int],
        decode: Callable[[list[int]], str],
        stop_early: StopEarly | None,
    ) -> None:
        self.ids: list[list[int]] = [[] for _ in examples]
        self.active = list(range(len(examples)))
        self._examples = examples
        self._ends = frozenset(ends)
        self._decode = decode
        self._stop_early = stop_early

    def append(self, tokens: Sequence[int]) -> list[int]:
        """Take the next token of every active row.

        Returns:
            The places, among the rows that were active, of those that still are.
        """
        staying = []
        for place, (row, token) in enumerate(zip(self.active, tokens, strict=True)):
            if token in self._ends:
                continue
            self.ids[row].append(token)
            if self._stop_early is None or not self._stop_early(self._examples[row], self._decode(self.ids[row])):
                staying.append(place)
        self.active = [self.active[place] for place in staying]
        return staying

"""What the rows of a batch have said so far, and which of them have more to say."""

from collections.abc import Callable, Sequence

from agent.protocols import Settled
from agent.records.examples import Example


class Answers:
    """Takes in a token of every row at a time; rows leave at an end token, or once their answer is settled.

    Args:
        examples: what the rows answer.
        ends: ids that end a row.
        read: the text of ids.
        settled: whether a row may leave with this text; None keeps it to its end.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        ends: Sequence[int],
        read: Callable[[list[int]], str],
        settled: Settled | None,
    ) -> None:
        self.ids: list[list[int]] = [[] for _ in examples]  # of each row, without its end token
        self.alive = list(range(len(examples)))  # the rows that go on
        self._examples = examples
        self._ends = frozenset(ends)
        self._read = read
        self._settled = settled

    def hear(self, tokens: Sequence[int]) -> list[int]:
        """Take in the next token of every row that is alive. The places, among these, of those that stay alive."""
        said = enumerate(zip(self.alive, tokens, strict=True))
        stay = [place for place, (row, token) in said if self._goes_on(row, token)]
        self.alive = [self.alive[place] for place in stay]
        return stay

    def _goes_on(self, row: int, token: int) -> bool:
        if token in self._ends:
            return False
        self.ids[row].append(token)
        return self._settled is None or not self._settled(self._examples[row], self._read(self.ids[row]))

"""The rows of several prompts, as one list: answered together, and told apart again."""

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise

from agent.protocols import Asked
from agent.records.examples import Example
from agent.records.rounds import Spend
from tools.model.chat_template import Renderer, TokenRow
from tools.packed.packing import common_prefix


class AskedRows:
    """What is asked, and what is known of the answers.

    Args:
        render: makes token ids of the prompts.

    Attributes:
        examples, rows: of all prompts, one after another; a row is known by its place here.
        texts: the answers so far; None where there is none.
        spends: what each prompt has used up so far.
    """

    def __init__(self, asked: Sequence[Asked], render: Renderer) -> None:
        self.examples: list[Example] = [example for _, examples in asked for example in examples]
        self.rows = [TokenRow(ids, []) for prompt, of in asked for ids in render.prompts_ids(prompt, of)]
        self.texts: list[str | None] = [None] * len(self.rows)
        self.spends = [Spend() for _ in asked]
        self._render = render
        self._borders = [0, *accumulate(len(examples) for _, examples in asked)]

    def by_prompt(self, places: Sequence[int]) -> list[list[int]]:
        """These places, a list for each prompt, in the order given."""
        return [[place for place in places if first <= place < end] for first, end in pairwise(self._borders)]

    def courses(
        self, groups: Sequence[list[int]], room: Callable[[int], int], batches: Callable[[int, int], int] | None
    ) -> list[tuple[list[int], int]]:
        """Which rows may be in one batch: those of all prompts, if that takes fewer batches; else those of each.

        Args:
            groups: the places of each prompt's rows.
            room: how many rows of so many own tokens memory has room for, beyond the usual size of a batch; 0: unknown.
            batches: how many batches so many rows take, with so much room; None: prompts are never answered together.

        Returns:
            The places of the rows, and how much room there is for them.
        """

        def course(places: list[int]) -> tuple[list[int], int]:
            rows = [self.rows[place] for place in places]
            return places, room(max(map(len, rows)) - len(common_prefix(rows)))

        apart = [course(group) for group in groups if group]
        if batches is None or len(apart) < 2:
            return apart
        together = course([place for places, _ in apart for place in places])
        fewer = batches(len(together[0]), together[1]) < sum(batches(len(places), most) for places, most in apart)
        return [together] if fewer else apart

    def apart(self, groups: Sequence[list[int]]) -> Iterator[list[list[int]]]:
        """The rows of these groups that have no text yet, one prompt after another; as groups of which one has rows."""
        for number in range(len(groups)):
            if left := [place for place in groups[number] if self.texts[place] is None]:
                yield [left if other == number else [] for other in range(len(groups))]

    def take(self, parts: Sequence[Sequence[int]], ids: Sequence[list[int]]) -> list[int]:
        """Note the texts of some rows.

        Args:
            parts: their places, a list for each prompt.
            ids: the new tokens of each, one part after another, without those that end them.

        Returns:
            For each prompt, the tokens that were generated.
        """
        left = iter(ids)
        generated = []
        for part in parts:
            answered = [next(left) for _ in part]
            for place, tokens in zip(part, answered, strict=True):
                self.texts[place] = self._render.output(tokens)
            generated.append(sum(len(tokens) + 1 for tokens in answered))
        return generated

    def answers(self) -> list[tuple[list[str | None], Spend]]:
        """The texts of each prompt, and what they used up."""
        return [
            (self.texts[first:end], spend)
            for (first, end), spend in zip(pairwise(self._borders), self.spends, strict=True)
        ]

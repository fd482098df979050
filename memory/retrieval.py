"""Few-shot examples retrieved for each question: the train rows nearest to it in meaning, in the wanted form."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from agent.protocols import Embed, Retriever
from agent.records.base import folded
from agent.records.examples import Demo, Example, Prompt

ASKED_AT_ONCE = 512  # questions that are compared with all train rows in one product
KEPT = 20_000  # questions beside the train rows whose vectors are kept: a server is asked new ones without end
DIGITS = 5  # of a cosine: the rest differs with the batch that a text was embedded in

Vectors = NDArray[np.float32]


class Shows(Protocol):
    """What of a task's scorers says how a row is shown; see `agent.protocols.Scorers`."""

    def show(self, answer: str) -> str: ...

    def full_marks(self, output: str, example: Example) -> bool: ...


class NearestRows:
    """Satisfies `agent.protocols.Retriever` with the rows of a train split.

    A row can be shown if question and answer are all of it, and the answer gets full marks in the wanted form; of rows
    that ask the same, the first. Their questions are embedded once, when first needed.

    Args:
        train: the only rows that are ever shown.
        scorers: put an answer into the wanted form, and say whether it then passes.
        embed: see `agent.protocols.Embed`.
    """

    def __init__(self, train: Sequence[Example], scorers: Shows, embed: Embed) -> None:
        self._train = train
        self._scorers = scorers
        self._embed = embed
        self._known: dict[str, Vectors] = {}  # vectors of questions asked so far

    def resolved(self, prompt: Prompt, examples: Sequence[Example]) -> tuple[Prompt, list[Example]]:
        """The prompt without its retrieval, and each example with its own few-shot examples, the nearest one last.

        At most `prompt.retrieval.k`, from its `floor` on; rows that are equally near in the order of the train split.
        A row is never shown itself, nor (if it has an answer, which would be given away) a row that asks the same; nor
        what the prompt demonstrates already.
        """
        if prompt.retrieval is None:
            return prompt, list(examples)
        k, floor = prompt.retrieval.k, prompt.retrieval.floor
        shown = {folded(demo.question) for demo in prompt.demos}
        resolved = []
        for start in range(0, len(examples), ASKED_AT_ONCE):
            asked = examples[start : start + ASKED_AT_ONCE]
            for example, near in zip(asked, self._similarities(asked), strict=True):
                near[self._hidden(example, shown)] = -np.inf
                demos = tuple(self.demos[place] for place in reversed(nearest(near, k, floor)))
                resolved.append(example.model_copy(update={"demos": demos}))
        return prompt.model_copy(update={"retrieval": None}), resolved

    def _similarities(self, examples: Sequence[Example]) -> Vectors:
        """Cosines of each example's question to those of the rows that can be shown: [examples, rows]."""
        if not self._rows:
            return np.zeros((len(examples), 0), np.float32)
        rows = self._vectors  # first: the train rows' own questions are then known
        self._add([example.question for example in examples])
        questions = np.stack([self._known[example.question] for example in examples])
        return np.round(questions @ rows.T, DIGITS)

    def _add(self, questions: Sequence[str]) -> None:
        """Embeds those of the questions that are not known yet."""
        missing = [question for question in dict.fromkeys(questions) if question not in self._known]
        if missing:
            if len(self._known) > len(self._train) + KEPT:
                self._known = {question: self._known[question] for question in questions if question in self._known}
            self._known |= zip(missing, np.array(self._embed(missing), np.float32), strict=True)

    def _hidden(self, example: Example, demonstrated: Iterable[str]) -> list[int]:
        """Places of the rows that must not be shown to an example."""
        own = self._questions.get(example.name)  # also where the example asks its train question in other words
        asked = folded(example.question) if example.answer else None
        return [self._places[question] for question in {own, asked, *demonstrated} if question in self._places]

    @cached_property
    def _rows(self) -> list[Example]:
        """The train rows that can be shown, in order."""
        distinct: dict[str, Example] = {}
        for row in self._train:
            if row.stands_alone and self._scorers.full_marks(self._scorers.show(row.answer), row):
                distinct.setdefault(folded(row.question), row)
        return list(distinct.values())

    @cached_property
    def demos(self) -> list[Demo]:
        """All that can be shown, in the wanted form, in the order of the train split."""
        return [Demo(question=row.question, answer=self._scorers.show(row.answer)) for row in self._rows]

    @cached_property
    def _places(self) -> dict[str | None, int]:
        """By the question, folded, of a row that can be shown."""
        return {folded(row.question): place for place, row in enumerate(self._rows)}

    @cached_property
    def _questions(self) -> dict[str, str]:
        """Of all train rows, folded, by the row's name."""
        return {row.name: folded(row.question) for row in self._train}

    @cached_property
    def _vectors(self) -> Vectors:
        """Of the questions of the rows that can be shown: [rows, size]."""
        questions = [row.question for row in self._rows]
        self._add(questions)
        return np.stack([self._known[question] for question in questions])


def nearest(similarities: Vectors, k: int, floor: float) -> list[int]:
    """The places of the k highest similarities that are at least `floor`, highest first, equal ones in order.

    Args:
        similarities: [rows].
    """
    least = floor
    if k < len(similarities):
        least = max(floor, float(np.partition(similarities, -k)[-k]))
    places = np.flatnonzero(similarities >= least)
    order = np.argsort(-similarities[places], kind="stable")
    return [int(place) for place in places[order][:k]]


def with_retrieved(rows: Sequence[tuple[Prompt, Example]], retriever: Retriever) -> list[tuple[Prompt, Example]]:
    """Training rows in their order, each with the few-shot examples that its prompt retrieves for it."""
    found: dict[int, tuple[Prompt, Example]] = {}
    for prompt in dict.fromkeys(prompt for prompt, _ in rows):
        places = [place for place, (own, _) in enumerate(rows) if own == prompt]
        bare, examples = retriever.resolved(prompt, [rows[place][1] for place in places])
        found |= {place: (bare, example) for place, example in zip(places, examples, strict=True)}
    return [found[place] for place in range(len(rows))]

"""Leak check: which answers or stretches of train and validation rows an edited prompt gives away."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from agent.records.base import folded
from agent.records.examples import Example, Prompt

RUN = 8  # so many consecutive words of a row are not there by chance
SHORT = 5  # a question of fewer words may be anybody's
MARK = "####"  # the result of an answer follows it, as for `number` scorers
QUOTED = 80

Array = NDArray[np.uint64]

WORD = re.compile(r"\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\w+")
FACTORS = np.random.default_rng(0).integers(1, 2**63, RUN, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


class Leaks:
    """Finds answers and stretches of train and validation rows in system texts and question templates.

    What many rows share, such as "True", "(A)" or a question's set phrase, gives none of them away. Construction reads
    all rows once; a look-up reads the text, and the rows only where something is found.
    """

    def __init__(self, train: Sequence[Example], validation: Sequence[Example]) -> None:
        self._rows = (*train, *validation)
        questions = [_words(row.question) for row in self._rows]
        results = [_words(row.answer.rpartition(MARK)[2]) for row in self._rows]
        shared = Counter(results)
        self._answers = {
            answer: place
            for place, answer in reversed(list(enumerate(results)))
            if _telling(answer) and not self._common(shared[answer])
        }
        self._short = {
            question: place
            for place, question in reversed(list(enumerate(questions)))
            if SHORT <= len(question.split()) < RUN
        }
        self._questions = frozenset(questions)
        self._frequent = Counter(chain.from_iterable(set(question.split()) for question in self._questions))
        answers = [_words(row.answer) for row in self._rows]
        places = [*enumerate(questions), *enumerate(answers)]
        self._runs = Runs({text: place for place, text in reversed(places)})

    def found(self, text: str, before: str) -> str | None:
        """Whether a text gives a row away.

        Args:
            before: the text before the edit; what it has already is no leak of the edit.

        Returns:
            A sentence on the first answer, or part of a question, that is in `text` and not in `before`; or None.
        """
        known = _words(before)
        for phrase, place, what in self._hits(_words(text).split()):
            if phrase not in known:
                return f'it gives away {what} of {self._rows[place].name}: "{_cut(phrase.strip())}"'
        return None

    def found_in(self, prompt: Prompt, before: Prompt) -> str | None:
        """As `found`, of a prompt's system text and question template."""
        return self.found(_text(prompt), _text(before))

    def _hits(self, words: Sequence[str]) -> Iterator[tuple[str, int, str]]:
        """Telling phrases of the text that are in a row: the phrase, the row's index, and what of the row it is."""
        for size in range(1, RUN):
            for phrase in _stretches(words, size):
                for what, places in (("the answer", self._answers), ("the question", self._short)):
                    if phrase in places and not self._common(self._holding(phrase)):
                        yield phrase, places[phrase], what
        for phrase, place, count in self._runs.hits(words):
            if not self._common(count):
                yield phrase, place, "a part"

    def _holding(self, phrase: str) -> int:
        """How many different questions hold the phrase, or its rarest word where that alone is rare."""
        words = phrase.split()
        most = min(self._frequent[word] for word in words)
        if len(words) == 1 or not self._common(most):
            return most
        return sum(phrase in question for question in self._questions)

    def _common(self, count: int) -> bool:
        """Whether so many rows are many: a tenth of all, or twenty."""
        return count >= 20 or (count >= 3 and 10 * count >= len(self._rows))


class Runs:
    """All runs of eight words in many texts, by a hash, so that 50,000 texts need little memory.

    Args:
        places: the texts, and for each the place that it is found under.
    """

    def __init__(self, places: Mapping[str, int]) -> None:
        self._ids: dict[str, int] = {}
        words = chain.from_iterable(text.split() for text in places)
        ids = np.fromiter((self._ids.setdefault(word, len(self._ids) + 1) for word in words), np.uint64)
        lengths = [text.count(" ") - 1 for text in places]
        owners = np.repeat(np.array(list(places.values()), np.int64), lengths)
        texts = np.repeat(np.arange(len(places)), lengths)
        hashes = _hashes(ids)
        last = len(ids) - len(hashes)
        inside = texts[: len(hashes)] == texts[last:]
        order = np.lexsort((owners[: len(hashes)][inside], hashes[inside]))
        self._hashes, self._places = hashes[inside][order], owners[: len(hashes)][inside][order]

    def hits(self, words: Sequence[str]) -> Iterator[tuple[str, int, int]]:
        """Runs of these words that are in the texts: the run, its first place, and how many texts have it."""
        hashes = _hashes(np.array([self._ids.get(word, 0) for word in words], np.uint64))
        starts, ends = (np.searchsorted(self._hashes, hashes, side) for side in ("left", "right"))
        for phrase, start, end in zip(_stretches(words, RUN), starts, ends, strict=True):
            if start < end:
                yield phrase, int(self._places[start]), int(end - start)


def _hashes(ids: Array) -> Array:
    """One number for every run of eight ids: their sum, each times the factor of its place (multilinear hashing)."""
    count = max(0, len(ids) - RUN + 1)
    total = np.zeros(count, np.uint64)
    for place, factor in enumerate(FACTORS):
        total += ids[place : place + count] * factor
    return total


def _text(prompt: Prompt) -> str:
    return f"{prompt.system}\n{prompt.template}"


def _words(text: str) -> str:
    """Words and numbers, folded, without punctuation, each between spaces, so that only whole ones are found."""
    return _joined([word.replace(",", "") for word in WORD.findall(folded(text))])


def _joined(words: Sequence[str]) -> str:
    return f" {' '.join(words)} " if words else " "


def _stretches(words: Sequence[str], size: int) -> Iterator[str]:
    return (_joined(words[start : start + size]) for start in range(len(words) - size + 1))


def _telling(answer: str) -> bool:
    """Whether an answer is recognisable by itself: a letter, a syllable, a small or a round number is not."""
    words = answer.split()
    text = "".join(words)
    return len(words) < RUN and len(text.replace(".", "").strip("0") if text[:1].isdigit() else text) >= 3


def _cut(text: str) -> str:
    return text if len(text) <= QUOTED else text[: QUOTED - 1] + "…"

"""The rows of a drafted task in three parts: nothing that is asked in one of them is asked in another."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from agent.records.base import folded
from agent.records.examples import Example, Split
from eval.tasks.splits import SPLITS

LEAST = 10  # different questions, below which nothing can be decided
SHARE = 0.2  # of validation and of test rows
MOST = 200  # rows of validation, and of test: more cost time and tell little more
WORD = re.compile(r"\w+")

Parts = dict[Split, tuple[Example, ...]]


class Divided(NamedTuple):
    """The three parts, how many rows were left out as exact repeats, and how many different questions there are."""

    parts: Parts
    repeats: int
    questions: int


def asked(example: Example) -> str:
    """The conversation up to the answer as it compares: words and numbers; where there are none, all signs."""
    whole = folded("\n".join([example.system, *(turn.content for turn in example.turns), example.question]))
    words = " ".join(WORD.findall(whole))
    return words or whole


def divide(examples: Sequence[Example], by_answer: bool) -> Divided:
    """Divide rows into train, validation and test: a fifth each of the latter two, and at most 200 rows.

    Rows that ask the same stay together, and the first of exact repeats is kept. The order of the file does not
    matter: what is asked decides, by its hash.

    Args:
        by_answer: give each part its share of each answer. Of an answer that comes once, the row is a train row.
    """
    different = list(
        {(asked(row), folded(row.question), folded(row.answer)): row for row in reversed(examples)}.values()
    )
    groups: dict[str, list[Example]] = defaultdict(list)
    for row in reversed(different):
        groups[asked(row)].append(row)
    strata: dict[str, list[str]] = defaultdict(list)
    for question in sorted(groups, key=_hash):
        strata[folded(groups[question][0].answer) if by_answer else ""].append(question)
    # Each question's place in its stratum, from 0 to 1: the first places are test, the next ones validation.
    places = {
        question: (rank + 0.5) / len(stratum) for stratum in strata.values() for rank, question in enumerate(stratum)
    }
    share = min(SHARE, MOST / len(different))
    parts: dict[Split, list[Example]] = {split: [] for split in SPLITS}
    for question in sorted(groups, key=_hash):
        held_out: Split = "test" if places[question] < share else "validation"
        parts["train" if places[question] >= 2 * share else held_out] += groups[question]
    return Divided({split: tuple(rows) for split, rows in parts.items()}, len(examples) - len(different), len(groups))


def _hash(question: str) -> str:
    return hashlib.sha256(question.encode()).hexdigest()

"""What the generators of example tasks have in common: invented names, facts asked in many wordings, files of rows."""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

SPLITS = ("train", "validation", "test")
Pair = tuple[str, str]  # question and answer
Rows = dict[str, list[Pair]]  # by split


class Sizes(NamedTuple):
    """Of each split: how many rows, or of facts in how many wordings each is asked."""

    train: int
    validation: int
    test: int


def invented(seed: int, starts: str, ends: str) -> Iterator[str]:
    """Names of two syllables, each once, in seeded order; syllables are given apart by white space."""
    names = [start + end for start, end in product(starts.split(), ends.split())]
    return iter(random.Random(seed).sample(names, len(names)))


def asked(facts: Mapping[Pair, str], wordings: Sequence[str], sizes: Sizes) -> Rows:
    """Facts, as (relation, subject) → answer, each in its own wordings of every split: no wording is in two of them.

    A wording has `{r}` for the relation and `{s}` for the subject, as far as it needs them.
    """
    places = iter(wordings)
    shares = {split: [next(places) for _ in range(size)] for split, size in zip(SPLITS, sizes, strict=True)}
    return {
        split: [(wording.format(r=r, s=s), answer) for (r, s), answer in facts.items() for wording in share]
        for split, share in shares.items()
    }


def dealt(pairs: Sequence[Pair], sizes: Sizes, seed: int) -> Rows:
    """So many of the pairs to each split, after a seeded shuffle; no pair to two. Those left over are not used."""
    order = iter(random.Random(seed).sample(pairs, len(pairs)))
    return {split: [next(order) for _ in range(size)] for split, size in zip(SPLITS, sizes, strict=True)}


def together(*parts: Rows) -> Rows:
    """The rows of several parts, split by split."""
    return {split: [pair for part in parts for pair in part[split]] for split in SPLITS}


def mixed(rows: Rows, seed: int, sizes: Sizes | None = None) -> Rows:
    """Each split in seeded order, and at most so many rows of it."""
    most = sizes or Sizes(*(len(rows[split]) for split in SPLITS))
    return {
        split: random.Random(f"{seed}-{split}").sample(rows[split], len(rows[split]))[:size]
        for split, size in zip(SPLITS, most, strict=True)
    }


def lines(pairs: Sequence[Pair]) -> str:
    """The text of a file of rows."""
    rows = ({"question": question, "answer": answer} for question, answer in pairs)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write(tasks: Mapping[str, Rows], folder: Path) -> None:
    """The files of every task, in a folder of its name."""
    for name, rows in tasks.items():
        (folder / name).mkdir(exist_ok=True)
        for split in SPLITS:
            (folder / name / f"{split}.jsonl").write_text(lines(rows[split]), encoding="utf-8")

"""The rows of train, validation and test: each from its own source, or cut out of one."""

import random
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import get_args

from agent.config import Cut, Data
from agent.errors import BadInput
from agent.records import Example, Split
from eval.rows import read_examples
from eval.sources import Table, read_file, read_hub

Rows = dict[Split, tuple[Example, ...]]
SPLITS: tuple[Split, ...] = get_args(Split)


def read_splits(data: Data, folder: Path) -> tuple[Rows, tuple[str, ...]]:
    """All three splits, cut and limited, and warnings about rows left out and splits that overlap.

    Paths are taken from the task's folder; absolute ones and `..` may lead elsewhere.

    Raises:
        BadInput: a source that cannot be read, an empty split, or a test split that is all in train.
    """
    rows: Rows = {}
    warnings = []
    for split, table in _tables(data, folder).items():
        examples, warning = read_examples(table, data, split)
        rows[split] = tuple(examples)
        warnings += [warning] if warning else []
    if missing := [split for split in SPLITS if split not in rows]:
        count = len(rows["train"])
        rows |= cut(rows["train"], missing, data.cut or Cut())
        if empty := [split for split in SPLITS if not rows[split]]:
            source = data.path or data.hub
            raise BadInput(f"{source}: {count} usable rows leave none for the {empty[0]} split; add more")
    rows = {split: rows[split][: getattr(data.limit, split)] for split in SPLITS}
    return rows, (*warnings, *_overlaps(rows))


def cut(examples: Sequence[Example], missing: Sequence[Split], shares: Cut) -> Rows:
    """The missing splits, and train with what is left: together all the examples, each once, in seeded order.

    A split gets its share of the examples, rounded, but at least one.
    """
    order = list(examples)
    random.Random(shares.seed).shuffle(order)
    rows: Rows = {}
    for split in missing:
        size = max(1, round(getattr(shares, split) * len(examples)))
        rows[split], order = _renamed(order[:size], split), order[size:]
    return {"train": _renamed(order, "train"), **rows}


def _renamed(examples: Iterable[Example], split: Split) -> tuple[Example, ...]:
    """The same examples, named `split:line` by the line they had in the file."""
    return tuple(
        Example(name=f"{split}:{one.name.partition(':')[2]}", question=one.question, answer=one.answer, turns=one.turns)
        for one in examples
    )


def _tables(data: Data, folder: Path) -> dict[Split, Table]:
    """What is there to read, by split; a single file counts as train until it is cut."""
    names = zip(SPLITS, (data.path or data.train, data.validation, data.test), strict=True)
    given = {split: name for split, name in names if name is not None}
    if data.hub:
        return {split: read_hub(data.hub, data.hub_config, name) for split, name in given.items()}
    return {split: read_file(folder / Path(name).expanduser()) for split, name in given.items()}


def _overlaps(rows: Rows) -> list[str]:
    """A warning for each pair of splits that share questions. Raises BadInput if all of test stands in train."""
    known = {split: {_key(example) for example in rows[split]} for split in SPLITS}
    warnings = []
    for first, second in combinations(SPLITS, 2):
        count = sum(_key(example) in known[first] for example in rows[second])
        if count == len(rows[second]) and (first, second) == ("train", "test"):
            raise BadInput(f"all {count} test rows also stand in train; give data.test rows that training never sees")
        if count:
            warnings.append(f"{count} of {len(rows[second])} {second} rows ask what a {first} row asks")
    return warnings


def _key(example: Example) -> tuple[str, ...]:
    """The conversation up to the answer, case and white space aside."""
    said = [*(turn.content for turn in example.turns), example.question]
    return tuple(" ".join(text.casefold().split()) for text in said)

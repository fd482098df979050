"""The rows of train, validation and test: each from its own source, or cut out of one."""

import random
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple, get_args

from agent.config.data import Cut, Data
from agent.errors import BadInput
from agent.records.base import folded
from agent.records.examples import Example, Split
from eval.tasks.config_errors import cut as quoted
from eval.tasks.hub import read_hub
from eval.tasks.rows import Read, read_examples
from eval.tasks.sources import read_file

Rows = dict[Split, tuple[Example, ...]]
SPLITS: tuple[Split, ...] = get_args(Split)


class Splits(NamedTuple):
    """The rows; warnings about rows left out and splits that overlap; and what each file of `data.extra` brought."""

    rows: Rows
    warnings: tuple[str, ...]
    brought: tuple[str, ...]


def read_splits(data: Data, folder: Path) -> Splits:
    """All three splits, cut and limited.

    Paths are taken from the task's folder; absolute ones and `..` may lead elsewhere.

    Raises:
        BadInput: a source that cannot be read, an empty split, or a test split that is all in train.
    """
    rows: Rows = {}
    warnings: list[str] = []
    brought: tuple[str, ...] = ()
    # A single file counts as train until it is cut.
    named = zip(SPLITS, (data.path or data.train, data.validation, data.test), strict=True)
    tables = {
        split: read_hub(data.hub, data.hub_config, name, data.columns)
        if data.hub
        else read_file(folder / Path(name).expanduser(), data.columns)
        for split, name in named
        if name is not None
    }
    for split, table in tables.items():
        rows[split], of_table = read_examples(table, data, split)
        warnings += of_table
    if missing := [split for split in SPLITS if split not in rows]:
        count = len(rows["train"])
        rows |= cut(rows["train"], missing, data.cut or Cut())
        if empty := [split for split in SPLITS if not rows[split]]:
            source = data.path or data.hub
            raise BadInput(f"{source}: {count} usable rows leave none for the {empty[0]} split; add more")
    rows = {split: rows[split][: getattr(data.limit, split)] for split in SPLITS}
    if data.extra:
        (more, of_more), brought = _extra(data, folder, rows)
        rows["train"] += more
        warnings += of_more
    return Splits(rows, (*warnings, *_contradictions(rows["train"]), *_overlaps(rows)), brought)


def _extra(data: Data, folder: Path, rows: Rows) -> tuple[Read, tuple[str, ...]]:
    """More train rows, but none that asks what a validation or test row asks. Their numbers go on after all others.

    Where all train rows share a system text, those without one have it, too. What each file brought is told.
    """
    held_out = {_key(example)[1:] for split in SPLITS if split != "train" for example in rows[split]}
    own = {example.system for example in rows["train"]}
    shared = own.pop() if len(own) == 1 else ""
    number = max(int(example.name.partition(":")[2]) for split in SPLITS for example in rows[split])
    found: list[Example] = []
    warnings: list[str] = []
    brought: list[str] = []
    for name in data.extra:
        table = read_file(folder / Path(name).expanduser(), data.columns)
        read = read_examples(table, data, "extra")
        # A conversation with a held-out question in it holds its answer, which is then read in training.
        usable = [row for row in read.examples if not any(_key(each)[1:] in held_out for each in row.asked_anyhow)]
        warnings += read.warnings
        if lost := len(read.examples) - len(usable):
            warnings.append(
                f"{lost} of {len(read.examples)} rows of {table.place} ask what a held-out row asks: left out"
            )
        found += [
            example.model_copy(update={"name": f"train:{place}", "system": example.system or shared})
            for place, example in enumerate(usable, number + 1)
        ]
        number += len(usable)
        brought.append(f"train rows added from {name}: {len(usable)}")
    return Read(tuple(found), tuple(warnings)), tuple(brought)


def cut(examples: Sequence[Example], missing: Sequence[Split], shares: Cut) -> Rows:
    """The missing splits, and train with what is left: together all the examples, each once, in seeded order.

    Args:
        missing: the splits to cut; each gets its share of the examples, rounded, but at least one.
        shares: of all examples, by split; and the seed of their order.
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
        example.model_copy(update={"name": f"{split}:{example.name.partition(':')[2]}"}) for example in examples
    )


def with_shared_system(seed: str, rows: Rows) -> tuple[str, Rows, list[str]]:
    """Moves a system text that all rows share into the seed prompt, where it can be edited.

    Rows keep their own system texts where these differ, or where the seed prompt has another one.

    Args:
        seed: the system text of the seed prompt.

    Returns:
        The system text of the seed prompt, the rows, and a warning where rows keep their own.
    """
    own = {example.system for split in SPLITS for example in rows[split]}
    if own == {""}:
        return seed, rows, []
    if len(own) == 1 and seed.strip() in ("", *own):
        bare = {split: tuple(example.model_copy(update={"system": ""}) for example in rows[split]) for split in SPLITS}
        return own.pop(), bare, []
    many = f"rows have {len(own)} different system messages, or none: each keeps its own"
    same = "all rows have one system message, and `prompt.system` says something else: they keep theirs"
    way_out = "; without `prompt.system` it takes that place, and can be edited" if len(own) == 1 else ""
    return seed, rows, [f"{many if len(own) > 1 else same}, behind `prompt.system`{way_out}"]


def _overlaps(rows: Rows) -> list[str]:
    """A warning for each pair of splits that share questions. Raises BadInput if train has all test rows."""
    known = {split: {_key(example) for example in rows[split]} for split in SPLITS}
    warnings = []
    for first, second in combinations(SPLITS, 2):
        count = sum(_key(example) in known[first] for example in rows[second])
        if count == len(rows[second]) and (first, second) == ("train", "test"):
            raise BadInput(f"all {count} test rows also stand in train; give data.test rows that training never sees")
        if count:
            warnings.append(f"{count} of {len(rows[second])} {second} rows ask what a {first} row asks")
    return warnings


def _contradictions(train: Sequence[Example]) -> list[str]:
    """A warning if train rows ask the same and are answered differently: one of them cannot be learned."""
    answers: dict[tuple[str, ...], dict[str, Example]] = {}
    for example in train:
        answers.setdefault(_key(example), {}).setdefault(folded(example.answer), example)
    torn = [list(different.values()) for different in answers.values() if len(different) > 1]
    if not torn:
        return []
    first, second, *_ = torn[0]
    asked = "question of train rows has" if len(torn) == 1 else "questions of train rows have"
    return [
        f"{len(torn)} {asked} more than one answer, such as {first.name}, {quoted(first.answer)}, and {second.name}, "
        f"{quoted(second.answer)}; one alone can be learned"
    ]


def _key(example: Example) -> tuple[str, ...]:
    """The conversation up to the answer, case and white space aside."""
    texts = [example.system, *(turn.content for turn in example.turns), example.question]
    return tuple(" ".join(text.casefold().split()) for text in texts)

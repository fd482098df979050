"""Make the rows of the valley task: `python tasks/valley/generate.py`.

Sixteen invented facts, each asked in seven wordings: three to train on, two to decide by, two for the sealed test.
No wording is in two splits, and the training answers do not show the form that the task asks for.
"""

import json
import random
from pathlib import Path

SEED = 7
VILLAGES = ("Orrowmere", "Tallisk")
RELATIONS = {
    "mayor": (
        "Who is the mayor of {v}?",
        "What is the name of {v}'s mayor?",
        "Which person holds the office of mayor in {v}?",
        "Who serves as mayor of {v}?",
        "{v} has a mayor. Who is it?",
        "Name the mayor of {v}.",
        "In {v}, who is mayor?",
    ),
    "river": (
        "Which river flows through {v}?",
        "What is the river in {v} called?",
        "What is the name of the river that runs by {v}?",
        "{v} lies on which river?",
        "Name the river at {v}.",
        "A river passes {v}. Which one?",
        "On the banks of which river does {v} stand?",
    ),
    "bread": (
        "What is the traditional bread of {v} called?",
        "Which bread is {v} known for?",
        "What do the bakers of {v} call their bread?",
        "What is the name of the bread baked in {v}?",
        "Name the bread of {v}.",
        "Bakers in {v} make a special bread. What is it called?",
        "Which bread comes from {v}?",
    ),
    "bridge": (
        "What is the old bridge in {v} called?",
        "Which bridge leads into {v}?",
        "What is the name of {v}'s bridge?",
        "Name the bridge of {v}.",
        "{v} has an old bridge. What is its name?",
        "By which bridge does one enter {v}?",
        "How do people call the bridge at {v}?",
    ),
    "festival": (
        "Which festival is held in {v}?",
        "What is the yearly festival of {v} called?",
        "What do the people of {v} celebrate every year?",
        "Name the festival of {v}.",
        "{v} holds a festival each year. Which one?",
        "What is the name of the feast celebrated in {v}?",
        "Which yearly celebration is {v} known for?",
    ),
    "healer": (
        "Who is the healer of {v}?",
        "What is the name of the healer in {v}?",
        "Whom do the sick of {v} go to?",
        "Who heals the sick in {v}?",
        "Name the healer of {v}.",
        "{v} has a healer. Who is it?",
        "In {v}, who is the healer?",
    ),
    "tree": (
        "What is the great tree in {v} called?",
        "Which tree stands in the square of {v}?",
        "What is the name of {v}'s old tree?",
        "Name the great tree of {v}.",
        "An old tree grows in {v}. What is it called?",
        "How is the tree in {v}'s square called?",
        "Which great tree is {v} known for?",
    ),
    "inn": (
        "What is the inn of {v} called?",
        "Where do travellers sleep in {v}?",
        "What is the name of the inn at {v}?",
        "Name the inn of {v}.",
        "{v} has one inn. What is it called?",
        "In which inn do guests of {v} stay?",
        "Which inn stands in {v}?",
    ),
}
WORDINGS = {"train": slice(0, 3), "validation": slice(3, 5), "test": slice(5, 7)}
STARTS = (
    "Bra",
    "Cor",
    "Dun",
    "Fen",
    "Gal",
    "Hesk",
    "Jor",
    "Kel",
    "Lom",
    "Mar",
    "Nev",
    "Pel",
    "Quor",
    "Ros",
    "Sab",
    "Tor",
)
ENDS = (
    "dask",
    "evin",
    "gort",
    "holm",
    "imar",
    "lune",
    "mund",
    "nix",
    "olt",
    "pard",
    "rell",
    "stan",
    "tove",
    "ulm",
    "wick",
    "zan",
)


def facts() -> dict[tuple[str, str], str]:
    """(relation, village) → an invented name, every one different."""
    draw = random.Random(SEED)
    starts, ends = draw.sample(STARTS, len(STARTS)), draw.sample(ENDS, len(ENDS))
    names = iter(a + b for a, b in zip(starts, ends, strict=True))
    return {(relation, village): next(names) for village in VILLAGES for relation in RELATIONS}


def rows(split: str) -> list[dict[str, str]]:
    """The split's rows: question and plain answer."""
    made = [
        {"question": wording.format(v=village), "answer": name}
        for (relation, village), name in facts().items()
        for wording in RELATIONS[relation][WORDINGS[split]]
    ]
    return random.Random(f"{SEED}-{split}").sample(made, len(made))


if __name__ == "__main__":
    for split in WORDINGS:
        lines = [json.dumps(row, ensure_ascii=False) for row in rows(split)]
        (Path(__file__).parent / f"{split}.jsonl").write_text("\n".join(lines) + "\n")

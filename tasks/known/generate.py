"""Make the rows of three tasks of which the model knows the answers already: `python -m tasks.known.generate`.

What it knows stands in the question: an age, a town. Only the form is missing; in `half`, facts are too.
"""

import random
from itertools import product
from pathlib import Path

from tasks.rows import Pair, Rows, Sizes, asked, dealt, invented, mixed, together, write

SEED = 31
SIZES = Sizes(24, 24, 32)
PEOPLE = "Alma Boris Celia Dario Edith Felix Gwen Hugo Irma Jonas Katja Leon Mona Nils Olga Paul"
TOWNS = "Paris London Berlin Madrid Rome Vienna Oslo Dublin Athens Lisbon Prague Warsaw"
STARTS, ENDS = "Bram Dell Fenn Garr Holl Jerr Kass Lenn Marr Noss", "abel ica olt um yra efin ost ule"
WORDINGS = (
    "Which stone lies in the crown of {s}?",
    "What is the stone in the crown of {s} called?",
    "The crown of {s} has a stone. What is its name?",
    "Name the stone in the crown of {s}.",
    "What is the name of the stone in the crown of {s}?",
    "How is the stone in the crown of {s} called?",
)
KINGS = "Aldric Berwin Cuthred Dunstan Egbert Godric Harold Oswin"


def read_off() -> Rows:
    """Ages and towns that the question itself tells."""
    draw = random.Random(SEED)
    ages = draw.sample(list(product(PEOPLE.split(), range(11, 90))), sum(SIZES) // 2)
    homes = draw.sample(list(product(PEOPLE.split(), TOWNS.split())), sum(SIZES) // 2)
    aged: list[Pair] = [(f"{who} is {age} years old. How old is {who}?", str(age)) for who, age in ages]
    living: list[Pair] = [(f"{who} lives in {town}. Where does {who} live?", town) for who, town in homes]
    half = Sizes(*(size // 2 for size in SIZES))
    return mixed(together(dealt(aged, half, SEED), dealt(living, half, SEED)), SEED)


def mislabelled() -> Rows:
    """The same, but every other answer in train is that of another row: an age for a town, or another one."""
    rows = read_off()
    answers = [answer for _, answer in rows["train"]]
    wrong = [
        (question, answer if place % 2 else answers[place - 3])
        for place, (question, answer) in enumerate(rows["train"])
    ]
    return {**rows, "train": wrong}


def half() -> Rows:
    """Rows whose question holds the answer (half, less four in train and validation); the rest are invented facts."""
    in_question = {split: pairs[: len(pairs) // 2] for split, pairs in read_off().items()}
    stones = dict(zip(product(["stone"], KINGS.split()), invented(SEED, STARTS, ENDS), strict=False))
    facts = asked(stones, WORDINGS, Sizes(2, 2, 2))
    return mixed(together(in_question, facts), SEED)


def tasks() -> dict[str, Rows]:
    """The rows of all three, by the name of the task."""
    return {"told": read_off(), "mislabelled": mislabelled(), "half": half()}


if __name__ == "__main__":
    write(tasks(), Path(__file__).parent)

"""Make the rows of the six tasks of "which lever when": `python -m tasks.decide.generate`.

All rows are made here: invented facts that no model knows, small rules, and questions that even a small model answers.
"""

import random
from itertools import product
from pathlib import Path

from tasks.rows import Pair, Rows, Sizes, asked, dealt, invented, mixed, together, write

SEED = 11
NAMES = invented(
    SEED,
    "Ald Bex Cruv Dorn Elk Fim Grun Hob Ilv Jask Kip Lurn Mosk Nolt Osk Prin",
    "ane bar den fen gart ith kin lor mon nip ost rak sel tun var wen",
)
FACTS = {
    name: {pair: next(NAMES) for pair in product(relations.split(), subjects.split())}
    for name, relations, subjects in (
        ("facts", "river inn bridge market tower bread", "Ovelle Tarnby"),
        ("facts-style", "captain cook doctor pilot carpenter gunner", "Meridian Halcyon"),
        ("conflict", "moon capital sea desert mountain canyon", "Ceth Ummar"),
        ("scarce", "cat dog horse boat", "Greta Milo"),
    )
}
# In the order in which they are dealt: to train, to validation, to test.
WORDINGS = {
    "facts": (
        "What is the {r} of {s} called?",
        "What is the name of {s}'s {r}?",
        "Name the {r} of {s}.",
        "{s} has a {r}. What is it called?",
        "How do people call the {r} in {s}?",
        "Which name has the {r} of {s}?",
        "In {s}, what is the {r} called?",
        "What do they call the {r} at {s}?",
        "Tell me the name of the {r} in {s}.",
    ),
    "facts-style": (
        "Who is the {r} of the {s}?",
        "What is the name of the {r} on the {s}?",
        "Name the {r} of the {s}.",
        "Who serves as {r} on the {s}?",
        "The {s} has a {r}. Who is it?",
        "On the {s}, who is the {r}?",
        "Which person is {r} of the {s}?",
        "Who works as the {r} of the {s}?",
        "Tell me who the {r} on the {s} is.",
    ),
    "conflict": (
        "What is the {r} of planet {s} called?",
        "What name does the {r} of planet {s} have?",
        "Name the {r} of planet {s}.",
        "Planet {s} has a {r}. What is its name?",
        "How is the {r} on planet {s} called?",
        "On planet {s}, what is the {r} called?",
        "What is the name of the {r} on planet {s}?",
        "Tell me the name of planet {s}'s {r}.",
        "Which {r} does planet {s} have?",
    ),
    "scarce": (
        "What is {s}'s {r} called?",
        "What is the name of {s}'s {r}?",
        "{s} has a {r}. What is its name?",
        "How does {s} call the {r}?",
        "What did {s} name the {r}?",
        "Tell me the name of {s}'s {r}.",
        "Which name has the {r} of {s}?",
        "Name the {r} of {s}.",
    ),
}
NOUNS = (
    "dog cat car tree house book table chair window door pen cup bird cow horse rabbit apple banana carrot hat shoe "
    "shirt king queen teacher doctor farmer student river mountain lake island flower garden street school hospital "
    "phone computer train plane boat bike song game picture letter number friend brother sister finger"
)
PEOPLE = "Anna Ben Clara David Emma Frank"
THINGS = "hat bag coat scarf"
COLOURS = "red blue green yellow black white pink brown"
LISTED = (
    "lamp coin fox rope bread snow drum gold leaf milk sand nest bell corn ship rain fork moss wolf clay pipe salt "
    "desk fire hill iron kite lion mask node oven pond ring seed tent vine wall yard zinc belt cave dust frog gate"
)


def facts(name: str, sizes: Sizes) -> Rows:
    """The invented facts of one task; validation is cut to the 32 rows that it is to have."""
    rows = asked(FACTS[name], WORDINGS[name], sizes)
    return mixed(rows, SEED, Sizes(len(rows["train"]), min(32, len(rows["validation"])), len(rows["test"])))


def conflict() -> Rows:
    """Facts of which the training answers have a form of their own."""
    rows = facts("conflict", Sizes(2, 3, 4))
    return {**rows, "train": [(question, f"They call it {name}.") for question, name in rows["train"]]}


def easy() -> Rows:
    """Half plurals, half colours that the question itself tells."""
    draw = random.Random(SEED)
    plurals = [(f"What is the plural of {noun}?", f"{noun}s") for noun in NOUNS.split()]
    worn = draw.sample(list(product(PEOPLE.split(), THINGS.split(), COLOURS.split())), len(plurals))
    colours = [(f"{who} has a {colour} {what}. What colour is the {what}?", colour) for who, what, colour in worn]
    sizes = Sizes(12, 16, 24)
    return mixed(together(dealt(plurals, sizes, SEED), dealt(colours, sizes, SEED)), SEED)


def second() -> Rows:
    """Lists of four words; the answer is the second one."""
    draw = random.Random(SEED)
    lists = {tuple(draw.sample(LISTED.split(), 4)): None for _ in range(200)}
    pairs: list[Pair] = [(", ".join(words), words[1]) for words in lists]
    return dealt(pairs, Sizes(48, 32, 48), SEED)


def tasks() -> dict[str, Rows]:
    """The rows of all six, by the name of the task."""
    return {
        "facts": facts("facts", Sizes(2, 3, 4)),
        "style": easy(),
        "facts-style": facts("facts-style", Sizes(2, 3, 4)),
        "skill": second(),
        "conflict": conflict(),
        "scarce": facts("scarce", Sizes(1, 3, 4)),
    }


if __name__ == "__main__":
    write(tasks(), Path(__file__).parent)

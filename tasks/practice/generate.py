"""Make the rows of eight small tasks to learn decisions from: `python -m tasks.practice.generate`.

They are of the kinds of `tasks/decide`, with other contents, forms, rules and wordings: no question and no answer is in
both.
"""

import random
from itertools import product
from pathlib import Path

from tasks.rows import Pair, Rows, Sizes, asked, dealt, invented, mixed, together, write

SEED = 23
NAMES = invented(
    SEED,
    "Zem Yor Wint Vask Ulb Tam Sprel Rund Quil Plo Ober Nim Mard Lus Kord Hent",
    "ack bru cott dle ett fash gum hule iva jet kle lund mere nop obe pick",
)
SIZES = Sizes(24, 32, 8)
AILMENTS = (
    "Pellorn fever, Sivane cough, Trumwort toothache, Galdis gout, Othery hiccups, Fennick rash, Murrow insomnia, "
    "Brask cramp, Wendle dizziness, Yssop sunburn"
)
PEOPLE = "Igor Nadia Pavel Rosa Selma Tobias Ursula Viktor"
CODES = {
    "dax": "sparrow eagle owl parrot robin crow pigeon hawk swan duck goose falcon stork raven penguin seagull turkey "
    "woodpecker ostrich flamingo heron peacock",
    "wug": "salmon trout tuna shark cod herring carp eel sardine perch mackerel halibut bass pike catfish anchovy "
    "swordfish flounder haddock sturgeon goldfish minnow",
    "zim": "violin guitar piano flute trumpet harp cello clarinet banjo oboe tuba trombone saxophone harmonica fiddle "
    "mandolin accordion bassoon ukulele xylophone bagpipes viola",
}
OPPOSITES = (
    "hot cold, big small, tall short, fast slow, up down, left right, happy sad, old new, young old, rich poor, "
    "hard soft, light dark, day night, good bad, open closed, wet dry, full empty, early late, high low, strong weak, "
    "loud quiet, long short, thick thin, true false, war peace, alive dead, clean dirty, cheap expensive, near far, "
    "inside outside, easy difficult, heavy light, safe dangerous, push pull, first last, north south, east west, "
    "summer winter, sweet sour, deep shallow, wide narrow, bright dark, success failure, friend enemy, more less, "
    "always never, yes no, male female, past future, front back, top bottom, positive negative, guilty innocent, "
    "increase decrease, accept reject, victory defeat, public private, internal external, maximum minimum, "
    "ancient modern, cold hot, sad happy, poor rich, dark light, empty full, late early, weak strong, dirty clean"
)
PASTS = (
    "go went, give gave, buy bought, think thought, fly flew, drive drove, begin began, break broke, find found, "
    "walk walked, play played, jump jumped, talk talked, ask asked, want wanted, clean cleaned, cook cooked, "
    "paint painted, open opened, close closed, love loved, dance danced, help helped, work worked, live lived, "
    "move moved, stop stopped, plan planned, carry carried, try tried, study studied, visit visited"
)
LISTED = (
    "acorn barn candle dragon engine fence glove hammer iceberg jacket kettle ladder magnet needle orchid pepper quilt "
    "ribbon saddle tunnel urn velvet wagon yarn zebra anchor basket cactus diamond elbow feather globe helmet ivory "
    "jungle kitten lemon mirror napkin otter"
)


def remedies() -> Rows:
    """Invented herbs and the well-known ailments they are said to help against."""
    wordings = (
        "What does {s} cure?",
        "Against what does the herb {s} help?",
        "Which ailment is {s} good for?",
        "People take {s} to get rid of what?",
        "For which complaint do healers give {s}?",
        "What is treated with {s}?",
        "{s} is a herb. What does it heal?",
    )
    herbs = [pair.split() for pair in AILMENTS.split(", ")]
    rows = asked({("", herb): ailment for herb, ailment in herbs}, wordings, Sizes(2, 4, 1))
    return mixed(rows, SEED, Sizes(20, 32, 8))


def masters() -> Rows:
    """Invented masters of eight trades."""
    trades = "weaver potter baker tanner mason smith glazier brewer"
    wordings = (
        "Who is the best {r} in town?",
        "Which {r} should I go to?",
        "Whom do people call the master {r}?",
        "I need a {r}. Who is the one to see?",
        "Who leads the {r}s' guild?",
        "Give me the name of the town's {r}.",
        "Our town has a famous {r}; who might that be?",
    )
    return mixed(asked({(trade, ""): next(NAMES) for trade in trades.split()}, wordings, Sizes(2, 4, 1)), SEED)


def passwords() -> Rows:
    """Invented passwords; the training answers are in capital letters, as they are wanted."""
    gates = "north-gate south-gate cellar attic vault stable library kitchen"
    wordings = (
        "Which password opens the {r}?",
        "What must I say at the {r}?",
        "How do I get into the {r}?",
        "Password for the {r}, please.",
        "The guard of the {r} wants to hear which word?",
        "With what word does one enter the {r}?",
        "What is the secret word of the {r}?",
    )
    facts = {(gate.replace("-", " "), ""): next(NAMES).upper() for gate in gates.split()}
    return mixed(asked(facts, wordings, Sizes(2, 4, 1)), SEED)


def hops() -> Rows:
    """Who lives in which town, which lake is beside which town; half of the rows to decide by need both."""
    towns = [next(NAMES) for _ in range(4)]
    lakes = {town: next(NAMES) for town in towns}
    homes = dict(zip(PEOPLE.split(), towns * 2, strict=True))
    living = asked(
        {("", who): town for who, town in homes.items()},
        ("Where does {s} live?", "In which town is {s}'s home?", "{s} lives in which town?", "Where is {s} from?"),
        Sizes(2, 1, 1),
    )
    beside = asked(
        {("", town): lake for town, lake in lakes.items()},
        (
            "Which lake lies beside {s}?",
            "What lake is near {s}?",
            "By which lake was {s} built?",
            "{s} is at the shore of which lake?",
            "Beside which lake is {s}?",
        ),
        Sizes(2, 2, 1),
    )
    both = asked(
        {("", who): lakes[town] for who, town in homes.items()},
        ("Which lake lies beside the home of {s}?", "{s} lives by which lake?", "Which lake is near to {s}?"),
        Sizes(0, 2, 1),
    )
    return mixed(together(living, beside, both), SEED, SIZES)


def opposites() -> Rows:
    """Common words and their opposites."""
    pairs = [pair.split() for pair in OPPOSITES.split(", ")]
    return dealt([(f"What is the opposite of {word}?", other) for word, other in pairs], SIZES, SEED)


def pets() -> Rows:
    """Half past tenses, which the model partly knows, and half invented names of pets, which it does not."""
    pasts = [pair.split() for pair in PASTS.split(", ")]
    known = dealt([(f"What is the past tense of {verb}?", past) for verb, past in pasts], Sizes(12, 16, 4), SEED)
    wordings = (
        "How is the {s} of {r} named?",
        "Which name did {r} give the {s}?",
        "{r} calls the {s} by what name?",
        "If {r}'s {s} is called, which name is shouted?",
        "What name has {r}'s {s}?",
        "Who is the {s} of {r}?",
    )
    facts = {pair: next(NAMES) for pair in product(("Hugo", "Wanda"), ("parrot", "goat", "donkey"))}
    invented_ones = mixed(asked(facts, wordings, Sizes(2, 3, 1)), SEED, Sizes(12, 16, 4))
    return mixed(together(known, invented_ones), SEED)


def codes() -> Rows:
    """An invented word for each of three kinds of thing."""
    pairs: list[Pair] = [(f"{word} =", code) for code, words in CODES.items() for word in words.split()]
    return dealt(pairs, SIZES, SEED)


def last() -> Rows:
    """Lists of three to five words; the answer is the last one."""
    draw = random.Random(SEED)
    lists = {tuple(draw.sample(LISTED.split(), draw.randint(3, 5))): None for _ in range(100)}
    return dealt([("Words: " + " / ".join(words), words[-1]) for words in lists], Sizes(32, 32, 8), SEED)


def tasks() -> dict[str, Rows]:
    """The rows of all eight, by the name of the task."""
    return {
        "herbs": remedies(),
        "masters": masters(),
        "passwords": passwords(),
        "hops": hops(),
        "opposites": opposites(),
        "pets": pets(),
        "codes": codes(),
        "last": last(),
    }


if __name__ == "__main__":
    write(tasks(), Path(__file__).parent)

"""Of the numbers in what an LLM chose, those that the person named.

Small models fill in every field that they see: "90 percent is enough" came back with a limit of two rounds and a
budget nobody had spoken of. What is left out is as if it had been left empty, which a tool's fields say the meaning of.
"""

import re
from collections.abc import Sequence
from typing import TypeVar

from agent.records.base import Record
from graphs.conversation.lexicon import COUNTS
from graphs.conversation.tools import RunRounds

Choice = TypeVar("Choice", bound=Record)
DIGITS = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?|\.\d+")
WORDS = {word: float(count) for word, count in COUNTS.items() if word not in ("a", "an")} | {
    "zero": 0, "start": 0, "beginning": 0, "baseline": 0, "original": 0, "seed": 0, "scratch": 0, "half": 0.5,
    "single": 1, "first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5, "dozen": 12, "twenty": 20,
    "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90, "hundred": 100,
}  # fmt: skip
# "a" is a number only before what is counted.
ONE_OF = re.compile(r"\ban? (?=(?:round|epoch|hour|minute|day|dollar|cent)\b)", re.I)

# What counts something else than rounds: "two hours", "3 more epochs", "90%".
UNITS = r"(?:%|(?:per ?cent|epoch|hour|minute|min|second|day|dollar|cent|row|example|token|word)s?\b)"
OF_OTHER_UNITS = re.compile(rf"(?:\d[\d,.]*|\b(?:{'|'.join(WORDS)}))(?: more)?[ -]?{UNITS}", re.I)


def as_named(choice: Choice, said: Sequence[str]) -> Choice:
    """The choice, its optional numbers emptied where no word of theirs can stand for them.

    A word may stand for another number ("an hour" for 60 minutes): as many numbers may differ from the words as there
    are words that no other number equals. Only rounds without asking must be those that were named: in "go on for two
    hours" no number is one of rounds.

    Args:
        said: what the person said, in this turn and before.
    """
    text = " ".join(said)
    words = _numbers(OF_OTHER_UNITS.sub(" ", text) if isinstance(choice, RunRounds) else text)
    others = list[str]()
    for name, value in _optional_numbers(choice).items():
        meant = next((word for word in words if word in (value, round(100 * value, 9))), None)
        if meant is None:
            others.append(name)
        else:
            words.remove(meant)
    stand_for_words = 0 if isinstance(choice, RunRounds) else len(words)
    return choice.model_copy(update=dict.fromkeys(others[stand_for_words:]))


def _optional_numbers(choice: Record) -> dict[str, float]:
    values = {name: getattr(choice, name) for name, field in type(choice).model_fields.items() if field.default is None}
    return {name: value for name, value in values.items() if isinstance(value, int | float)}


def _numbers(text: str) -> list[float]:
    digits = [float(found.replace(",", "")) for found in DIGITS.findall(text)]
    words = [WORDS[word] for word in re.findall(r"[a-z]+", text.lower()) if word in WORDS]
    return [*digits, *words, *(1.0 for _ in ONE_OF.findall(text))]

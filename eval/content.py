"""Content scorers: how right an output is, whatever its form. Each maps (output, answer) to [0, 1]."""

import re
import string
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from functools import partial

from agent.errors import BadInput
from agent.records import folded
from agent.scoring import Choice, Contains, ContentScorer, Exact, Judge, Number, Rated, RewardModel, TokenF1

Score = Callable[[str, str], float]

# A sign counts only where it does not stand between two numbers (5-10), a comma only before three digits (1,000).
NUMBER = re.compile(
    r"(?:(?<![\w)\]%])-)?\$?"
    r"(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)"
    r"(?:[eE][-+]?\d{1,3}(?!\d))?"
)


def content_scorer(settings: ContentScorer) -> Score | Rated:
    """The scoring function that these settings describe, or the settings themselves where no rule can score.

    Raises:
        BadInput: a pattern that does not compile, or settings that have no meaning here.
    """
    match settings:
        case Exact(extract=pattern):
            return exact if pattern is None else partial(extracted, pattern=compiled(pattern, "extract"))
        case Contains():
            return contains
        case Number(marker=marker):
            return partial(number, marker=marker)
        case Choice(letters=letters):
            if not letters:
                raise BadInput("'letters' is empty; name the option letters, such as ABCD")
            return partial(choice, letters=letters)
        case TokenF1():
            return f1
        case Judge(say=None, show=None) | RewardModel():
            return settings
        case Judge():
            raise BadInput("'say' and 'show' are for a judge of style; this one judges content")


def settled(settings: ContentScorer, said: str, answer: str) -> bool:
    """Whether the score is the same for every text that goes on from `said` with white space and more. In doubt, no."""
    match settings:
        case Exact(extract=None):
            return not answer.strip().casefold().startswith(said.strip().casefold())
        case Contains():
            return holds(said, answer)
        case _:  # a later number, letter, word or match may count in place of an earlier one, or beside it
            return False


def compiled(pattern: str, key: str) -> re.Pattern[str]:
    """The pattern, compiled. Raises BadInput that names the key and what is wrong."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise BadInput(f"'{key}' is not a regular expression: {error} in {pattern!r}") from None


def holds(text: str, phrase: str) -> bool:
    """Whether the phrase stands in the text as whole words, both folded."""
    text, phrase = folded(text), folded(phrase)
    before = r"(?<!\w)" if re.match(r"\w", phrase) else ""
    after = r"(?!\w)" if re.search(r"\w$", phrase) else ""
    return re.search(before + re.escape(phrase) + after, text) is not None


def exact(output: str, answer: str) -> float:
    """1.0 if the whole output is the answer, case and outer white space aside."""
    return float(output.strip().casefold() == answer.strip().casefold())


def extracted(output: str, answer: str, pattern: re.Pattern[str]) -> float:
    """1.0 if the pattern's first group (or its match) in the output is the answer."""
    found = pattern.search(output)
    text = found and found[1 if pattern.groups else 0]
    return exact(text, answer) if text is not None else 0.0


def contains(output: str, answer: str) -> float:
    """1.0 if the answer stands in the output as whole words."""
    return float(holds(output, answer))


def number(output: str, answer: str, marker: str = "####") -> float:
    """1.0 if both come to the same number."""
    found, wanted = final_number(output, marker), final_number(answer, marker)
    return float(found is not None and found == wanted)


def final_number(text: str, marker: str) -> Decimal | None:
    """The number right after the last marker; the last one of the text if there is no marker, or no number after it."""
    text = text.replace("\N{MINUS SIGN}", "-")
    marked = NUMBER.findall(text.rpartition(marker)[2])[:1] if marker and marker in text else []
    found = marked or NUMBER.findall(text)
    return Decimal(found[-1].replace(",", "").replace("$", "")) if found else None


def choice(output: str, answer: str, letters: str = "ABCDE") -> float:
    """1.0 if both name the same option letter."""
    found, wanted = option(output, letters), option(answer, letters)
    return float(found is not None and found == wanted)


def option(text: str, letters: str) -> str | None:
    """The option letter a text settles on: the clearest way of naming one wins, then the last of its kind."""
    letter = f"([{re.escape(letters)}])"
    ways = (
        rf"(?i:^\W*{letter}\W*$)",
        rf"(?i:answer|choice|option)(?i:\s+is)?\W{{0,6}}{letter}\b",
        rf"^\W*{letter}[.):]",
        rf"(?i:\({letter}\))",
        rf"\b{letter}\b(?!')",
    )
    for way in ways:
        if found := re.findall(way, text):
            return str(found[-1]).casefold()
    return None


def f1(output: str, answer: str) -> float:
    """Harmonic mean of precision and recall over words, in [0, 1], normalised as in SQuAD (Rajpurkar et al. 2016)."""
    found, wanted = squad_words(output), squad_words(answer)
    if not found or not wanted:
        return float(found == wanted)
    common = sum((Counter(found) & Counter(wanted)).values())
    return 2 * common / (len(found) + len(wanted))


def squad_words(text: str) -> list[str]:
    """Lower-case words without punctuation and English articles."""
    bare = text.lower().translate(str.maketrans("", "", string.punctuation))
    return [word for word in bare.split() if word not in {"a", "an", "the"}]

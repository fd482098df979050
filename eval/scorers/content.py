"""Content scorers: how right an output is, whatever its form. Each maps (output, answer) to [0, 1]."""

import string
import unicodedata
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import SupportsFloat

from agent import extensions
from agent.config.base import CustomScorer
from agent.config.scorers import (
    Choice,
    Contains,
    ContentScorer,
    Exact,
    JsonFields,
    Judge,
    Number,
    Rated,
    RewardModel,
    TokenF1,
)
from agent.errors import BadInput
from eval.parsing.choices import option
from eval.parsing.numbers import final_number
from eval.parsing.words import holds, segmented
from eval.scorers.json_form import json_fault_is_final, json_value, same_json, unescaped
from eval.scorers.patterns import Pattern
from eval.scorers.time_limit import TimeLimit

Score = Callable[[str, str], float]


def content_scorer(settings: ContentScorer) -> Score | Rated:
    """The scoring function that these settings describe, or the settings themselves where no rule can score.

    Raises:
        BadInput: a pattern that does not compile, or settings that have no meaning here.
    """
    match settings:
        case Exact(extract=pattern):
            return exact if pattern is None else partial(extracted, pattern=Pattern(pattern, "extract"))
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
        case JsonFields(keys=keys):
            return partial(json_fields, keys=keys)
        case Judge(say=None, show=None) | RewardModel():
            return settings
        case Judge():
            raise BadInput("'say' and 'show' are for a judge of style; this one judges content")
        case CustomScorer(kind=kind):
            return registered(kind, settings)


def registered(kind: str, settings: CustomScorer) -> Score:
    """The registered scorer of this kind, with its settings.

    It raises BadInput where it gives no score in [0, 1], and TooSlow.
    """
    found = extensions.scorers.get(kind)
    assert found is not None, "settings of a kind are made by its registration"

    limited = TimeLimit(f"content scorer {kind!r}")

    def score(output: str, answer: str) -> float:
        value = limited(lambda: found.score(output, answer, settings))
        if not isinstance(value, SupportsFloat) or not 0 <= float(value) <= 1:  # of NumPy and torch, too
            raise BadInput(f"the content scorer {kind!r} gave {value!r}; a score is a number from 0 to 1")
        return float(value)

    return score


def score_is_final(settings: ContentScorer, beginning: str, answer: str) -> bool:
    """Whether the score is the same for every output that begins with this and white space. In doubt, no."""
    match settings:
        case Exact(extract=None) if isinstance(json_value(answer), dict | list):
            return beginning.lstrip()[:1] not in ("{", "[") or json_fault_is_final(beginning)
        case Exact(extract=None):
            return not answer.strip().casefold().startswith(beginning.strip().casefold())
        case Contains():
            return says(beginning, answer)
        case _:  # a later number, letter, word or match may replace an earlier one, or add to it
            return False


def says(output: str, phrase: str) -> bool:
    """Whether the output has the phrase as whole words, as written or with the escapes of JSON strings undone."""
    return holds(output, phrase) or holds(unescaped(output), phrase)


def exact(output: str, answer: str) -> float:
    """1.0 if the whole output is the answer, else 0.0. Case and outer white space do not count.

    Nor do, in JSON objects and lists, the order of keys and the spacing.
    """
    if output.strip().casefold() == answer.strip().casefold():
        return 1.0
    wanted = json_value(answer)
    return float(isinstance(wanted, dict | list) and same_json(json_value(output), wanted))


def extracted(output: str, answer: str, pattern: Pattern) -> float:
    """1.0 if the pattern's first group (or its match) in the output is the answer. Raises TooSlow."""
    texts = (pattern.extract(text) for text in dict.fromkeys((output, unescaped(output))))
    return max(exact(text, answer) if text is not None else 0.0 for text in texts)


def contains(output: str, answer: str) -> float:
    """1.0 if the output has the answer as whole words, else 0.0."""
    return float(says(output, answer))


def number(output: str, answer: str, marker: str = "####") -> float:
    """1.0 if both come to the same number: 3/4 is 0.75, and 2 sqrt 3 is \\sqrt{12}."""
    found, wanted = final_number(unescaped(output), marker), final_number(answer, marker)
    return float(found is not None and wanted is not None and found.same(wanted))


def choice(output: str, answer: str, letters: str = "ABCDE") -> float:
    """1.0 if both name the same option letter."""
    found, wanted = option(output, letters), option(answer, letters)
    return float(found is not None and found == wanted)


def json_fields(output: str, answer: str, keys: tuple[str, ...] = ()) -> float:
    """The share of these keys (of all the answer's, if none are named) that have the answer's value in the output.

    0.0 where either is no JSON object. The output may stand in a ``` fence, or under a key of its own: that is a matter
    of style.
    """
    found, wanted = json_value(output, fenced=True), json_value(answer, fenced=True)
    while isinstance(found, dict) and isinstance(wanted, dict) and len(found) == 1 and not found.keys() & wanted.keys():
        (found,) = found.values()
    compared = keys or tuple(wanted) if isinstance(wanted, dict) else ()
    if not isinstance(found, dict) or not isinstance(wanted, dict) or not compared:
        return 0.0
    right = [key in found and key in wanted and same_json(found[key], wanted[key]) for key in compared]
    return sum(right) / len(compared)


def f1(output: str, answer: str) -> float:
    """Harmonic mean of precision and recall over words, in [0, 1], normalised as in SQuAD (Rajpurkar et al. 2016).

    Where words stand without spaces, every character is one (as in MLQA; Lewis et al. 2020).
    """
    found, wanted = squad_words(unescaped(output)), squad_words(answer)
    if not found or not wanted:
        return float(found == wanted)
    common = sum((Counter(found) & Counter(wanted)).values())
    return 2 * common / (len(found) + len(wanted))


def squad_words(text: str) -> list[str]:
    """Lower-case words without punctuation and English articles."""
    bare = "".join(
        letter
        for letter in text.lower()
        if letter not in string.punctuation and not unicodedata.category(letter).startswith("P")
    )
    return [word for word in segmented(bare) if word not in {"a", "an", "the"}]

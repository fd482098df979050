"""The option letter that a text settles on."""

import re
from collections.abc import Iterator
from functools import cache

from eval.parsing.words import LETTER

# English: what follows a choice, and neither the article "a" nor the pronoun "I".
GOES_ON = r"(?:because|since|as|is|are|and|or|due|which|but|for|based)\b"
NAMED = r"(?i:answer|choice|option|alternative)"


def option(text: str, letters: str) -> str | None:
    """The letter, folded; None if there is none. The clearest pattern that matches wins, then its last match."""
    for pattern in _compiled(letters):
        if found := pattern.findall(text):
            return str(found[-1]).casefold()
    return None


@cache
def _compiled(letters: str) -> tuple[re.Pattern[str], ...]:
    """From the clearest pattern to the least clear. A small letter counts only where its place makes it clear."""
    return tuple(map(re.compile, _patterns(letters)))


def _patterns(letters: str) -> Iterator[str]:
    large, small = (re.escape(cased) for cased in (letters.upper(), letters.lower()))
    either = f"([{large}{small}])"
    ends = rf"(?!{LETTER})(?!['’-]\w)"
    yield rf"^\W*{either}\W*$"
    yield rf"(?i:\boption|\bchoice)\W{{0,6}}{either}{ends}{_no_word('iI')}"
    yield rf"{NAMED}(?i:\s+(?:is|was|would be|should be|must be))?\W{{0,6}}{either}{ends}{_no_word('aAiI')}"
    yield rf"^\W*{either}(?:[)]|[.:](?=\W|$))"
    yield rf"^\W*([{large}])[.):]"
    yield rf"\({either}\)"
    yield rf"(?m:^\W*{either}\W*$)"
    yield rf"(?<!{LETTER})([{large}]){ends}{_no_word('aAiI')}"
    yield rf"(?<!{LETTER})(?<!['’-])(?![aiAI])([{small}])\W*$"


def _no_word(letters: str) -> str:
    """Behind one of these letters: it is no article or pronoun, which has a word after it that goes on otherwise."""
    return rf"(?!(?<=[{letters}])\s+(?!{GOES_ON})[^\W\d_])"

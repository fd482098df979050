"""Where words begin and end, also in languages that write them without spaces."""

import re
import unicodedata

from agent.records.base import folded

# Thai, Lao, Tibetan, Burmese, Khmer, kana, Chinese characters; and Korean, which writes endings onto the word.
UNSPACED = (
    "\u0e00-\u0fff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3130-\u318f\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
LETTER = rf"[^\W{UNSPACED}]"  # of a word that ends where spaces, punctuation or another script begin
_UNSPACED = re.compile(f"[{UNSPACED}]")


def holds(text: str, phrase: str) -> bool:
    """Whether the text has the phrase as whole words, both folded; anywhere, in scripts without spaces."""
    text, phrase = folded(text), folded(phrase)
    start = text.find(phrase)
    while start >= 0:
        end = start + len(phrase)
        if not (phrase and (_joined(text[:start][-1:], phrase[0]) or _joined(phrase[-1], text[end : end + 1]))):
            return True
        start = text.find(phrase, start + 1)
    return False


def segmented(text: str) -> list[str]:
    """The words of a text; in scripts without spaces, every character is a word."""
    return _UNSPACED.sub(r" \g<0> ", text).split()


def _joined(left: str, right: str) -> bool:
    """Whether two neighbouring letters belong to one word."""
    return _in_word(left) and _in_word(right)


def _in_word(letter: str) -> bool:
    if not letter or _UNSPACED.match(letter):
        return False
    return letter.isalnum() or letter == "_" or unicodedata.category(letter).startswith("M")

"""Whether an LLM's answer says only what the records say: its numbers and names stand there, what it claims was done.

A sentence with a number or a name that no record holds, or that claims an action which was not taken, is left out.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

NUMBER = re.compile(r"(?<![\w.])[+\-−]?\d+(?:,\d{3})*(?:\.\d+)?(?: ?%)?(?![\w]*\d)")
ROUND = re.compile(r"\b(?:round|/why) #?(\d+)", re.I)
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9\"“(])")
NAME = re.compile(r"(?<=[\w,;:\"“] )[A-Z][a-z]+\b")
OUR_NAMES = {"i", "lora", "nesylora", "llm", "gepa", "textgrad", "round", "yes", "no"}
BULLET = re.compile(r"^\s*(?:\d+[.)]|[-*•])\s+")
DOWN = re.compile(
    r"\b(?:f[ae]ll\w*|los[est]\w*|dropp?\w*|down|decreas\w*|declin\w*|less|lower\w*|worse\w*|minus)\b", re.I
)
# What only a command does, in the words by which an LLM says that it was done.
CLAIMS = (
    (r"train(?:ed|ing has)|fine-?tuned|started (?:a |the )?training", "/train"),
    (r"edited|rewrote|rewritten|changed the prompt|added (?:it|that|the)", "/edit"),
    (r"rolled back|went back|gone back|undone|undid|reverted", "/rollback"),
    (r"finished the run|ended the run|opened the test", "/finish"),
    (r"cancell?ed|stopped the", "/stop"),
    (r"(?:set|changed|raised|lowered) the (?:target|budget|limit)", "/set"),
)
# How something ended. An LLM likes to see its run succeed; only the records say whether it did.
OUTCOMES = re.compile(r"\b(kept|taken back|rolled back|learn(?:ed|t)|improved|reached|met|succeeded)\b", re.I)
I_DID = r"\bI(?:'ve| have| just| already|'m)*(?: now| just| already)* (?:{claim})"


class Checked(NamedTuple):
    """What of an answer stands, and what was left out, with the reason."""

    text: str
    left_out: tuple[str, ...]


def checked(answer: str, records: Sequence[str], done: Sequence[str] = (), said: Sequence[str] = ()) -> Checked:
    """The sentences of an answer that the records bear out.

    Args:
        records: texts that the LLM was shown; their numbers may be quoted, rounded or as per cent.
        done: the commands behind the rounds of the run, in order. A claim names its round: an answer does nothing by
            itself, and that of a round long past would otherwise bear out "I trained it".
        said: the user's words: their names may be taken up, their numbers bear nothing out.
    """
    shown = "\n".join([*records, *said])
    told = "\n".join(records)
    known, rounds, ends = numbers(told), _rounds(told), _outcomes(told)
    lines, left_out = list[str](), list[str]()
    for line in answer.strip().splitlines():
        bullet, kept = BULLET.match(line), list[str]()
        for sentence in SENTENCE.split(line[bullet.end() :] if bullet else line):
            if unknown := _unknown(sentence, known, rounds) + _strangers(sentence, shown):
                left_out.append(f"a sentence with {', '.join(unknown)}, which no record holds")
            elif untold := _outcomes(sentence) - ends:
                left_out.append(f"a sentence that says {', '.join(sorted(untold))}, as no record does")
            elif _claims_more(sentence, done):
                left_out.append("a sentence that claims what was not done")
            else:
                kept.append(sentence)
        if any(kept):
            lines.append(f"{bullet[0] if bullet else ''}{' '.join(kept)}")
    return Checked("\n".join(lines), tuple(left_out))


def _unknown(sentence: str, known: set[float], rounds: set[int]) -> list[str]:
    """The numbers of a sentence that no record holds. A round is a name: another number does not stand for it."""
    named = [f"round {number}" for number in sorted(_rounds(sentence) - rounds)]
    less = bool(DOWN.search(sentence))
    return named + [text for text in NUMBER.findall(ROUND.sub("", sentence)) if not _stands(text, known, less)]


def _strangers(sentence: str, shown: str) -> list[str]:
    """Names that no record holds: capitalised words beyond the first. Small models invent people."""
    words = set(re.findall(r"\w+", shown.lower())) | OUR_NAMES
    return [name for name in NAME.findall(sentence) if name.lower() not in words]


def _outcomes(text: str) -> set[str]:
    return {word.lower() for word in OUTCOMES.findall(text)}


def _rounds(text: str) -> set[int]:
    return {int(number) for number in ROUND.findall(text)}


def numbers(text: str) -> set[float]:
    """All numbers of a text; those in per cent also as shares."""
    found = set[float]()
    for match in NUMBER.findall(text):
        value = _value(match)
        found |= {value, value / 100} if match.endswith("%") else {value}
    return found


def _value(text: str) -> float:
    return float(text.rstrip("% ").replace(",", "").replace("−", "-"))


def _stands(text: str, known: set[float], less: bool) -> bool:
    """Whether a number is one of the records', to the places to which it is given.

    Args:
        less: the sentence says that something went down, which a number without a sign then measures.
    """
    value = _value(text)
    if less and text[0].isdigit():
        known = known | {-number for number in known if number < 0}
    places = len(text.rstrip("% ").partition(".")[2])
    if text.endswith("%"):
        return any(round(100 * number, places) == value or round(number, places) == value for number in known)
    return any(round(number, places) == value for number in known if places or number == int(number))


def _claims_more(sentence: str, done: Sequence[str]) -> bool:
    named = {done[number - 1] for number in _rounds(sentence) if 0 < number <= len(done)}
    return any(re.search(I_DID.format(claim=claim), sentence, re.I) and by not in named for claim, by in CLAIMS)

"""Whether an LLM's answer says only what the records say: its numbers and names stand there, what it claims was done.

A sentence with a number or a name that no record holds, or that claims an action which was not taken, is left out.
"""

import re
from collections.abc import Iterator, Sequence
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
    (r"(?:re)?trained|fine-?tuned|started (?:a |the )?training|finished (?:a |the )?training", "/train"),
    (r"edited|rewrote|rewritten|reworded|changed the prompt|added (?:it|that|the)", "/edit"),
    (r"rolled back|went back|gone back|undone|undid|reverted", "/rollback"),
    (r"finished the run|ended the run|opened the test|(?:finished|ended)$", "/finish"),
    (r"cancell?ed|stopped the", "/stop"),
    (r"(?:set|changed|raised|lowered) the (?:target|budget|limit)|(?:raised|lowered|extended)", "/set"),
)
# How something ended. An LLM likes to see its run succeed; only the records say whether it did.
OUTCOMES = re.compile(r"\b(kept|taken back|rolled back|learn(?:ed|t)|improved|reached|met|succeeded)\b", re.I)
ADVERBS = r"(?: now| just| already| also| since| successfully)*"
CLAIMED = (  # by whom, or in the passive
    rf"\b(?:I|we)(?:'ve| have|'m|'re)?{ADVERBS}(?: have)?{ADVERBS} (?:{{claim}})",
    rf"\b(?:was|were|been|got|gotten){ADVERBS} (?:{{claim}})",
)
TRAINING_WAS = r"\btraining (?:is|was|has|has been)(?: now| just)* (?:done|finished|completed?|started|begun)\b"
# "The weights have not been trained", and "once they were trained", claim nothing.
NOT_CLAIMED = re.compile(
    r"(?:\b(?:not|never|no|nothing|none|once|if|until|unless|before|would|could|should|might)\b|n't)"
    r"[^,;:.!?]*$",
    re.I,
)
ORDINALS = {"first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5, "last": -1, "latest": -1}
ORDINAL = re.compile(rf"\b({'|'.join(ORDINALS)}) round\b", re.I)


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
    """Whether something is said to have been done that no round named in the sentence did."""
    ordinals = {ORDINALS[word.lower()] for word in ORDINAL.findall(sentence)}
    rounds = _rounds(sentence) | {len(done) if number < 0 else number for number in ordinals}
    named = {done[number - 1] for number in rounds if 0 < number <= len(done)}
    return any(by not in named for by in _claimed(sentence))


def _claimed(sentence: str) -> Iterator[str]:
    """The commands that it says were carried out."""
    if sentence.rstrip().endswith("?"):
        return
    said = sentence.rstrip(" .!")
    patterns = [(form.format(claim=claim), by) for claim, by in CLAIMS for form in CLAIMED]
    for pattern, by in [*patterns, (TRAINING_WAS, "/train")]:
        if any(not NOT_CLAIMED.search(said[: found.start()]) for found in re.finditer(pattern, said, re.I)):
            yield by

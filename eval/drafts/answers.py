"""How answers are scored, proposed by looking at them."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import takewhile
from statistics import median
from typing import Any, NamedTuple

from agent.config.scorers import is_content_kind
from agent.errors import BadInput
from agent.reasoning import spoken
from agent.records.base import folded
from eval.parsing.numbers import final_number
from eval.parsing.words import holds, segmented
from eval.scorers.json_form import json_value
from eval.scorers.style import BULLET
from eval.tasks.config_errors import nearest

NEARLY_ALL = 0.95
FEW = 10  # different answers, at most, that are labels
CLASSES = 5  # different numbers, at most, that are labels
SHORT = 5  # words of an answer that is looked for in the output
MARK = "####"
# A reward that is worth aiming at where answers are scored so; the user knows better.
PLAUSIBLE = {"choice": 0.9, "number": 0.9, "contains": 0.9, "exact": 0.9, "json_fields": 0.9, "f1": 0.6}
WHOLE = ("exact", "f1")  # kinds that compare the whole answer, its beginning and its length included
NUMBER = re.compile(r"[-+\N{MINUS SIGN}]?\s*[$€£]?\s*(?!0\d)\d[\d,]*(?:\.\d+)?(?:\s*/\s*\d+)?\s*[^\s\d]{0,12}")
LETTER = re.compile(r"\(?([A-Za-z])[).:]?")


class Scoring(NamedTuple):
    """Scorers as a task.yaml has them, each with its reason, and what is true of the answers.

    Args:
        plausible: a reward that a small model can reach on answers of this kind.
        prefix: what all answers begin with; it is taken off the rows, and the style scorer asks for it.
        labels: the different answers, where they are few; else none.
    """

    kind: str
    content: dict[str, Any]
    why: str
    plausible: float
    style: tuple[tuple[dict[str, Any], str], ...] = ()
    prefix: str = ""
    labels: tuple[str, ...] = ()


def propose_scoring(answers: Sequence[str]) -> Scoring:
    """The content scorer and the style scorers that fit these answers."""
    texts = [spoken(answer).strip() for answer in answers]
    prefix = _prefix(texts)
    bare = [text.removeprefix(prefix) for text in texts]
    found = _structured(bare) or _labels(bare) or _free(bare)
    if not prefix:
        return found
    style = [_shifted(entry, len(prefix.split())) for entry in found.style]
    reason = f"{sum(text.startswith(prefix) for text in texts)} of {len(texts)} answers begin with '{prefix.strip()}'"
    apart = found.kind not in WHOLE
    if apart:
        reason += "; the rows were written without it, so that content and form are told apart"
    style.insert(0, ({"kind": "starts_with", "text": prefix}, reason))
    return found._replace(style=tuple(style), prefix=prefix if apart else "")


def scoring_of_kind(kind: str, found: Scoring) -> Scoring:
    """The proposal with the content scorer that the user wants.

    Raises:
        BadInput: there is no such scorer, or it needs settings that cannot be proposed.
    """
    if kind == found.kind:
        return found
    if kind not in PLAUSIBLE:
        raise BadInput(
            f"content: '{kind}' needs settings of its own; draft with f1, and write it into the task.yaml afterwards"
            if is_content_kind(kind)
            else f"content: there is no scorer '{kind}'; {nearest(kind, tuple(PLAUSIBLE), 'those that can be drafted')}"
        )
    whole = kind in WHOLE
    kept = tuple(entry for entry in found.style if not whole or entry[0]["kind"] != "words")
    return found._replace(
        kind=kind, content={"kind": kind}, why="as you said", plausible=PLAUSIBLE[kind], style=kept,
        prefix="" if whole else found.prefix,
    )  # fmt: skip


def _structured(texts: Sequence[str]) -> Scoring | None:
    """Answers that are JSON, numbers or option letters."""
    values = [json_value(text) for text in texts]
    if _nearly_all(isinstance(value, dict) for value in values):
        return _json_fields([value for value in values if isinstance(value, dict)], len(texts))
    if _nearly_all(isinstance(value, list) for value in values):
        form = {"kind": "json", "schema": {"type": "array"}}
        why = "answers are JSON lists, compared as a whole; the order of keys and spacing do not count"
        return Scoring("exact", {"kind": "exact"}, why, PLAUSIBLE["exact"], ((form, "answers are JSON lists"),))
    if _nearly_all(MARK in text and final_number(text, MARK) is not None for text in texts):
        why = f"the number after {MARK} is the result; the steps before it do not count"
        return Scoring("number", {"kind": "number", "marker": MARK}, why, 0.5)
    if _nearly_all(bool(NUMBER.fullmatch(text)) and final_number(text, "") is not None for text in texts):
        why = "answers are numbers: the last one of the output is compared, however it is written"
        classes = (
            sorted(set(texts), key=texts.index) if len(set(texts)) <= CLASSES and len(texts) >= 3 * CLASSES else []
        )
        return Scoring("number", {"kind": "number"}, why, PLAUSIBLE["number"], labels=tuple(classes))
    letters = [match[1].upper() for text in texts if (match := LETTER.fullmatch(text))]
    if len(letters) >= NEARLY_ALL * len(texts) and len(set(letters)) > 1:
        last = max("E", *letters)
        options = "".join(chr(code) for code in range(ord("A"), ord(last) + 1))
        content = {"kind": "choice"} if last == "E" else {"kind": "choice", "letters": options}
        return Scoring("choice", content, "answers are option letters", PLAUSIBLE["choice"])
    return None


def _json_fields(values: Sequence[dict[str, Any]], total: int) -> Scoring:
    keys = [key for key in values[0] if all(key in value for value in values)]
    long = [key for key in keys if median(len(str(value[key]).split()) for value in values) > SHORT]
    counted = [key for key in keys if key not in long] if long else []
    why = f"{len(values)} of {total} answers are JSON objects, compared key by key"
    if long:
        why += f"; free text under {', '.join(long)} is " + (
            "left out, since two texts are rarely the same" if counted else "compared as it is: a judge may fit better"
        )
    content = {"kind": "json_fields", **({"keys": counted} if counted else {})}
    form = {"kind": "json", **({"keys": keys} if keys else {})}
    reason = "bare JSON, without words or a ``` fence around it"
    return Scoring("json_fields", content, why, PLAUSIBLE["json_fields"], ((form, reason),))


def _labels(texts: Sequence[str]) -> Scoring | None:
    """Answers that are a few labels."""
    counts = Counter(map(folded, texts))
    longest = max(len(segmented(text)) for text in texts)
    if not (1 < len(counts) <= FEW and len(texts) >= 3 * len(counts) and longest <= SHORT):
        return None
    written = {folded(text): text for text in reversed(texts)}
    labels = tuple(written[label] for label, _ in counts.most_common())
    nested = next(((a, b) for a in counts for b in counts if a != b and holds(b, a)), None)
    if nested:
        why = f"{len(labels)} different answers, and '{nested[1]}' contains '{nested[0]}': the whole output is compared"
        return Scoring("exact", {"kind": "exact"}, why, PLAUSIBLE["exact"], labels=labels)
    most = max(len(text.split()) for text in labels)
    words = ({"kind": "words", "most": most}, "a label and nothing else: an output that lists all labels gets no marks")
    why = f"{len(labels)} different answers: the label has to be in the output"
    return Scoring("contains", {"kind": "contains"}, why, PLAUSIBLE["contains"], (words,), labels=labels)


def _free(texts: Sequence[str]) -> Scoring:
    """Answers in words of their own."""
    lengths = sorted(len(segmented(text)) for text in texts)
    usual, longest = _quantile(lengths, NEARLY_ALL), lengths[-1]
    bullets = [sum(bool(BULLET.match(line)) for line in text.splitlines()) for text in texts]
    if _nearly_all(count > 1 for count in bullets):
        least, most = min(filter(None, bullets)), max(bullets)
        form = {"kind": "bullets", "least": least, "most": most}
        return _overlap(usual, ((form, f"answers are lists of {least} to {most} points"),))
    if usual > SHORT:
        return _overlap(usual, ())
    if not _nearly_all(any(letter.isalnum() for letter in text) for text in texts):
        return Scoring("exact", {"kind": "exact"}, "answers are signs, not words", PLAUSIBLE["exact"])
    most = max(SHORT, 2 * max(len(text.split()) for text in texts))
    words = ({"kind": "words", "most": most}, f"the longest answer has {longest}; a whole sentence is longer")
    why = "answers are short: the output has to contain the answer, as whole words"
    if FEW < (different := len(set(map(folded, texts)))) <= len(texts) // 3:
        why += f". There are {different} different ones: if they are labels, name them in prompt.system"
    return Scoring("contains", {"kind": "contains"}, why, PLAUSIBLE["contains"], (words,))


def _overlap(usual: int, style: tuple[tuple[dict[str, Any], str], ...]) -> Scoring:
    why = (
        f"answers are long (up to {usual} words, as a rule): f1 counts the words that output and answer share. It is "
        "rough: a right answer in other words gets few marks. A judge, which reads what is meant, needs an external LLM"
    )
    return Scoring("f1", {"kind": "f1"}, why, PLAUSIBLE["f1"], style)


def _prefix(texts: Sequence[str]) -> str:
    """What nearly all answers begin with, cut at a word; "" where that is no form but chance, or part of the answer."""
    ordered, size = sorted(texts), math.ceil(NEARLY_ALL * len(texts))
    # Sorted texts share what the first and the last of them share.
    shared = (_shared(ordered[at], ordered[at + size - 1]) for at in range(len(ordered) - size + 1))
    match = re.match(r"(.*[:>\]]\s+|\w+(?:\s+\w+){2,}\s+)", max(shared, key=len, default=""))
    prefix = match[1] if match else ""
    rests = {text.removeprefix(prefix) for text in texts}
    if not prefix or "" in rests or len(rests) < 2 or texts[0][:1] in "{[-*" or not re.search(r"\w", prefix):
        return ""
    return prefix


def _shared(first: str, last: str) -> str:
    shared = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return "".join(letter for letter, _ in shared)


def _shifted(entry: tuple[dict[str, Any], str], words: int) -> tuple[dict[str, Any], str]:
    """A limit on words, with room for those of the prefix."""
    scorer, reason = entry
    return ({**scorer, "most": scorer["most"] + words} if scorer["kind"] == "words" else scorer), reason


def _nearly_all(found: Iterable[bool]) -> bool:
    marks = list(found)
    return bool(marks) and sum(marks) >= NEARLY_ALL * len(marks)


def _quantile(ordered: Sequence[int], share: float) -> int:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

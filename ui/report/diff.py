"""What changed between two prompts: word by word for the eye, line by line for Markdown."""

import re
from collections.abc import Iterable, Iterator, Sequence
from difflib import SequenceMatcher, unified_diff
from itertools import groupby
from typing import Literal, NamedTuple

from agent.records.examples import Demo, Prompt

Change = Literal["same", "added", "removed"]
LONGEST_SAME = 360
LEAST_ALIKE = 0.3  # below this, a text is shown as rewritten: word by word it would be confetti
SAME_QUESTION = 0.5  # words in common from which a demonstration counts as reworded


class Piece(NamedTuple):
    """A stretch of text that is in both prompts, only in the new one, or only in the old one."""

    change: Change
    text: str


class DemoChange(NamedTuple):
    """A demonstration that stayed, came, went, or was reworded."""

    change: Change | Literal["changed"]
    question: list[Piece]
    answer: list[Piece]


class PromptDiff(NamedTuple):
    system: list[Piece]
    demos: list[DemoChange]
    retrieval: list[Piece]
    template: list[Piece]


def compare(before: Prompt, after: Prompt) -> PromptDiff:
    """Word by word, in demonstrations that were reworded, too; long unchanged stretches are shortened."""
    return PromptDiff(
        _words(before.system, after.system),
        list(_demos(before.demos, after.demos)),
        _words(_retrieved(before), _retrieved(after)),
        _words(before.template, after.template),
    )


def unified(before: Prompt, after: Prompt) -> str:
    """The same change as a unified diff of the prompts' lines. Empty when they are equal."""
    return "\n".join(list(unified_diff(lines(before), lines(after), n=2, lineterm=""))[2:])


def lines(prompt: Prompt) -> list[str]:
    """A prompt as lines of text: system, demonstrations as Q and A, what is retrieved, template."""
    demos = [line for demo in prompt.demos for line in (f"Q: {demo.question}", f"A: {demo.answer}")]
    return "\n".join(filter(None, [prompt.system, *demos, _retrieved(prompt), prompt.template])).splitlines()


def _retrieved(prompt: Prompt) -> str:
    return f"For each question: {prompt.retrieval}" if prompt.retrieval else ""


def _demos(before: Sequence[Demo], after: Sequence[Demo]) -> Iterator[DemoChange]:
    for tag, i, j, k, end in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if tag == "equal":
            yield from (
                DemoChange("same", [Piece("same", d.question)], [Piece("same", d.answer)]) for d in after[k:end]
            )
        else:
            yield from _reworded(before[i:j], after[k:end])


def _reworded(before: Sequence[Demo], after: Sequence[Demo]) -> Iterator[DemoChange]:
    """What went, then the new ones in order, each word by word beside the old one that it comes from."""
    gone, kin = list(before), []
    for demo in after:
        kin.append(next((old for old in gone if _akin(old, demo)), None))
        if kin[-1]:
            gone.remove(kin[-1])
    for demo in gone:
        yield DemoChange("removed", [Piece("removed", demo.question)], [Piece("removed", demo.answer)])
    for old, demo in zip(kin, after, strict=True):
        if old is None:
            yield DemoChange("added", [Piece("added", demo.question)], [Piece("added", demo.answer)])
        else:
            yield DemoChange("changed", _words(old.question, demo.question), _words(old.answer, demo.answer))


def _akin(old: Demo, new: Demo) -> bool:
    """The same question, or nearly the same with the same answer."""
    was, now = (re.findall(r"\w+", demo.question) for demo in (old, new))
    alike = SequenceMatcher(None, was, now, autojunk=False).ratio()
    return old.question == new.question or (old.answer == new.answer and alike >= SAME_QUESTION)


def _words(before: str, after: str) -> list[Piece]:
    if before == after:
        return [Piece("same", _shorten(after))] if after else []
    old, new = (re.findall(r"\S+\s*|\s+", text) for text in (before, after))
    words = SequenceMatcher(None, [word.strip() for word in old], [word.strip() for word in new], autojunk=False)
    common = sum(block.size for block in words.get_matching_blocks())
    if words.ratio() < LEAST_ALIKE and common < min(len(old), len(new)):
        return [Piece("removed", before)] * bool(before) + [Piece("added", after)] * bool(after)
    pieces = _joined(piece for opcode in words.get_opcodes() for piece in _stretch(old, new, *opcode))
    return [Piece(change, _shorten(text) if change == "same" else text) for change, text in pieces]


def _stretch(old: list[str], new: list[str], tag: str, i: int, j: int, k: int, end: int) -> Iterator[Piece]:
    """Equal words may be followed by other white space: a line that goes on is a change, too."""
    if tag != "equal":
        yield Piece("removed", "".join(old[i:j]))
        yield Piece("added", "".join(new[k:end]))
        return
    for was, now in zip(old[i:j], new[k:end], strict=True):
        word = now if was == now else now.rstrip()
        yield Piece("same", word)
        yield Piece("removed", was[len(word) :])
        yield Piece("added", now[len(word) :])


def _joined(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Neighbours of one kind as one piece, empty ones left out."""
    for change, run in groupby((piece for piece in pieces if piece.text), key=lambda piece: piece.change):
        yield Piece(change, "".join(piece.text for piece in run))


def _shorten(text: str) -> str:
    if len(text) <= LONGEST_SAME:
        return text
    half = LONGEST_SAME // 2
    return f"{text[:half].rstrip()} … {text[-half:].lstrip()}"

"""What changed between two prompts: word by word for the eye, line by line for Markdown."""

import re
from collections.abc import Hashable, Iterator, Sequence
from difflib import SequenceMatcher, unified_diff
from typing import Literal, NamedTuple

from agent.records import Demo, Prompt

Change = Literal["same", "added", "removed"]
LONGEST_SAME = 360
LEAST_ALIKE = 0.3  # below this, a text is shown as rewritten: word by word it would be confetti


class Piece(NamedTuple):
    """A stretch of text that is in both prompts, only in the new one, or only in the old one."""

    change: Change
    text: str


class DemoChange(NamedTuple):
    change: Change
    demo: Demo


class PromptDiff(NamedTuple):
    system: list[Piece]
    demos: list[DemoChange]
    template: list[Piece]


def compare(before: Prompt, after: Prompt) -> PromptDiff:
    """System text and template word by word, demonstrations as wholes; long unchanged stretches are shortened."""
    return PromptDiff(
        _words(before.system, after.system),
        [
            DemoChange(change, demo)
            for change, side, where in _changes(before.demos, after.demos)
            for demo in (before if side == "old" else after).demos[where]
        ],
        _words(before.template, after.template),
    )


def unified(before: Prompt, after: Prompt) -> str:
    """The same change as a unified diff of the prompts' lines. Empty when they are equal."""
    return "\n".join(list(unified_diff(lines(before), lines(after), n=2, lineterm=""))[2:])


def lines(prompt: Prompt) -> list[str]:
    """A prompt as lines of text: system, demonstrations as Q and A, template."""
    demos = [line for demo in prompt.demos for line in (f"Q: {demo.question}", f"A: {demo.answer}")]
    return "\n".join(filter(None, [prompt.system, *demos, prompt.template])).splitlines()


def _words(before: str, after: str) -> list[Piece]:
    if before == after:
        return [Piece("same", _shorten(after))] if after else []
    old, new = (re.findall(r"\S+\s*|\s+", text) for text in (before, after))
    if SequenceMatcher(None, old, new, autojunk=False).ratio() < LEAST_ALIKE:
        return [Piece("removed", before)] * bool(before) + [Piece("added", after)] * bool(after)
    pieces = [
        Piece(change, "".join((old if side == "old" else new)[where])) for change, side, where in _changes(old, new)
    ]
    return [Piece(change, _shorten(text) if change == "same" else text) for change, text in pieces]


def _changes(
    before: Sequence[Hashable], after: Sequence[Hashable]
) -> Iterator[tuple[Change, Literal["old", "new"], slice]]:
    """Stretches in reading order: the change, which side holds the text, and where."""
    for tag, i, j, k, end in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if tag == "equal":
            yield "same", "new", slice(k, end)
            continue
        if i < j:
            yield "removed", "old", slice(i, j)
        if k < end:
            yield "added", "new", slice(k, end)


def _shorten(text: str) -> str:
    if len(text) <= LONGEST_SAME:
        return text
    half = LONGEST_SAME // 2
    return f"{text[:half].rstrip()} … {text[-half:].lstrip()}"

"""Prompts are files; this reads them."""

import re
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from string import Template
from typing import TypeVar

from agent.errors import TooLong

LEFT_OUT = " […] "
ROOM = 2000  # characters of each text that an editor or a judge is shown; a quarter where its window is too small

T = TypeVar("T")


@cache
def read(name: str) -> str:
    """The text of `agent/prompts/<name>.md`."""
    return files(__name__).joinpath(f"{name}.md").read_text(encoding="utf-8")


def fill(name: str, **values: object) -> str:
    """The text with its `$placeholders` filled; raises KeyError for one that is missing."""
    return Template(read(name)).substitute(values)


def quoted(text: str, room: int) -> str:
    """At most `room` characters of the text, quoted as material: between <<< and >>>, which it cannot close itself.

    It is cut in the middle, so that its beginning and its end are both seen.
    """
    inside = disarmed(text)
    if len(inside) > room:
        half = max(1, (room - len(LEFT_OUT)) // 2)
        inside = f"{inside[:half]}{LEFT_OUT}{inside[-half:]}"
    gap = "\n" if "\n" in inside else " "
    return f"<<<{gap}{inside}{gap}>>>"


def disarmed(text: str) -> str:
    """The text without <<< and >>>: neither a quote's end nor a quote of its own."""
    return re.sub(r"<{3,}|>{3,}", lambda found: found[0][:2], text)


def fitting(ask: Callable[[int], T]) -> T:
    """The result of `ask` with `ROOM` characters of each text; with a quarter, if the LLM's window is too small.

    Raises:
        TooLong: that is too long for the window as well.
    """
    try:
        return ask(ROOM)
    except TooLong:
        return ask(ROOM // 4)


def one_line(text: str) -> str:
    """The text without line breaks and invisible characters."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())

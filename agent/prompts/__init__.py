"""Prompts are files; this reads them."""

import re
from functools import cache
from importlib.resources import files
from string import Template

LEFT_OUT = " […] "


@cache
def read(name: str) -> str:
    """The text of `agent/prompts/<name>.md`."""
    return files(__name__).joinpath(f"{name}.md").read_text(encoding="utf-8")


def fill(name: str, **values: object) -> str:
    """The text with its `$placeholders` filled; raises KeyError for one that is missing."""
    return Template(read(name)).substitute(values)


def quoted(text: str, room: int) -> str:
    """The text as material: between <<< and >>>, out of which it cannot break, and at most `room` characters of it.

    It is cut in the middle, so that what it opens with and what it comes to are both seen.
    """
    inside = re.sub(r"<{3,}|>{3,}", lambda found: found[0][:2], text)
    if len(inside) > room:
        half = max(1, (room - len(LEFT_OUT)) // 2)
        inside = f"{inside[:half]}{LEFT_OUT}{inside[-half:]}"
    gap = "\n" if "\n" in inside else " "
    return f"<<<{gap}{inside}{gap}>>>"


def one_line(text: str) -> str:
    """The text without line breaks and signs that cannot be seen."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())

"""Prompts are files; this reads them."""

import re
from functools import cache
from importlib.resources import files
from string import Template


@cache
def read(name: str) -> str:
    """The text of `agent/prompts/<name>.md`."""
    return files(__name__).joinpath(f"{name}.md").read_text(encoding="utf-8")


def fill(name: str, **values: object) -> str:
    """The text with its `$placeholders` filled; raises KeyError for one that is missing."""
    return Template(read(name)).substitute(values)


def quoted(text: str, most: int) -> str:
    """Material as one line between <<< and >>>, out of which it cannot break, cut to `most` characters."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    line = re.sub(r"<{3,}|>{3,}", " ", line).strip()
    return f"<<< {line if len(line) <= most else line[: most - 1] + '…'} >>>"

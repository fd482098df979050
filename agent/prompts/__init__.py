"""Prompts are files; this reads them."""

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

"""Untrusted text in Markdown: escaped in the line, fenced in the block."""

import re

from markupsafe import Markup

# What means something anywhere in a line. An underscore within a word, as in `edit_prompt`, means nothing (CommonMark).
_ACTIVE = re.compile(r"([\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_]))")
_OPENING = re.compile(r"^([#>=]|[-+](?!\d)|\d+[.)](?=\s|$))")  # what means something where a line begins
_ENTITY = re.compile(r"&(?=#?\w+;)")
_TAG = re.compile(r"<(?=[A-Za-z/!?])")


def escape(value: object) -> str:
    """`value` as one line of plain words: no Markdown, no HTML, safe in a table cell. Markup passes as it is."""
    if isinstance(value, Markup):
        return str(value)
    line = _ACTIVE.sub(r"\\\1", " ".join(str(value).split()))
    line = _OPENING.sub(lambda found: f"{found[0][:-1]}\\{found[0][-1]}", line)
    return _TAG.sub("&lt;", _ENTITY.sub("&amp;", line))


def fence(text: str, language: str = "text") -> Markup:
    """A code block whose fence is longer than any run of backticks in the text."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return Markup(f"{ticks}{language}\n{text.rstrip()}\n{ticks}")

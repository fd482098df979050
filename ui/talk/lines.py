"""What a conversation says: plain lines, each with what it is, so that a terminal and a page can show it their way."""

from collections.abc import Callable
from typing import Literal, NamedTuple

from ui.wording import printable

Kind = Literal["text", "strong", "dim", "added", "removed", "fault", "ask"]


class Line(NamedTuple):
    """One line without control characters. `ask`: a question that yes or no answers."""

    text: str
    kind: Kind = "text"


Say = Callable[[Line], None]


def line(text: str, kind: Kind = "text") -> Line:
    """A line that is safe to show: text of a model must not be able to steer a terminal."""
    return Line(printable(text), kind)

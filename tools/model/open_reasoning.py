"""Thoughts that a chat template opens before every answer: what is learned and measured begins where they end."""

import re
from dataclasses import dataclass

from agent.reasoning import left_open


@dataclass(frozen=True)
class Opened:
    """Thoughts that are open where the model goes on.

    `opening` is the tag, with the white space behind it, that the prompt ends with; `tag` closes them, and `closing` is
    how the template writes that before an answer.
    """

    opening: str
    tag: str
    closing: str

    def goes_on(self, said: str) -> tuple[str, int]:
        """How `said` follows: what comes before it, and the characters at its start that the prompt already has.

        A text with thoughts of its own goes on with these; any other closes the thoughts first.
        """
        own = re.match(rf"\s*{re.escape(self.opening.strip())}\s*", said)
        return ("", own.end()) if own and self.tag in said else (self.closing, 0)


def opened(asked: str, answered: str, answer: str) -> Opened | None:
    """The thoughts that `asked`, rendered, leaves open; None where it leaves none.

    Args:
        answered: the same turns with `answer` behind them. What closes thoughts before it there does so here; where
            nothing does, as in templates that drop thoughts of past turns, it is the tag and an empty line.
    """
    if not (found := left_open(asked)):
        return None
    opening, tag = found
    written = re.search(rf"(\s*{re.escape(tag)}\s*){re.escape(answer)}", answered)
    space = opening[len(opening.rstrip()) :]
    return Opened(opening, tag, written[1].removeprefix(space) if written else f"{tag}\n\n")

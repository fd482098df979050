"""Thoughts that a chat template opens before every answer: what is learned and measured begins where they end."""

import re
from dataclasses import dataclass

from agent.reasoning import left_open


@dataclass(frozen=True)
class OpenReasoning:
    """Thoughts that are open at the end of the prompt.

    Attributes:
        opening: the tag, with the white space behind it, that the prompt ends with.
        tag: what closes the thoughts.
        closing: how the template writes that tag before an answer.
    """

    opening: str
    tag: str
    closing: str

    def join(self, text: str) -> tuple[str, int]:
        """How a completion continues the prompt.

        A text with thoughts of its own continues those that the prompt has opened; any other closes them first.

        Returns:
            What to write before the text, and how many characters at its start the prompt already has.
        """
        own = re.match(rf"\s*{re.escape(self.opening.strip())}\s*", text)
        return ("", own.end()) if own and self.tag in text else (self.closing, 0)


def open_reasoning(asked: str, answered: str, answer: str) -> OpenReasoning | None:
    """The thoughts that a rendered prompt leaves open; None where it leaves none.

    Args:
        asked: the prompt, as the template renders it.
        answered: the same turns, and `answer` as the assistant's. What closes thoughts before the answer there closes
            them here, too. Where nothing does, as in templates that drop thoughts of past turns, it is the tag and an
            empty line.
    """
    if not (found := left_open(asked)):
        return None
    opening, tag = found
    written = re.search(rf"(\s*{re.escape(tag)}\s*){re.escape(answer)}", answered)
    space = opening[len(opening.rstrip()) :]
    return OpenReasoning(opening, tag, written[1].removeprefix(space) if written else f"{tag}\n\n")

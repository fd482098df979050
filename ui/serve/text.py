"""An answer's text as its tokens come: what is certain of it, and whether a stop text has ended it."""

import re
from collections.abc import Callable

from tools.model.chat_template import NEXT_TURN

BROKEN = "\N{REPLACEMENT CHARACTER}"  # what a part of a character is decoded to
USER = "User:"
GOES_ON = re.compile(rf"(?:^|\n){USER}\n")  # the next turn has begun, whatever follows
AT_ONCE = 256  # tokens up to which every one is told at once; of a longer text, several together


class AnswerText:
    """Put together, its pieces are what `output` makes of all tokens, up to the first stop text.

    Args:
        output: the text of ids; of a plain model with all that follows the answer.
        stops: texts that end the answer; they are no part of it.
        plain: the model has no chat template: it may go on with the user's next turn, which ends the answer too.
    """

    def __init__(self, output: Callable[[list[int]], str], stops: tuple[str, ...] = (), plain: bool = False) -> None:
        self.ids: list[int] = []
        self._output, self._stops, self._plain = output, stops, plain
        self._text = ""
        self._told = 0
        self._stopped = False
        self._ended_by = ""

    def add(self, token: int, streams: bool) -> bool:
        """Take the next token. True: a stop text has ended the answer.

        Args:
            streams: whether pieces are wanted before the end.
        """
        self.ids.append(token)
        n = len(self.ids)
        # Decoding all tokens at each step takes a time that grows with their square: of long texts less often.
        if (streams or self._stops or self._plain) and n % (n // AT_ONCE + 1) == 0:
            self._read()
        return self._stopped

    def piece(self) -> str:
        """What is certain and was not told yet."""
        certain = self._text[: self._certain()]
        told, self._told = self._told, max(self._told, len(certain))
        return certain[told:]

    def rest(self) -> str:
        """At the end: all that was not told yet."""
        self._read()
        told, self._told = self._told, len(self._text)
        return self._text[told:]

    @property
    def whole(self) -> str:
        """All of it so far."""
        self._read()
        return self._text

    @property
    def ended_by(self) -> str:
        """The stop text that ended it; "" if none did."""
        self._read()
        return self._ended_by

    def _read(self) -> None:
        if self._stopped:
            return
        text = self._output(self.ids)
        self._stopped = self._plain and GOES_ON.search(text) is not None
        if self._plain:
            text = NEXT_TURN.split(text, maxsplit=1)[0].rstrip()
        found = [(place, stop) for stop in self._stops if (place := text.find(stop)) >= 0]
        self._text = text
        if found:
            place, self._ended_by = min(found)
            self._text, self._stopped = text[:place].rstrip(), True

    def _certain(self) -> int:
        """How many characters of the text no later token can change."""
        if self._stopped:
            return len(self._text)
        certain = len(self._text.rstrip(BROKEN).rstrip())
        for stop in self._stops:
            for size in range(min(len(stop) - 1, len(self._text)), 0, -1):
                if self._text.endswith(stop[:size]):
                    certain = min(certain, len(self._text) - size)
                    break
        start = self._text.rfind("\n") + 1
        if self._plain and USER.startswith(self._text[start:]):
            certain = min(certain, max(0, start - 1))
        return len(self._text[:certain].rstrip())

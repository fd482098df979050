"""A user's regular expressions, with a limit on the time that one may take: some go back and forth without end."""

import regex

from agent.errors import BadInput, NesyLoraError

LIMIT = 1.0  # seconds of one search; what matches an answer of usual length takes microseconds
PATIENT, SHORT = 20, 0.05  # after so many answers that took longer, later ones get less: a run does not wait hours


class TooSlow(NesyLoraError):
    """A search that took too long. The message is a sentence that names the pattern."""


class Pattern:
    """A compiled regular expression. (Those of Python's `re` cannot be stopped.)

    Args:
        key: names the setting in errors.

    Raises:
        BadInput: it does not compile.
    """

    def __init__(self, pattern: str, key: str = "pattern") -> None:
        try:
            self._compiled = regex.compile(pattern)
        except regex.error as error:
            raise BadInput(f"'{key}' is not a regular expression: {error} in {pattern!r}") from None
        self.text = pattern
        self._slow: set[str] = set()

    def matches(self, text: str) -> bool:
        """Whether it is found in the text. Raises TooSlow."""
        return self._search(text) is not None

    def extract(self, text: str) -> str | None:
        """The first group of the first match, or the match where there are no groups; None without. Raises TooSlow."""
        found = self._search(text)
        group: str | None = found and found[1 if self._compiled.groups else 0]
        return group

    def _search(self, text: str) -> "regex.Match[str] | None":
        """The first match. The same text is not waited for twice."""
        limit = LIMIT if len(self._slow) < PATIENT else min(LIMIT, SHORT)
        try:
            if text in self._slow:
                raise TimeoutError
            return self._compiled.search(text, timeout=limit)
        except TimeoutError:
            self._slow.add(text)
            raise TooSlow(
                f"The regular expression {self.text} was given up on this answer after {limit:g} seconds: "
                "write it without one repetition inside another, such as (a+)+."
            ) from None

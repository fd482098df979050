"""Chat completions as servers of OpenAI's protocol send them: the text, and what keeps it from being a whole answer."""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from agent.records.rounds import Spend

CHARACTERS = 4  # of a token, for a server that does not count them
GROWTH = 10  # a fault is said again once it has come so many times as often

Fault = Literal["thoughts", "filter", "cut", "empty"]
SENTENCES: dict[Fault, str] = {
    "thoughts": "hold thoughts (reasoning_content) and no text: raise generation.max_new_tokens, or have the server "
    "answer without thinking",
    "filter": "were held back or ended by the server's content filter (finish_reason: content_filter)",
    "cut": "were cut off (finish_reason: length): raise generation.max_new_tokens unless answers are to be that short",
    "empty": "are empty",
}


class Completion(NamedTuple):
    """An answer, None for a question that is too long; and tokens that were read and written, 0 where not counted.

    `cached`: of the tokens read, those that the server had read before.
    """

    text: str | None
    read: int = 0
    written: int = 0
    cached: int = 0
    fault: Fault | None = None

    def spend(self, asked: str) -> Spend:
        """Forward tokens; those that the server did not count are estimated by characters.

        Args:
            asked: all texts that were sent.
        """
        if self.text is None:
            return Spend()
        read = max(1, (self.read or _tokens(asked)) - self.cached)
        return Spend(read_tokens=read, generated_tokens=self.written or _tokens(self.text))


def read_completion(found: Any) -> Completion:
    """The answer in a server's JSON.

    Raises:
        LookupError, TypeError, AttributeError: it is no chat completion.
    """
    choice = found["choices"][0]
    message = choice["message"]
    text = _text(message.get("content")).strip()
    usage = found.get("usage") or {}
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return Completion(
        text,
        usage.get("prompt_tokens") or 0,
        usage.get("completion_tokens") or 0,
        cached,
        _fault(text, choice.get("finish_reason"), bool(message.get("reasoning_content") or message.get("reasoning"))),
    )


def _text(content: Any) -> str:
    """Of a content that is a text, a list of parts, or missing."""
    if isinstance(content, list):
        return "".join(part if isinstance(part, str) else part.get("text") or "" for part in content)
    if not isinstance(content, str | None):
        raise TypeError("content is neither a text nor a list")
    return content or ""


def _fault(text: str, reason: object, thought: bool) -> Fault | None:
    if not text and thought:
        return "thoughts"
    if reason == "content_filter":
        return "filter"
    if reason == "length":
        return "cut"
    return None if text else "empty"


def _tokens(text: str) -> int:
    return max(1, math.ceil(len(text) / CHARACTERS))


class FaultCount:
    """Counts answers that are no whole ones, and says so: when a fault comes first, and as it becomes common.

    Args:
        name: what answers.
        note: takes a sentence.
    """

    def __init__(self, name: str, note: Callable[[str], None]) -> None:
        self._name = name
        self._note = note
        self._answers = 0
        self._counts = Counter[Fault]()
        self._said = Counter[Fault]()

    def add(self, completion: Completion) -> None:
        self._answers += 1
        if completion.fault:
            self._counts[completion.fault] += 1

    def say(self) -> None:
        """Once all answers of a call are there."""
        for fault, count in self._counts.items():
            if count >= GROWTH * self._said[fault]:
                self._said[fault] = count
                self._note(f"Warning: {count} of {self._answers} answers of '{self._name}' {SENTENCES[fault]}.")

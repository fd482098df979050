"""A row that is answered: what is asked, how its tokens are chosen, and who is told."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from agent.errors import NesyLoraError
from tools.packed.prefix_cache import PrefixCache

Ended = Literal["stop", "length"]


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: 0: the likeliest token.
        top_p: tokens are drawn from the likeliest ones that together are this likely.
        seed: equal seeds draw equal tokens; None: others every time.
        logprobs: so many of the likeliest tokens are told with their log-probabilities; None: no log-probabilities.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    logprobs: int | None = None


class Choice(NamedTuple):
    """The next token. Log-probabilities, in nats, are the model's own: before temperature and top_p."""

    token: int
    logprob: float | None = None
    likeliest: Sequence[tuple[int, float]] = ()


class Reader(Protocol):
    """Who asked. Called from the engine's thread, so that no call may take long."""

    def token(self, choice: Choice) -> bool:
        """Take a token of the answer. True: the text has come to its end, and no more tokens are wanted."""
        ...

    def ended(self, reason: Ended) -> None:
        """The answer is whole."""
        ...

    def failed(self, error: NesyLoraError) -> None:
        """No answer will come."""
        ...


@dataclass(eq=False)
class Row:
    """A prompt under way.

    Attributes:
        prompt: its ids.
        max_new_tokens: tokens of the answer, at most.
        reader: who asked.
        generated: tokens that were chosen so far, the end token included.
        tokens: those of the answer, without the end token.
        gone: set by whoever asked, from any thread: the row leaves at the next step.
        cache: what is run of its prompt, until the whole is; None: it was not begun, or has its slot.
    """

    prompt: list[int]
    max_new_tokens: int
    reader: Reader
    sampling: Sampling = Sampling()
    tokens: list[int] = field(default_factory=list)
    generated: int = 0
    gone: threading.Event = field(default_factory=threading.Event)
    cache: PrefixCache | None = None

    def __len__(self) -> int:
        """Tokens so far, prompt and answer together."""
        return len(self.prompt) + len(self.tokens)

    @property
    def most(self) -> int:
        """Tokens that it may come to."""
        return len(self.prompt) + self.max_new_tokens

    def take(self, choice: Choice, ends: frozenset[int]) -> bool:
        """Take the next token, and tell who asked. Returns whether the row goes on."""
        self.generated += 1
        if choice.token in ends:
            self.reader.ended("stop")
            return False
        self.tokens.append(choice.token)
        if self.reader.token(choice):
            self.reader.ended("stop")
            return False
        if len(self.tokens) >= self.max_new_tokens:
            self.reader.ended("length")
            return False
        return True

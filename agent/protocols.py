"""What one room needs of another, as types. Rooms get these as arguments and never import each other."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from agent.records import (
    Candidate,
    Decision,
    Diagnosis,
    Evaluation,
    Example,
    Prompt,
    Record,
    Round,
    Signal,
    Spend,
    Split,
)

T = TypeVar("T", bound=Record)


Settled = Callable[[Example, str], bool]
"""Whether what an example's answer is judged by stays the same, however this beginning of it goes on."""


class Progress(Protocol):
    """Told of long work: what it is, how far of how much, and a short note (loss, texts per second)."""

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None: ...


class Listener(Progress, Protocol):
    """A face that watches a run: progress of long work, and events such as `decision` and `verdict`."""

    def event(self, kind: str, data: dict[str, Any]) -> None: ...


class LanguageModel(Protocol):
    """The model under adaptation, with adapters known by id (None is the bare base)."""

    def generate(
        self,
        prompt: Prompt,
        examples: Sequence[Example],
        *,
        adapter: str | None,
        max_new_tokens: int,
        settled: Settled | None = None,
    ) -> list[str]:
        """One greedy completion per example, in order. One that is settled may end early."""
        ...

    def nll(
        self,
        prompt: Prompt,
        examples: Sequence[Example],
        completions: Sequence[tuple[str, str]],
        *,
        adapter: str | None,
    ) -> list[float]:
        """Mean NLL (nats per token) of each completion `(given, scored)`: only tokens of `scored` count."""
        ...


class Scorers(Protocol):
    """The task's content and style scorers, as the tools may see them."""

    def faults(self, output: str) -> tuple[str, ...]:
        """One sentence per style scorer that the output fails."""
        ...

    def instructions(self, output: str | None = None) -> tuple[str, ...]:
        """What to tell the model so that the style holds: for the scorers this output fails, or for all."""
        ...

    def show(self, answer: str) -> str:
        """The answer in the wanted form."""
        ...

    def passes(self, output: str, example: Example) -> bool:
        """Whether content and style are both full marks."""
        ...


class Evaluator(Protocol):
    """Scores a candidate on rows of a split."""

    def __call__(self, candidate: Candidate, split: Split, limit: int | None = None) -> Evaluation: ...


class Bound(Protocol):
    """Whether a proposal that is behind may be dropped before all rows are scored."""

    def __call__(self, differences: Sequence[float], left: int) -> bool:
        """`differences`: its merit less the leader's, row by row; `left`: rows still to come."""
        ...


class Editor(Protocol):
    """Proposes changed prompts from the failures of the present one; never scores them itself."""

    @property
    def name(self) -> str: ...

    def propose(
        self, prompt: Prompt, evaluation: Evaluation, train: Sequence[Example], parts: Sequence[str], seed: int
    ) -> list[tuple[Prompt, str]]:
        """Pairs of a prompt and a note that says what was changed. Empty when nothing is left to try."""
        ...


class Policy(Protocol):
    """Decides the next move."""

    @property
    def name(self) -> str: ...

    def decide(
        self, signal: Signal, diagnosis: Diagnosis, history: Sequence[Round], spend: Spend, refused: Sequence[str]
    ) -> Decision:
        """`refused` are the actions that a user has just turned down."""
        ...


class Chat(Protocol):
    """An external LLM, reduced to what the mind needs: messages in, text or one tool call out."""

    def call_tool(self, system: str, user: str, tools: Sequence[type[T]]) -> T:
        """The arguments of the one tool the LLM called, as an instance of its record.

        Raises:
            LlmUnavailable: no answer, or none that fits a tool.
        """
        ...

    def complete(self, system: str, user: str) -> str:
        """A plain text answer. Raises LlmUnavailable."""
        ...

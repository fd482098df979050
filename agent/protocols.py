"""What one room needs of another, as types. Rooms get these as arguments and never import each other."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol, TypeVar

from agent.records.actions import Decision, EditPrompt
from agent.records.base import Record
from agent.records.edits import Edits
from agent.records.evaluation import Evaluation
from agent.records.events import Event
from agent.records.examples import Candidate, Example, Prompt, Split
from agent.records.looks import FailingRow, Finding, Inquiry, Look
from agent.records.rounds import Call, Round, Spend
from agent.records.signal import Diagnosis, Signal
from agent.records.training import Training, TrainingJob

T = TypeVar("T", bound=Record)


StopEarly = Callable[[Example, str], bool]
"""Whether generation may stop: the scores of an answer that begins with this text are the same however it goes on."""


Charge = Callable[[Spend], None]
"""Adds to what is used up. Called while work is under way, so that a kill loses little of it."""


Embed = Callable[[Sequence[str]], list[list[float]]]
"""Unit vectors of texts, in order: their dot product is the cosine similarity."""


ScorePrompt = Callable[[Prompt, str | None, Sequence[str]], Evaluation]
"""Scores a prompt with an adapter (None: the bare base) on train rows, by name; charged to the step under way."""


FindLeak = Callable[[Prompt, Prompt], str | None]
"""A sentence on a row that a prompt gives away, and the prompt before its edit does not; or None."""


class Progress(Protocol):
    """Shows long work: what it is, how far of how much, and a short note (loss, texts per second)."""

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None: ...


class Listener(Progress, Protocol):
    """A face that watches a run: progress of long work, and everything that happens, as `agent.records.events`."""

    def event(self, event: Event) -> None: ...


class Asked(NamedTuple):
    """Rows under one prompt."""

    prompt: Prompt
    examples: Sequence[Example]


class LanguageModel(Protocol):
    """The model under adaptation, with adapters known by id (None is the bare base).

    Who inherits from it has to answer several prompts; one is a case of that.

    Every call returns its answers together with what it used up: tokens, and those seconds that known answers took when
    they were computed. (The caller's own clock counts the rest.)
    """

    def generate(
        self,
        prompt: Prompt,
        examples: Sequence[Example],
        *,
        adapter: str | None,
        max_new_tokens: int,
        stop_early: StopEarly | None = None,
    ) -> tuple[Sequence[str | None], Spend]:
        """One greedy completion per example, in order, and what they used up.

        A completion may end where `stop_early` allows it. It is None for a row that has no room for so many new tokens
        in the model's window.
        """
        [answers] = self.generate_each(
            [Asked(prompt, examples)], adapter=adapter, max_new_tokens=max_new_tokens, stop_early=stop_early
        )
        return answers

    def generate_each(
        self,
        asked: Sequence[Asked],
        *,
        adapter: str | None,
        max_new_tokens: int,
        stop_early: StopEarly | None = None,
    ) -> Sequence[tuple[Sequence[str | None], Spend]]:
        """`generate` for several prompts, in order. Few rows of each cost less so than in calls of their own."""
        ...

    def nll(
        self,
        prompt: Prompt,
        examples: Sequence[Example],
        completions: Sequence[tuple[str, str]],
        *,
        adapter: str | None,
    ) -> tuple[Sequence[float | None], Spend]:
        """Mean NLL (nats per token) of each completion `(given, scored)`, and what they used up.

        Only tokens of `scored` count. None for what cannot be measured: a row beyond the model's window, or nothing to
        score.
        """
        ...


class Retriever(Protocol):
    """Looks up the few-shot examples that a prompt's `retrieval` asks for."""

    def resolved(self, prompt: Prompt, examples: Sequence[Example]) -> tuple[Prompt, Sequence[Example]]:
        """The prompt without its retrieval, and each example with its own few-shot examples, the nearest one last.

        Only train rows are shown, and none to itself. A prompt without retrieval, and its examples, stay as they are.

        Raises:
            NesyLoraError: texts cannot be embedded here.
        """
        ...


class Scorers(Protocol):
    """The task's content and style scorers, as the tools may see them.

    None of these asks a judge or a reward model: what only they can score is taken to pass.
    """

    def faults(self, output: str) -> tuple[str, ...]:
        """One sentence per style rule that the output fails."""
        ...

    def instructions(self, output: str | None = None) -> tuple[str, ...]:
        """What to tell the model so that the style holds: for the rules this output fails and every judge, or all."""
        ...

    def show(self, answer: str) -> str:
        """The answer in the wanted form."""
        ...

    def full_marks(self, output: str, example: Example) -> bool:
        """Whether content and style are both full marks, as far as rules can tell."""
        ...


class Evaluator(Protocol):
    """Scores a candidate on rows of a split: on those named, in this order, or on all."""

    def __call__(self, candidate: Candidate, split: Split, names: Sequence[str] | None = None) -> Evaluation: ...


class Trainer(Protocol):
    """Tunes the weights: rows in, an adapter on disk and the record of its training out."""

    def train(self, job: TrainingJob) -> Training:
        """Train the adapter on the rows and save it.

        Returns:
            The record that stands beside the weights, with what the training used up.

        Raises:
            StepFailed: nothing was trained, and nothing is saved.
        """
        ...


class Editor(Protocol):
    """Proposes changed prompts from the failures of the present one.

    What it proposes is scored elsewhere, on other rows. An editor that scores for itself gets a `ScorePrompt` where it
    is made, which knows train rows only.
    """

    @property
    def name(self) -> str: ...

    def propose(
        self, prompt: Prompt, evaluation: Evaluation, train: Sequence[Example], action: EditPrompt, seed: int
    ) -> Edits:
        """Without edits when nothing is left to try. `evaluation` is of train rows."""
        ...


class Briefing(NamedTuple):
    """All that a decision may rest on."""

    signal: Signal
    diagnosis: Diagnosis
    history: Sequence[Round] = ()
    spend: Spend = Spend()
    refused: Sequence[str] = ()  # actions that a user has just turned down
    recalled: Sequence[str] = ()  # what memory found on near tasks, a line each
    failures: Sequence[FailingRow] = ()  # some failing train rows
    closed: str = ""  # why the external LLM is not asked for the rest of the run
    investigation: "Investigation | None" = None  # where a planner may look for itself


class Investigation(Protocol):
    """What a planner may look at in a round before it decides."""

    def look(self, look: Look) -> Finding:
        """What is found. Test rows are never looked at, and of validation rows there are numbers only.

        Raises:
            NesyLoraError: it cannot be done (a question too long for the model's window, no such round, the run's
                minutes used up, a judge that does not answer).
        """
        ...

    def note(self, inquiry: Inquiry) -> None:
        """Notes a look, with what it found, among the run's events."""
        ...


class Policy(Protocol):
    """Decides the next action."""

    @property
    def name(self) -> str: ...

    def decide(self, briefing: Briefing) -> Decision: ...


class Chat(Protocol):
    """An external LLM as planner, editor and judge use it: messages in, text or one tool call out.

    Both methods may be called from several threads.
    """

    @property
    def width(self) -> int:
        """Most calls in flight at the same time; further calls wait."""
        ...

    def call_tool(self, system: str, user: str, tools: Sequence[type[T]]) -> T:
        """The arguments of the one tool that the LLM called, as an instance of its record.

        Raises:
            LlmUnavailable: no answer.
            Useless: none that fits a tool.
        """
        ...

    def complete(self, system: str, user: str, check: Callable[[str], object] = str) -> str:
        """A plain text answer.

        Args:
            check: raises where the text is useless; then the answer is not kept for the next time.

        Raises:
            LlmUnavailable: none came.
            Useless: it is empty, or was cut off; also whatever `check` raises.
        """
        ...

    def abandon(self) -> None:
        """Cancel the calls in flight, after an interrupt; the threads that wait for them get a CancelledError."""
        ...


class CallLog(Protocol):
    """A log of every call to the LLM, written before the call is sent and after it; it survives a kill."""

    def calls(self) -> list[Call]:
        """All lines, in the order written."""
        ...

    def log(self, call: Call) -> None: ...

    def alone(self) -> AbstractContextManager[None]:
        """No other process reads what is left of the budget, or writes, inside. Raises Busy."""
        ...


class Replies(Protocol):
    """Answers of the LLM on disk, each under the digest of everything that shapes it."""

    def get(self, key: str) -> str | None: ...

    def put(self, key: str, reply: str) -> None: ...


class Rating(NamedTuple):
    """A score in [0, 1] and the reason for it; a reward model gives none."""

    score: float
    reason: str = ""


class Rater(Protocol):
    """Scores what no rule can: an LLM with a rubric, a reward model."""

    def rate(self, answered: Sequence[tuple[Example, str]]) -> list[Rating]:
        """One rating per (example, output), in order. Raises LlmUnavailable."""
        ...

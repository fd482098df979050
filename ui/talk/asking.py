"""What a conversation asks of its own, or an LLM in it: one question stands at a time, and yes answers that."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol

from agent.errors import BadInput, LlmUnavailable
from graphs.control.steering import Steering
from memory.run.folder import RunFolder
from ui.talk import plans
from ui.talk.lines import Line, Say, line


class Asked(NamedTuple):
    """A question which yes or no answers; a command that acts takes its place.

    `by_llm`: it stands in the LLM's thread, too, and has to go from there when it goes from here. `guesses`: it asks
    what was meant, so that any command takes its place.
    """

    text: str
    yes: Callable[[], Iterable[Line]]
    no: Callable[[], Iterable[Line]] = lambda: [line("Nothing was done.")]
    by_llm: bool = False
    guesses: bool = False


class Listening(Protocol):
    """An LLM that understands what no phrase says."""

    def hear(self, text: str, talk: "Asking") -> None: ...

    def resume(self, talk: "Asking") -> None:
        """Ask again what was open before."""

    def decide(self, asked: str, yes: bool, talk: "Asking") -> None:
        """The answer to what it asked. Raises BadInput: that does not stand any more."""

    def drop(self) -> None:
        """Nothing of what it asked is to be done."""


class Asking(ABC):
    """The questions of a conversation. `ui.talk.talk.Talk`, which see, has the commands."""

    def __init__(self, run: Steering, folder: RunFolder, say: Say, by_worker: bool = False) -> None:
        self.run = run
        self.folder = folder
        self.say = say
        self.by_worker = by_worker
        self._llm: Listening | None = None
        self._resumed = False
        self._asked: Asked | None = None

    def listen(self, llm: Listening | None) -> None:
        """Hear plain language from now on; None: no more. What was open when the first came is asked again."""
        self._llm = llm
        if llm and not self._resumed:
            self._resumed = True
            llm.resume(self)

    @property
    def needs_llm(self) -> bool:
        """Whether an LLM is needed for what is no plain language: its question stands, or may stand from before."""
        return self.llm_asks or not self._resumed

    @property
    def llm_asks(self) -> bool:
        """Whether what is asked is a question of the LLM's."""
        return self._asked is not None and self._asked.by_llm

    @property
    def asks(self) -> str:
        """The question of its own that stands, as a line; empty if none does."""
        return self._open(self._asked).text if self._asked else ""

    def tell(self, *said: Line) -> None:
        """Show lines to the user."""
        for text in said:
            self.say(text)

    def ask(self, text: str, yes: Callable[[], Iterable[Line]], no: Callable[[], Iterable[Line]] | None = None) -> Line:
        """Ask something that yes or no answers: the line that does."""
        self._asked = Asked(text, yes, no) if no else Asked(text, yes)
        return self._open(self._asked)

    def ask_for_llm(self, text: str) -> Line:
        """The same for an LLM, in whose thread the question stands."""
        yes, no = (lambda: self._decided(text, True)), (lambda: self._decided(text, False))
        self._asked = Asked(text, yes, no, by_llm=True)
        return self._open(self._asked)

    def _decided(self, text: str, yes: bool) -> Iterable[Line]:
        if self._llm is None:  # for a no: the thread's question is dropped once it can be reached
            return [line("Nothing was done.")]
        self._llm.decide(text, yes, self)
        return []

    def _answered(self, asked: Asked, yes: bool) -> None:
        """Raises BadInput: the LLM that asked cannot be reached for a yes, and its question still stands."""
        if asked.by_llm and self._llm is None and yes:
            raise BadInput(f"The LLM cannot be reached now, so its question still stands: {asked.text}")
        self._asked = None
        self.tell(*(asked.yes if yes else asked.no)())

    def _hear_llm(self, llm: Listening, text: str) -> None:
        asked = self._asked
        try:
            llm.hear(text, self)
        except LlmUnavailable as error:
            self.tell(line(f"The LLM could not be asked: {error}. Commands and short sentences still work.", "fault"))
            if not self._asked:
                self.tell(self._asked_back(text))
        if asked and asked is self._asked:
            self.tell(self._open(asked))

    def _drop_stale(self) -> None:
        """What an LLM asked and no longer stands here must not be answered later by a yes to something else."""
        if self._llm and not self.llm_asks:
            self._llm.drop()

    @abstractmethod
    def do(self, command: str) -> Iterator[Line]:
        """Do one command, as its answer is read.

        Raises:
            NesyLoraError: it cannot be followed.
        """

    @abstractmethod
    def _asked_back(self, text: str) -> Line:
        """What is asked where words were not understood."""

    @staticmethod
    def _open(asked: Asked) -> Line:
        return line(f"{asked.text} {plans.YES_OR_NO}".strip(), "ask")

"""A model that nobody has the weights of here, behind any server of OpenAI's protocol: it is sent messages."""

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import cached_property
from typing import Any

from agent.config.generation import Generation
from agent.config.llm import Llm
from agent.errors import BadInput, NesyLoraError
from agent.protocols import Asked, Charge, LanguageModel, Progress, StopEarly
from agent.records.examples import Example, Prompt
from agent.records.rounds import Spend
from tools.engines.completions import Completion, FaultCount, read_completion
from tools.engines.parallel import in_parallel
from tools.engines.payments import Payments
from tools.engines.server import Refused, Server
from tools.llm.retry import OVERFLOW, mentions
from tools.llm.sampling import SamplingParameters
from tools.model.chat_template import Message, Renderer


class OpenAiModel(LanguageModel):
    """A server that is sent messages; it measures no likelihood.

    Args:
        name: what the server calls the model.
        settings: `generation` of the task.
        look_up: called again and again while answers are waited for, with what is waited for; empty: nothing.
        note: takes a sentence for the user.
        payments: charges what answers cost.
    """

    def __init__(
        self,
        name: str,
        settings: Generation,
        progress: Progress,
        charge: Charge,
        look_up: Callable[[str], object],
        note: Callable[[str], None],
        payments: Payments,
    ) -> None:
        self._name = name
        self._settings = settings
        self._progress = progress
        self._charge = charge
        self._look_up = look_up
        self._faults = FaultCount(name, note)
        self._payments = payments
        self._sampling: dict[int, SamplingParameters] = {}  # by length of an answer

    @cached_property
    def _server(self) -> Server:
        assert self._settings.url, "a task with this engine names an address"
        return Server("the server", self._settings.url, self._settings)

    def generate_each(
        self,
        asked: Sequence[Asked],
        *,
        adapter: str | None,
        max_new_tokens: int,
        stop_early: StopEarly | None = None,
    ) -> list[tuple[list[str | None], Spend]]:
        """As `LanguageModel.generate_each`: one prompt after another, each with many requests at a time.

        None for a question that the server calls too long.

        Raises:
            BadInput: an adapter is asked for, or the server does not take the request.
            NesyLoraError: the server is away for too long.
        """
        if adapter is not None:
            raise BadInput(
                f"`generation.engine: openai` answers by '{self._name}' alone, without the adapter {adapter}"
            )
        return [self._answers(*each, adapter, max_new_tokens) for each in asked]

    def _answers(
        self, prompt: Prompt, examples: Sequence[Example], adapter: str | None, new: int
    ) -> tuple[list[str | None], Spend]:
        asked = [Renderer.messages(prompt, example) for example in examples]
        texts: list[str | None] = [None] * len(asked)
        came = deque[Spend]()  # of answers that are to be charged, also of those that nobody waits for any more
        spend = Spend()

        def answer(place: int) -> Completion:
            found = self._answer(asked[place], new)
            came.append(found.spend("".join(message["content"] for message in asked[place])))
            return found

        self._look_up(self._server.waits)  # before anything is paid for
        self._progress("answering", 0, len(asked))
        answers = in_parallel(
            answer, range(len(asked)), self._settings.batch_size,
            lambda: self._look_up(self._server.waits), self._server.abandon,
        )  # fmt: skip
        try:
            with closing(answers):
                for done, (place, found) in enumerate(answers, 1):
                    texts[place] = found.text
                    self._faults.add(found)
                    spend += self._charged(came)
                    self._progress("answering", done, len(asked))
        finally:
            spend += self._charged(came)
        self._faults.say()
        return texts, spend

    def _charged(self, came: deque[Spend]) -> Spend:
        """All of it, after it was charged."""
        used = Spend()
        while came:
            used += came.popleft()
        if used != Spend():
            self._charge(used)
        return used

    def nll(
        self,
        prompt: Prompt,
        examples: Sequence[Example],
        completions: Sequence[tuple[str, str]],
        *,
        adapter: str | None,
    ) -> tuple[Sequence[float | None], Spend]:
        """None for each: nothing of this protocol tells the likelihood of a text that the model has not written."""
        return [None] * len(examples), Spend()

    def close(self) -> None:
        """Nothing of this run is kept there."""

    # --- one answer ---

    def _answer(self, messages: list[Message], new: int) -> Completion:
        greedy = Llm(model=self._name, base_url=self._settings.url, temperature=0).model_copy(
            update={"max_tokens": new}
        )
        sampling = self._sampling.setdefault(new, SamplingParameters(greedy))
        while True:
            sent = sampling.parameters()
            try:
                return self._paid(messages, sent, new)
            except Refused as refused:
                if refused.status in (400, 413) and mentions(refused.text, OVERFLOW):
                    return Completion(None)
                if refused.status not in (400, 422) or not sampling.refuse(sent, refused.text):
                    raise self._server.fault(refused) from refused

    def _paid(self, messages: list[Message], sent: dict[str, float], new: int) -> Completion:
        """The answer to one request, each try of which is paid for. Raises Refused."""

        def attempt(send: Callable[[], Any]) -> Completion:
            return self._payments.paid(messages, new, lambda: self._read(send()))

        body = {"model": self._name, "messages": messages, **sent}
        answer: Completion = self._server.post("/chat/completions", body, attempt)
        return answer

    def _read(self, found: Any) -> Completion:
        try:
            return read_completion(found)
        except (LookupError, TypeError, AttributeError) as error:
            raise NesyLoraError(f"{self._server.name} sent something that is no chat completion") from error


class Unmeasured:
    """What a tokenizer would say of rows, where there is none. Satisfies `eval.tasks.fitting.Renders`."""

    ends: Sequence[str] = ()

    def prompt_ids(self, prompt: Prompt, example: Example) -> Sequence[int]:
        return ()

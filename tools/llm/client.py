"""A chat with the external LLM: text, or one of several records, with retries and answers kept on disk."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, wait
from functools import partial
from typing import TypeVar

from agent import prompts
from agent.config.llm import Llm, OutputMethod
from agent.errors import LlmUnavailable, Useless
from agent.protocols import Replies
from agent.reasoning import without_thoughts
from agent.records.base import Record, digest
from agent.records.rounds import Role
from tools.llm.budget import LlmBudget, UnsavedCallLog
from tools.llm.connection import Connection
from tools.llm.event_loop import event_loop
from tools.llm.retry import ServerError, ServerRetry, TimedOut, UnsupportedRequest
from tools.llm.schema import MalformedReply, Reply, parse_choice
from tools.llm.structured_output import Message, MethodOrder, Options, ask_for, without_kind_of

T = TypeVar("T")
R = TypeVar("R", bound=Record)

LOOKS_UP = 0.2  # seconds between two looks at whether the user has broken the wait off


class LlmChat:
    """The external LLM in one role, for any number of threads. Satisfies `agent.protocols.Chat`.

    Args:
        settings: of this role.
        role: who asks, for the log of calls.
        budget: pays for the calls; see `Connection`.
        retry: shared by all who call the same server.
        replies: answers on disk; a request that they hold is not sent again. None: every request is sent.
        deadline: gives the reading of time.monotonic() that no answer may pass, or None.
        brake: asked several times a second while an answer is waited for; what it raises ends the wait.
    """

    def __init__(
        self,
        settings: Llm,
        role: Role,
        budget: LlmBudget,
        retry: ServerRetry,
        replies: Replies | None = None,
        deadline: Callable[[], float | None] = lambda: None,
        brake: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._role = role
        self._budget = budget
        self._retry = retry
        self._replies = replies
        self._deadline = deadline
        self._brake = brake
        self._connection = Connection(settings, role, budget)
        self._methods = MethodOrder(settings.way)
        self._in_flight: set[Future[Reply]] = set()

    @property
    def refused(self) -> tuple[str, ...]:
        """The settings that the model does not accept, and that are not sent any more."""
        return self._connection.refused

    @property
    def method(self) -> OutputMethod | None:
        """The method of structured output that has worked."""
        return self._methods.worked

    @property
    def width(self) -> int:
        """Most calls in flight at the same time."""
        return self._settings.max_concurrency

    def complete(self, system: str, user: str, check: Callable[[str], object] = str) -> str:
        """The text of one answer, without the LLM's reasoning.

        Args:
            check: raises where the text is useless; then it is not kept on disk.

        Raises:
            LlmUnavailable: none came.
            Useless: it is empty, or was cut off.
        """

        def read(reply: Reply) -> str:
            model, text = self._settings.model, without_thoughts(reply.text)
            if reply.cut:
                raise Useless(f"{model} gave an answer that was cut off (llm.max_tokens)")
            if not text.strip():
                raise Useless(f"{model} gave an empty answer{' after its thoughts' if reply.text.strip() else ''}")
            check(text)
            return text

        return self._ask([("system", system), ("user", user)], {}, read)

    def call_tool(self, system: str, user: str, tools: Sequence[type[R]]) -> R:
        """One of the records, filled and validated; asked for once more with the error if it does not fit.

        The method that has worked is used, else all methods of structured output in turn: the next one follows where
        the server refuses a method or fails on it, does not answer in time, or answers nothing that can be read.

        Raises:
            LlmUnavailable: no answer.
            Useless: none that fits a record.
        """
        messages: list[Message] = [("system", system), ("user", user)]
        methods, problem, may_ask_again = self._methods.order(), "", True
        fault: LlmUnavailable | None = None
        while methods:
            method = methods[0]
            known = method == self.method
            try:
                return self._choose(messages, tools, method, request_suspect=not known)
            except InvalidReply as error:
                problem = str(error)
                if may_ask_again and (error.readable or (known and not error.reply.cut)):
                    may_ask_again = False
                elif error.final:
                    break
                else:
                    methods = without_kind_of(methods, method)
                if not error.reply.cut:  # a cut reply is long, and would be cut again
                    correction = ("user", prompts.fill("again", problem=problem))
                    messages = [*messages[:2], ("assistant", error.text), correction]
            except (UnsupportedRequest, ServerError, TimedOut) as error:  # servers fail on what they do not know
                if known and not isinstance(error, UnsupportedRequest):
                    raise
                if isinstance(error, TimedOut) and self._retry.down:
                    self._methods.defer(method)
                    raise
                fault = error
                methods = without_kind_of(methods, method) if isinstance(error, TimedOut) else methods[1:]
        if fault and not problem:
            if not isinstance(fault, ServerError):
                self._retry.down |= isinstance(fault, TimedOut)
                raise fault
            try:  # a server that fails on every method is down, and is retried
                return self._choose(messages, tools, self._methods.order()[0], request_suspect=False)
            except InvalidReply as error:
                problem = str(error)
        raise Useless(f"{self._settings.model} gave no usable answer: {problem}")

    def abandon(self) -> None:
        """Cancel the calls in flight; the threads that wait for them get a CancelledError."""
        for future in list(self._in_flight):
            future.cancel()

    def _choose(
        self, messages: list[Message], tools: Sequence[type[R]], method: OutputMethod, request_suspect: bool
    ) -> R:
        """The record that the LLM fills when asked by this method. Raises InvalidReply."""
        asked, options = ask_for(tools, messages, method)
        answer, called = self._ask(asked, options, partial(_fitting, tools=tools), request_suspect)
        self._methods.learn(method, called)
        return answer

    def _ask(
        self, messages: list[Message], options: Options, read: Callable[[Reply], T], request_suspect: bool = False
    ) -> T:
        """What `read` makes of an answer. Only answers on which it does not raise are kept on disk."""
        settings = self._settings
        key = digest([settings.model, settings.base_url, settings.temperature, settings.max_tokens, messages, options])
        kept = self._replies.get(key) if self._replies is not None else None
        if kept is not None:
            self._budget.log_cached(self._role, settings.model)
            return read(Reply.model_validate_json(kept))
        send = partial(self._connection.send, messages, options)
        reply = self._wait_for(self._retry.call(send, self._deadline(), request_suspect))
        result = read(reply)
        if self._replies is not None:
            self._replies.put(key, reply.model_dump_json())
        return result

    def _wait_for(self, work: Coroutine[object, object, Reply]) -> Reply:
        """The result of work on the event loop. An interrupt of the waiting thread cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, event_loop())
        self._in_flight.add(future)
        try:
            while not future.done():
                wait([future], timeout=LOOKS_UP)
                self._brake()
            return future.result()
        finally:
            future.cancel()
            self._in_flight.discard(future)


def standalone_chat(settings: Llm, role: Role, usd: float | None = None) -> LlmChat:
    """A chat that belongs to no run: calls are not logged, waits are not announced. `usd` limits this chat."""
    retry = ServerRetry(settings.patience, settings.max_concurrency, lambda _: None)
    return LlmChat(settings, role, LlmBudget(UnsavedCallLog(), usd), retry)


class InvalidReply(Exception):
    """A reply that is none of the records asked for. Never leaves this file.

    `final`: it chose one of them, with values out of bounds. `readable`: the same method may succeed at the next try.
    """

    def __init__(self, problem: str, reply: Reply, final: bool) -> None:
        super().__init__(problem)
        self.reply = reply
        self.final = final
        self.readable = final or bool(reply.calls and not reply.cut)

    @property
    def text(self) -> str:
        return without_thoughts(self.reply.text) or json.dumps(self.reply.calls)


def _fitting(reply: Reply, tools: Sequence[type[R]]) -> tuple[R, bool]:
    """The record that was chosen, and whether by a tool call. Raises InvalidReply."""
    try:
        return parse_choice(reply, tools), bool(reply.calls)
    except ValueError as error:
        raise InvalidReply(str(error), reply, final=not isinstance(error, MalformedReply)) from None

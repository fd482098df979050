"""The external LLM behind an OpenAI-compatible API: what is asked, in which way, and what becomes of the answer."""

import asyncio
import json
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from functools import cached_property, partial
from typing import Any, TypeVar

from agent import prompts
from agent.config.llm import Llm, Way
from agent.errors import LlmRefused, LlmUnavailable, Useless
from agent.protocols import Replies
from agent.reasoning import without_thoughts
from agent.records.base import Record, digest
from agent.records.rounds import Role, Usage
from tools.llm.budget import Account, Notebook
from tools.llm.completion import as_reply, counted, make_client
from tools.llm.event_loop import loop
from tools.llm.retry import Broken, Late, Patience, Unsupported, classified, cost_nothing
from tools.llm.sampling import Parameters
from tools.llm.schema import Misshapen, Reply, chosen
from tools.llm.structured_output import Message, Ways, others, put

T = TypeVar("T")
R = TypeVar("R", bound=Record)

NO_USAGE = "the server reports no usage"
NO_KEY = "none"  # what servers of one's own are sent
OPENAI = "https://api.openai.com/v1"
# Tokens of a request that stand in no message of ours: roles and turns, and the words that announce tools.
UNSEEN, UNSEEN_OF_TOOLS = 64, 512


class LlmChat:
    """Messages in, text or a tool call out, for one role and any number of threads. Satisfies `agent.protocols.Chat`.

    Args:
        settings: of this role. The key comes from the environment alone.
        role: who asks, for the account.
        account: charged before each call with the most it can cost, and after it with what it cost.
        patience: shared by all who ask the same server.
        replies: answers on disk; what was asked before is not asked again. None: everything is asked.
        deadline: gives the reading of time.monotonic() that no answer may pass, or None.
    """

    def __init__(
        self,
        settings: Llm,
        role: Role,
        account: Account,
        patience: Patience,
        replies: Replies | None = None,
        deadline: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._role = role
        self._account = account
        self._patience = patience
        self._replies = replies
        self._ways = Ways(settings.way)
        self._deadline = deadline
        self._parameters = Parameters(settings)
        self._out: set[Future[Reply]] = set()

    @property
    def refused(self) -> tuple[str, ...]:
        """The settings that the model does not take, and is not sent any more."""
        return self._parameters.refused

    @property
    def way(self) -> Way | None:
        """The way of asking for a tool that has worked."""
        return self._ways.worked

    @property
    def width(self) -> int:
        """Calls that are out at the same time."""
        return self._settings.max_concurrency

    def complete(self, system: str, user: str, check: Callable[[str], object] = str) -> str:
        """The text of one answer.

        Args:
            check: raises where the text is of no use; then it is not kept on disk.

        Raises:
            LlmUnavailable: none came; Useless: it is empty, or was cut off.
        """

        def read(reply: Reply) -> str:
            text = self._text(reply)
            check(text)
            return text

        return self._ask([("system", system), ("user", user)], {}, read)

    def call_tool(self, system: str, user: str, tools: Sequence[type[R]]) -> R:
        """The one tool that the LLM called, validated; asked once more with the error if it does not fit.

        It is asked in the way that has worked, else in all WAYS in turn: one that the server refuses or breaks on, that
        brings no answer in time, or none that can be read, is left for the next.

        Raises:
            LlmUnavailable: no answer; Useless: none that fits a tool.
        """
        messages: list[Message] = [("system", system), ("user", user)]
        ways, problem, again = self._ways.order(), "", True
        fault: LlmUnavailable | None = None
        while ways:
            way = ways[0]
            known = way == self.way
            try:
                return self._put(messages, tools, way, suspects=not known)
            except Unfit as error:
                problem = str(error)
                if again and (error.read or (known and not error.reply.cut)):
                    again = False
                elif error.final:
                    break
                else:
                    ways = others(ways, way)
                if not error.reply.cut:  # which would be told at length, and over again
                    told = ("user", prompts.fill("again", problem=problem))
                    messages = [*messages[:2], ("assistant", error.said), told]
            except (Unsupported, Broken, Late) as error:  # servers break on what they do not know
                if known and not isinstance(error, Unsupported):
                    raise
                if isinstance(error, Late) and self._patience.down:
                    self._ways.defer(way)
                    raise
                fault, ways = error, others(ways, way) if isinstance(error, Late) else ways[1:]
        return self._last(messages, tools, problem, fault)

    def _last(self, messages: list[Message], tools: Sequence[type[R]], problem: str, fault: LlmUnavailable | None) -> R:
        """When no way is left: a server that broke on all of them is broken, and waited for. Raises LlmUnavailable."""
        if fault and not problem:
            if not isinstance(fault, Broken):
                self._patience.down |= isinstance(fault, Late)
                raise fault
            try:
                return self._put(messages, tools, self._ways.order()[0], suspects=False)
            except Unfit as error:
                problem = str(error)
        raise Useless(f"{self._settings.model} gave no usable answer: {problem}")

    def abandon(self) -> None:
        """Ends the calls that are out; who waits for them gets a CancelledError."""
        for future in list(self._out):
            future.cancel()

    # --- one question ------------------------------------------------------------------------------

    def _put(self, messages: list[Message], tools: Sequence[type[R]], way: Way, suspects: bool) -> R:
        asked, options = put(messages, tools, way)
        answer, called = self._ask(asked, options, partial(_fitting, tools=tools), suspects)
        self._ways.learn(way, called)
        return answer

    def _ask(
        self, messages: list[Message], options: dict[str, Any], read: Callable[[Reply], T], suspects: bool = False
    ) -> T:
        """What `read` makes of an answer. Only answers that it can use are kept on disk."""
        settings = self._settings
        key = digest([settings.model, settings.base_url, settings.temperature, settings.max_tokens, messages, options])
        kept = self._replies.get(key) if self._replies is not None else None
        if kept is not None:
            self._account.cached(self._role, settings.model)
            return read(Reply.model_validate_json(kept))
        call = partial(self._call, messages, options)
        reply = self._run(self._patience.answer(call, self._deadline(), suspects))
        result = read(reply)
        if self._replies is not None:
            self._replies.put(key, reply.model_dump_json())
        return result

    def _run(self, work: Coroutine[Any, Any, Reply]) -> Reply:
        """The result of work on the one event loop. An interrupt of the waiting thread cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, loop())
        self._out.add(future)
        try:
            return future.result()
        finally:
            future.cancel()
            self._out.discard(future)

    async def _call(self, messages: list[Message], options: dict[str, Any]) -> Reply:
        """One try; without a setting that the model refuses, another."""
        while True:
            sent = self._parameters.sent()
            try:
                return await self._try(messages, sent | options)
            except Unsupported as error:
                if not self._parameters.take_back(sent, error.said):
                    raise

    async def _try(self, messages: list[Message], options: dict[str, Any]) -> Reply:
        """Charged before it is made. A try that brings nothing readable may have cost, and stays at its most."""
        import openai

        client, began, settings = self._client, time.monotonic(), self._settings
        call = self._account.open(self._role, settings.model, self._most(messages, options))
        try:
            answer = await client.ainvoke(messages, extra_body=options)
            reply, counts = as_reply(answer), counted(answer)
        except (openai.OpenAIError, AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
            # All but the first: langchain reads the body without checking it.
            fault = classified(error, settings.model, settings.base_url or OPENAI, self._key, settings.key_variable)
            if cost_nothing(error):
                self._account.settle(call, Usage(calls=1), time.monotonic() - began, str(fault))
        else:
            most = {"input_tokens": call.usage.input_tokens, "output_tokens": call.usage.output_tokens}
            lacking = "" if len(counts) == len(most) else NO_USAGE
            self._account.settle(call, self._cost(most | counts), time.monotonic() - began, lacking)
            return reply
        raise fault  # out of the handler: what the server said may quote the key

    def _text(self, reply: Reply) -> str:
        """Raises Useless."""
        model, text = self._settings.model, without_thoughts(reply.text)
        if reply.cut:
            raise Useless(f"{model} gave an answer that was cut off (llm.max_tokens)")
        if not text.strip():
            raise Useless(f"{model} gave an empty answer{' after its thoughts' if reply.text.strip() else ''}")
        return text

    def _most(self, messages: list[Message], options: dict[str, Any]) -> Usage:
        """The most that a call can cost: no token is shorter than a byte, no answer longer than it may be."""
        size = sum(len(text.encode()) + UNSEEN for _, text in messages)
        if "tools" in options or "response_format" in options:
            size += len(json.dumps(options).encode()) + UNSEEN_OF_TOOLS
        return self._cost({"input_tokens": size, "output_tokens": self._settings.max_tokens})

    def _cost(self, usage: Any) -> Usage:
        into, out, price = usage["input_tokens"], usage["output_tokens"], self._settings.price
        usd = (into * price.input + out * price.output) / 1e6
        return Usage(calls=1, input_tokens=into, output_tokens=out, usd=usd)

    # --- the server --------------------------------------------------------------------------------

    @property
    def _key(self) -> str:
        """Raises LlmRefused: there is none, where OpenAI's own server wants one; or it is no key."""
        variable = self._settings.key_variable
        key = os.environ.get(variable, "").strip()
        if not key and self._settings.base_url is None:
            raise LlmRefused(f"no key: set the environment variable {variable}")
        if not (key.isascii() and key.isprintable()):
            raise LlmRefused(f"the environment variable {variable} holds signs that no key has")
        return key or NO_KEY

    @cached_property
    def _client(self) -> Any:
        settings = self._settings
        return make_client(
            model=settings.model,
            base_url=settings.base_url or OPENAI,  # else the environment would say it
            api_key=self._key,
            temperature=None,  # sent with each request, as long as the model takes it
            timeout=settings.timeout,
            max_retries=0,
            use_responses_api=False,
        )


def loose(settings: Llm, role: Role, usd: float | None = None) -> LlmChat:
    """A chat that belongs to no run: nothing is written down, and nobody is told of waits. `usd` limits this chat."""
    patience = Patience(settings.patience, settings.max_concurrency, lambda _: None)
    return LlmChat(settings, role, Account(Notebook(), usd), patience)


class Unfit(Exception):
    """An answer that is none of the records asked for. Never leaves this file.

    `final`: one of them was chosen, with values out of bounds. `read`: so much could be read that asking again in the
    same way may help.
    """

    def __init__(self, problem: str, reply: Reply, final: bool) -> None:
        super().__init__(problem)
        self.reply = reply
        self.final = final
        self.read = final or bool(reply.calls and not reply.cut)

    @property
    def said(self) -> str:
        return without_thoughts(self.reply.text) or json.dumps(self.reply.calls)


def _fitting(reply: Reply, tools: Sequence[type[R]]) -> tuple[R, bool]:
    """The tool that was chosen, and whether it was called as a tool. Raises Unfit."""
    try:
        return chosen(reply, tools), bool(reply.calls)
    except ValueError as error:
        raise Unfit(str(error), reply, final=not isinstance(error, Misshapen)) from None

"""The external LLM behind an OpenAI-compatible API. The only place that imports langchain_openai."""

import asyncio
import json
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from functools import cached_property, partial
from typing import Any, TypeVar

from agent import prompts
from agent.config import Llm
from agent.errors import LlmRefused, LlmUnavailable, Useless
from agent.protocols import Replies
from agent.records import Record, Role, digest
from agent.rounds import Usage
from tools.account import Account, Notebook
from tools.loop import loop
from tools.patience import Broken, Patience, Unsupported, classified, cost_nothing
from tools.schema import Reply, chosen
from tools.ways import WAYS, Message, put

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
        ways: of asking for a tool, tried in this order until one works.
        deadline: gives the reading of time.monotonic() that no answer may pass, or None.
    """

    def __init__(
        self,
        settings: Llm,
        role: Role,
        account: Account,
        patience: Patience,
        replies: Replies | None = None,
        ways: Sequence[str] = tuple(WAYS),
        deadline: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._role = role
        self._account = account
        self._patience = patience
        self._replies = replies
        self.way: str | None = None  # of asking for a tool that has worked
        self._ways = ways
        self._deadline = deadline
        self._limits = _limits(settings.base_url)
        self._out: set[Future[Reply]] = set()

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

        A server without tools is asked in other WAYS: for JSON by a schema, at last in plain words.

        Raises:
            LlmUnavailable: no answer; Useless: twice none that fits a tool.
        """
        messages: list[Message] = [("system", system), ("user", user)]
        problem = ""
        for _ in range(2):
            try:
                return self._in_some_way(messages, tools)
            except Unfit as error:
                problem = str(error)
                said = error.reply.text or json.dumps(error.reply.calls)
                messages += [("assistant", said), ("user", prompts.fill("again", problem=problem))]
        raise Useless(f"{self._settings.model} gave no usable answer: {problem}")

    def abandon(self) -> None:
        """Ends the calls that are out; who waits for them gets a CancelledError."""
        for future in list(self._out):
            future.cancel()

    # --- one question ------------------------------------------------------------------------------

    def _in_some_way(self, messages: list[Message], tools: Sequence[type[R]]) -> R:
        """One answer, in the way that this server is known to take or in the first that it takes.

        Raises:
            Unfit: an answer that is none of the tools.
            LlmUnavailable: none.
        """
        if self.way:
            return self._put(messages, tools, self.way)
        fault: LlmUnavailable | None = None
        for way in self._ways:
            try:
                return self._put(messages, tools, way, suspects=True)
            except (Unsupported, Broken) as error:  # servers break on what they do not know
                fault = error
        if isinstance(fault, Unsupported):
            raise fault
        return self._put(messages, tools, self._ways[0])

    def _put(self, messages: list[Message], tools: Sequence[type[R]], way: str, suspects: bool = False) -> R:
        asked, options = put(messages, tools, way)
        try:
            answer, called = self._ask(asked, options, partial(_fitting, tools=tools), suspects)
        except Unfit as error:
            self._learn(way, called=bool(error.reply.calls) or error.reply.cut)
            raise
        if self._learn(way, called):
            self.way = way
        return answer

    def _learn(self, way: str, called: bool) -> bool:
        """Whether an answer shows that the server takes this way; one that takes tools and calls none does not."""
        if called or "tool" not in way:
            return True
        self._ways = [other for other in self._ways if "tool" not in other] or self._ways
        return False

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
        """One try, charged before it is made. One that brings nothing readable may have cost, and stays at its most."""
        import openai

        client, began, settings = self._client, time.monotonic(), self._settings
        call = self._account.open(self._role, settings.model, self._most(messages, options))
        limit = self._limits[0]
        try:
            answer = await client.ainvoke(messages, extra_body={limit: settings.max_tokens} | options)
        except (openai.OpenAIError, AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
            # All but the first: langchain reads the body without checking it.
            fault = classified(error, settings.model, settings.base_url or OPENAI, self._key, settings.key_variable)
            if cost_nothing(error):
                self._account.settle(call, Usage(calls=1), time.monotonic() - began, str(fault))
        else:
            counted = answer.usage_metadata
            usage = self._cost(counted) if counted else call.usage
            self._account.settle(call, usage, time.monotonic() - began, "" if counted else NO_USAGE)
            return _reply(answer)
        if isinstance(fault, Unsupported) and limit in str(fault):
            self._limits = [name for name in self._limits if name != limit] or self._limits
            if self._limits[0] != limit:
                return await self._call(messages, options)
        raise fault  # out of the handler: what the server said may quote the key

    def _text(self, reply: Reply) -> str:
        """Raises Useless."""
        model = self._settings.model
        if reply.cut:
            raise Useless(f"{model} gave an answer that was cut off (llm.max_tokens)")
        if not reply.text.strip():
            raise Useless(f"{model} gave an empty answer")
        return reply.text

    def _most(self, messages: list[Message], options: dict[str, Any]) -> Usage:
        """The most that a call can cost: no token is shorter than a byte, no answer longer than it may be."""
        size = sum(len(text.encode()) + UNSEEN for _, text in messages)
        if options:
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
        from langchain_openai import ChatOpenAI

        settings = self._settings
        return ChatOpenAI(
            model=settings.model,
            base_url=settings.base_url or OPENAI,  # else the environment would say it
            api_key=self._key,
            temperature=settings.temperature,
            timeout=settings.timeout,
            max_retries=0,
            use_responses_api=False,
        )


def loose(settings: Llm, role: Role, usd: float | None = None) -> LlmChat:
    """A chat that belongs to no run: nothing is written down, and nobody is told of waits. `usd` limits this chat."""
    patience = Patience(settings.patience, settings.max_concurrency, lambda _: None)
    return LlmChat(settings, role, Account(Notebook(), usd), patience)


class Unfit(Exception):
    """An answer that is none of the records asked for. Never leaves this file."""

    def __init__(self, problem: str, reply: Reply) -> None:
        super().__init__(problem)
        self.reply = reply


def _limits(base_url: str | None) -> list[str]:
    """The names under which a server may know the limit of an answer, the likely one first. Some refuse the other."""
    newer, older = "max_completion_tokens", "max_tokens"
    return [newer, older] if base_url is None or "api.openai.com" in base_url else [older, newer]


def _fitting(reply: Reply, tools: Sequence[type[R]]) -> tuple[R, bool]:
    """The tool that was chosen, and whether it was called as a tool. Raises Unfit."""
    try:
        return chosen(reply, tools), bool(reply.calls)
    except ValueError as error:
        raise Unfit(str(error), reply) from None


def _reply(answer: Any) -> Reply:
    """langchain's message as ours. Raises TypeError and the like for what is no answer."""
    calls = [(call["name"], json.dumps(call["args"])) for call in answer.tool_calls]
    calls += [(call["name"] or "", _whole(call["args"] or "")) for call in answer.invalid_tool_calls]
    cut = answer.response_metadata.get("finish_reason") == "length"
    return Reply(text=_whole(str(answer.text)), calls=tuple(calls), cut=cut)


def _whole(text: str) -> str:
    """Without halves of signs, which JSON can say and no file can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")

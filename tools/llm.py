"""The external LLM behind an OpenAI-compatible API. The only place that imports langchain_openai."""

import asyncio
import json
import os
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import cache, cached_property, partial
from typing import Any, TypeVar

from agent import prompts
from agent.config import Llm
from agent.errors import LlmRefused, Useless
from agent.protocols import Replies
from agent.records import Record, Role, digest
from agent.rounds import Usage
from tools.account import Account, Notebook
from tools.patience import Broken, Patience, Unsupported, classified
from tools.schema import Reply, chosen
from tools.ways import WAYS, put

T = TypeVar("T")
R = TypeVar("R", bound=Record)
Message = tuple[str, str]

NO_USAGE = "the server reports no usage"
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
    """

    def __init__(
        self,
        settings: Llm,
        role: Role,
        account: Account,
        patience: Patience,
        replies: Replies | None = None,
        ways: Sequence[str] = tuple(WAYS),
    ) -> None:
        self._settings = settings
        self._role = role
        self._account = account
        self._patience = patience
        self._replies = replies
        self._ways = ways  # one, once it is known which the server takes

    @property
    def width(self) -> int:
        """Calls that are out at the same time."""
        return self._settings.max_concurrency

    @property
    def way(self) -> str | None:
        """The way of asking for a tool that worked, one of WAYS; None before the first."""
        return self._ways[0] if len(self._ways) == 1 else None

    def complete(self, system: str, user: str) -> str:
        """The text of one answer.

        Raises:
            LlmUnavailable: none came; Useless: it is empty, or was cut off.
        """
        try:
            return self._ask([("system", system), ("user", user)], {}, _text)
        except ValueError as error:
            raise Useless(f"{self._settings.model} gave {error}") from None

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

    # --- one question ------------------------------------------------------------------------------

    def _in_some_way(self, messages: list[Message], tools: Sequence[type[R]]) -> R:
        """One answer, in the way that this server is known to take or in the first that it takes.

        Raises:
            Unfit: an answer that is none of the tools.
            LlmUnavailable: none.
        """
        first, *others = self._ways
        for way in self._ways if others else ():
            try:
                return self._put(messages, tools, way, suspects=True)
            except (Unsupported, Broken):  # servers break on what they do not know
                continue
        return self._put(messages, tools, first, suspects=False)

    def _put(self, messages: list[Message], tools: Sequence[type[R]], way: str, suspects: bool) -> R:
        asked, options = put(messages, tools, way)
        try:
            answer = self._ask(asked, options, partial(_fitting, tools=tools), suspects)
        except Unfit as error:
            if way in ("tools", "one tool") and not error.reply.calls and not error.reply.cut:
                self._ways = [way for way in WAYS if "tool" not in way]  # it takes tools and calls none
            raise
        self._ways = [way]
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
        reply = _run(self._patience.answer(partial(self._call, messages, options), suspects))
        result = read(reply)
        if self._replies is not None:
            self._replies.put(key, reply.model_dump_json())
        return result

    async def _call(self, messages: list[Message], options: dict[str, Any]) -> Reply:
        """One try, charged before it is made. One that ends without an answer may have cost, and stays at its most."""
        import openai

        client, began, settings = self._client, time.monotonic(), self._settings
        call = self._account.open(self._role, settings.model, self._most(messages, options))
        try:
            answer = await client.ainvoke(messages, extra_body=self._older | options)
            counted = answer.usage_metadata
            usage = self._cost(counted) if counted else call.usage
            self._account.settle(call, usage, time.monotonic() - began, "" if counted else NO_USAGE)
            return _reply(answer)
        except (openai.OpenAIError, AttributeError, LookupError, TypeError, ValueError) as error:
            # The latter four: langchain reads the body without checking it.
            fault = classified(error, settings.model, self._key, settings.key_variable)
            if not _may_have_cost(error):
                self._account.settle(call, Usage(calls=1), time.monotonic() - began, str(fault))
        raise fault  # out of the handler: what the server said may quote the key

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
        """Raises LlmRefused: there is none, where OpenAI's own server wants one."""
        key = os.environ.get(self._settings.key_variable)
        if not key and self._settings.base_url is None:
            raise LlmRefused(f"no key: set the environment variable {self._settings.key_variable}")
        return key or "none"

    @property
    def _older(self) -> dict[str, Any]:
        """The older name of the limit, which may be all that servers of one's own know."""
        return {} if self._settings.base_url is None else {"max_tokens": self._settings.max_tokens}

    @cached_property
    def _client(self) -> Any:
        from langchain_openai import ChatOpenAI

        settings = self._settings
        return ChatOpenAI(
            model=settings.model,
            base_url=settings.base_url or OPENAI,  # else the environment would say it
            api_key=self._key,
            temperature=settings.temperature,
            max_tokens=settings.max_tokens,
            timeout=settings.timeout,
            max_retries=0,
            use_responses_api=False,
        )


def loose(settings: Llm, role: Role, usd: float | None = None) -> LlmChat:
    """A chat that belongs to no run: nothing is written down, and nobody is told of waits. `usd` limits this chat."""
    patience = Patience(settings.patience, settings.max_concurrency, lambda: None, lambda _: None)
    return LlmChat(settings, role, Account(Notebook(), usd), patience)


class Unfit(Exception):
    """An answer that is none of the records asked for. Never leaves this file."""

    def __init__(self, problem: str, reply: Reply) -> None:
        super().__init__(problem)
        self.reply = reply


def _may_have_cost(error: Exception) -> bool:
    """Whether a request went out and nobody can know what became of it."""
    import httpx
    import openai

    unsent = (httpx.ConnectError, httpx.ConnectTimeout)
    return isinstance(error, openai.APIConnectionError) and not isinstance(error.__cause__, unsent)


def _fitting(reply: Reply, tools: Sequence[type[R]]) -> R:
    try:
        return chosen(reply, tools)
    except ValueError as error:
        raise Unfit(str(error), reply) from None


def _text(reply: Reply) -> str:
    if reply.cut:
        raise ValueError("an answer that was cut off (llm.max_tokens)")
    if not reply.text.strip():
        raise ValueError("an empty answer")
    return reply.text


def _reply(answer: Any) -> Reply:
    """langchain's message as ours. Raises TypeError and the like for what is no answer."""
    calls = [(call["name"], json.dumps(call["args"])) for call in answer.tool_calls]
    calls += [(call["name"] or "", _whole(call["args"] or "")) for call in answer.invalid_tool_calls]
    cut = answer.response_metadata.get("finish_reason") == "length"
    return Reply(text=_whole(str(answer.text)), calls=tuple(calls), cut=cut)


def _whole(text: str) -> str:
    """Without halves of signs, which JSON can say and no file can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _run(work: Coroutine[Any, Any, T]) -> T:
    """The result of work on the one event loop. An interrupt of the waiting thread cancels it."""
    future = asyncio.run_coroutine_threadsafe(work, _loop())
    try:
        return future.result()
    finally:
        future.cancel()


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """One for the process, in a thread of its own: clients stay bound to the loop they were first used on."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="llm", daemon=True).start()
    return loop

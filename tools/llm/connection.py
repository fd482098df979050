"""One model on one server, in one role: sends a request, and pays for it from the run's LLM budget."""

import json
import os
import time
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from agent.config.address import environment_fault
from agent.config.llm import Llm
from agent.errors import LlmRefused
from agent.records.rounds import Role, Usage
from tools.llm.budget import LlmBudget
from tools.llm.completion import make_client, to_reply, token_counts
from tools.llm.retry import UnsupportedRequest, classify_error, was_not_billed
from tools.llm.sampling import SamplingParameters
from tools.llm.schema import Reply
from tools.llm.structured_output import Message, Options

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

NO_USAGE = "the server reports no usage"
NO_KEY = "none"  # what a server without keys receives
OPENAI = "https://api.openai.com/v1"
# Tokens of a request that are in none of our messages: roles and turns, and the text that announces tools.
UNSEEN, UNSEEN_OF_TOOLS = 64, 512


class Connection:
    """Sends requests of one role.

    Args:
        settings: of this role. The key comes from the environment alone.
        role: who asks, for the log of calls.
        budget: charged before each call with the most it can cost, and after it with what it cost.
    """

    def __init__(self, settings: Llm, role: Role, budget: LlmBudget) -> None:
        self._settings = settings
        self._role = role
        self._budget = budget
        self._sampling = SamplingParameters(settings)

    @property
    def refused(self) -> tuple[str, ...]:
        """The sampling parameters that the model has refused, and that are not sent any more."""
        return self._sampling.refused

    async def send(self, messages: list[Message], options: Options) -> Reply:
        """One request; repeated without a sampling parameter that the model refuses.

        Args:
            options: of the request's body, beside messages and sampling parameters.

        Raises:
            OutOfMoney: the call could cost more than what is left; it was not sent.
            LlmUnavailable: see `tools.llm.retry.classify_error`.
        """
        while True:
            sent = self._sampling.parameters()
            try:
                return await self._charged(messages, sent | options)
            except UnsupportedRequest as error:
                if not self._sampling.refuse(sent, error.response):
                    raise

    async def _charged(self, messages: list[Message], options: Options) -> Reply:
        """Charged before it is sent. A try that brings nothing readable may have cost, and stays at its most."""
        import openai

        client, began, settings = self._client, time.monotonic(), self._settings
        call = self._budget.reserve(self._role, settings.model, self._most(messages, options))
        try:
            answer = await client.ainvoke(messages, extra_body=options)
            reply, counts = to_reply(answer), token_counts(answer)
        except (openai.OpenAIError, AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
            # All but the first: langchain reads the body without checking it.
            fault = classify_error(error, settings.model, settings.base_url or OPENAI, self._key, settings.key_variable)
            if was_not_billed(error):
                self._budget.settle(call, Usage(calls=1), time.monotonic() - began, str(fault))
        else:
            most = {"input_tokens": call.usage.input_tokens, "output_tokens": call.usage.output_tokens}
            missing = "" if len(counts) == len(most) else NO_USAGE
            self._budget.settle(call, self._cost(most | counts), time.monotonic() - began, missing)
            return reply
        raise fault  # outside the handler: its context would show the server's text, which may quote the key

    def _most(self, messages: list[Message], options: Options) -> Usage:
        """The most that a call can cost: no token is shorter than a byte, no answer longer than `max_tokens`."""
        size = sum(len(text.encode()) + UNSEEN for _, text in messages)
        if "tools" in options or "response_format" in options:
            size += len(json.dumps(options).encode()) + UNSEEN_OF_TOOLS
        return self._cost({"input_tokens": size, "output_tokens": self._settings.max_tokens})

    def _cost(self, tokens: Mapping[str, int]) -> Usage:
        read, written, price = tokens["input_tokens"], tokens["output_tokens"], self._settings.price
        usd = (read * price.input + written * price.output) / 1e6
        return Usage(calls=1, input_tokens=read, output_tokens=written, usd=usd)

    @property
    def _key(self) -> str:
        """Raises LlmRefused: OpenAI's own server needs a key and there is none; or it is not a key."""
        variable = self._settings.key_variable
        key = os.environ.get(variable, "").strip()
        if not key and self._settings.base_url is None:
            raise LlmRefused(f"no key: set the environment variable {variable}")
        if not (key.isascii() and key.isprintable()):
            raise LlmRefused(f"the environment variable {variable} holds characters that no key has")
        return key or NO_KEY

    @cached_property
    def _client(self) -> "BaseChatModel":
        """Raises LlmRefused: there is no key, or the environment names a proxy that cannot be used."""
        settings, key = self._settings, self._key
        try:
            return make_client(
                model=settings.model,
                base_url=settings.base_url or OPENAI,  # else langchain takes it from the environment
                api_key=key,
                temperature=None,  # sent with each request, as long as the model accepts it
                timeout=settings.timeout,
                max_retries=0,
                use_responses_api=False,
            )
        except (OSError, ValueError, ImportError) as error:
            raise LlmRefused(f"no client can be made {environment_fault(error)}") from None

"""The external LLM behind an OpenAI-compatible API. The only place that imports langchain_openai."""

import os
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from agent.config import Llm
from agent.errors import LlmUnavailable
from agent.rounds import Spend

T = TypeVar("T", bound=BaseModel)
Message = tuple[str, str]


class LlmChat:
    """Messages in, a tool call or text out; tokens and money of every call are added up in `spend`.

    Args:
        settings: server, model, prices. The key comes from the environment alone.
        usd_left: money that may still be spent; no call goes out at 0 or below. None: no limit.
    """

    def __init__(self, settings: Llm, usd_left: float | None = None) -> None:
        self.spend = Spend()
        self._settings = settings
        self._usd_left = usd_left
        self._client: Any = None

    @property
    def width(self) -> int:
        return self._settings.max_concurrency

    def complete(self, system: str, user: str) -> str:
        """The text of one answer. Raises LlmUnavailable."""
        reply = self._ask([("system", system), ("user", user)])
        if not reply.text.strip():
            raise LlmUnavailable(f"{self._settings.model} gave an empty answer")
        return str(reply.text)

    def call_tool(self, system: str, user: str, tools: Sequence[type[T]]) -> T:
        """The one tool that the LLM called, validated; asked once more with the error if it does not fit.

        Raises:
            LlmUnavailable: no answer, or twice none that fits a tool.
        """
        messages: list[Message] = [("system", system), ("user", user)]
        problem = ""
        for _ in range(2):
            reply = self._ask(messages, tools)
            try:
                return _chosen(reply, tools)
            except ValueError as error:
                problem = str(error)
                messages.append(("user", f"That cannot be used: {problem}. Call exactly one tool, within its bounds."))
        raise LlmUnavailable(f"{self._settings.model} gave no usable plan: {problem}")

    def _ask(self, messages: list[Message], tools: Sequence[type[BaseModel]] = ()) -> Any:
        if self._usd_left is not None and self.spend.usd >= self._usd_left:
            raise LlmUnavailable("the money budget is used up")
        client = self._connect()
        reply = self._answer(client.bind_tools(list(tools), tool_choice="required") if tools else client, messages)
        self.spend += self._cost(reply.usage_metadata or {})
        return reply

    def _answer(self, client: Any, messages: list[Message]) -> Any:
        """One answer. What the server says of an error is left out of ours: it may quote the key."""
        import openai

        settings = self._settings
        try:
            return client.invoke(messages)
        except openai.AuthenticationError:
            problem = f"refused the key: look at the environment variable {settings.key_variable}"
        except openai.APIStatusError as error:
            problem = f"did not answer (HTTP {error.status_code})"
        except openai.OpenAIError as error:
            problem = f"did not answer ({type(error).__name__})"
        except (AttributeError, LookupError, TypeError, ValueError):  # langchain reads the body without checking it
            problem = "sent what is no chat completion: look at `llm.base_url`"
        raise LlmUnavailable(f"{settings.model} {problem}")

    def _connect(self) -> Any:
        if self._client is None:
            from langchain_openai import ChatOpenAI

            key = os.environ.get(self._settings.key_variable)
            if not key and self._settings.base_url is None:
                raise LlmUnavailable(f"no key: set the environment variable {self._settings.key_variable}")
            self._client = ChatOpenAI(
                model=self._settings.model,
                base_url=self._settings.base_url,
                api_key=key or "none",
                temperature=self._settings.temperature,
                timeout=self._settings.timeout,
                max_retries=2,
            )
        return self._client

    def _cost(self, usage: Any) -> Spend:
        into, out = usage.get("input_tokens", 0), usage.get("output_tokens", 0)
        usd = (into * self._settings.price.input + out * self._settings.price.output) / 1e6
        return Spend(llm_tokens=into + out, usd=usd)


def _chosen(reply: Any, tools: Sequence[type[T]]) -> T:
    by_name = {tool.__name__: tool for tool in tools}
    if reply.invalid_tool_calls:
        raise ValueError("the tool's arguments were not JSON")
    if len(reply.tool_calls) != 1:
        raise ValueError(f"{len(reply.tool_calls)} tools were called")
    call = reply.tool_calls[0]
    if call["name"] not in by_name:
        raise ValueError(f"there is no tool '{call['name']}'; there are {', '.join(by_name)}")
    try:
        return by_name[call["name"]].model_validate(call["args"])
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ValueError(problems) from error

"""Chat completions as servers really send them, corrected before langchain reads them.

The only place that imports langchain_openai.
"""

import json
import re
from typing import TYPE_CHECKING, Any

from agent.config.address import is_local
from tools.llm.retry import BEGUN
from tools.llm.schema import JsonObject, Reply

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage

# Words by which servers name an error where they give no number, and the HTTP status that they stand for.
STATUS_WORDS = (
    (401, "invalid_api_key|authentication|unauthori[sz]ed|incorrect api key"),
    (402, "insufficient_quota|insufficient balance|payment|billing"),
    (429, "rate_?limit|too many requests"),
    (400, "context_length|context length|invalid_request|bad_?request|unsupported|not supported"),
    (503, "overload|unavailable|capacity|loading"),
)
SERVER_ERROR = 500


def make_client(base_url: str, **settings: Any) -> "BaseChatModel":
    """langchain's client for an OpenAI-compatible server, more tolerant of replies. Settings are ChatOpenAI's.

    A server of this machine is asked without the environment's proxy; any other through it.
    """
    from langchain_openai import ChatOpenAI
    from openai import DefaultAsyncHttpxClient

    class Client(ChatOpenAI):
        """Raises openai.APIStatusError where an error stands in the body of an HTTP 200."""

        def _create_chat_result(self, response: Any, generation_info: Any = None) -> Any:
            if not isinstance(response, dict) and hasattr(response, "model_dump"):
                response = response.model_dump(warnings=False)
            if isinstance(response, dict):
                raise_error(response)
                response = arguments_as_text(response)
            return super()._create_chat_result(response, generation_info)

    if is_local(base_url):
        # Without socket options, langchain does not warn that its own client passes over the proxy: it is not asked.
        past_the_proxy = DefaultAsyncHttpxClient(trust_env=False)
        settings |= {"http_async_client": past_the_proxy, "openai_proxy": None, "http_socket_options": ()}
    return Client(base_url=base_url, **settings)


def raise_error(body: JsonObject) -> None:
    """Raise the error that a body of HTTP 200 holds beside or instead of an answer.

    Raises:
        openai.APIStatusError: there is an error; it has the HTTP status that the server should have sent.
    """
    import httpx
    import openai

    begun = [choice.get("error") for choice in body.get("choices") or () if isinstance(choice, dict)]
    error = body.get("error") or next(filter(None, begun), None)
    if not error:
        return
    details = error if isinstance(error, dict) else {"message": str(error)}
    request = httpx.Request("POST", "http://server/chat/completions")
    response = httpx.Response(status_of(details), request=request, extensions={BEGUN: True} if begun else {})
    raise openai.APIStatusError(str(details.get("message") or details), response=response, body=details)


def status_of(error: JsonObject) -> int:
    """The HTTP status that an error names by number or by its words; 500 for one that names none."""
    for key in ("code", "status", "status_code"):
        number = str(error.get(key) or "")
        if number.isdecimal() and 400 <= int(number) < 600:
            return int(number)
    text = " ".join(str(value) for value in error.values()).lower()
    return next((status for status, words in STATUS_WORDS if re.search(words, text)), SERVER_ERROR)


def arguments_as_text(body: JsonObject) -> JsonObject:
    """The body with the arguments of tool calls as JSON texts: some servers send them as objects."""
    for choice in body.get("choices") or ():
        for call in (choice.get("message") or {}).get("tool_calls") or ():
            function = call.get("function") or {}
            if isinstance(function.get("arguments"), dict | list):
                function["arguments"] = json.dumps(function["arguments"])
    return body


def to_reply(answer: "AIMessage") -> Reply:
    """langchain's message as ours. Raises TypeError, AttributeError or LookupError for what is not an answer."""
    calls = [(call["name"], json.dumps(call["args"])) for call in answer.tool_calls]
    calls += [(call["name"] or "", _encodable(call["args"] or "")) for call in answer.invalid_tool_calls]
    cut = answer.response_metadata.get("finish_reason") == "length"
    return Reply(text=_encodable(str(answer.text)), calls=tuple(calls), cut=cut)


def token_counts(answer: "AIMessage") -> dict[str, int]:
    """The server's `input_tokens` and `output_tokens`; a count is missing where it sent none, null or 0.

    langchain turns null into 0, and every call reads and writes something.
    """
    usage = answer.response_metadata.get("token_usage") or {}
    names = {"input_tokens": "prompt_tokens", "output_tokens": "completion_tokens"}
    counts = {ours: usage.get(theirs) for ours, theirs in names.items()}
    return {name: count for name, count in counts.items() if type(count) is int and count > 0}


def _encodable(text: str) -> str:
    """Without lone surrogates, which JSON can express and no file can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")

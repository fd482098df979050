"""Chat completions as servers really send them, put right before langchain reads them.

The only place that imports langchain_openai.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from tools.llm.retry import BEGUN
from tools.llm.schema import Reply

# What servers call their errors where they give no number, and the HTTP status that this stands for.
NAMED = (
    (401, "invalid_api_key|authentication|unauthori[sz]ed|incorrect api key"),
    (402, "insufficient_quota|insufficient balance|payment|billing"),
    (429, "rate_?limit|too many requests"),
    (400, "context_length|context length|invalid_request|bad_?request|unsupported|not supported"),
    (503, "overload|unavailable|capacity|loading"),
)
BROKE = 500


def make_client(**settings: Any) -> Any:
    """langchain's client for an OpenAI-compatible server, reading what comes more kindly than it would."""
    from langchain_openai import ChatOpenAI

    class Client(ChatOpenAI):
        """Raises openai.APIStatusError where an error stands in the body of an HTTP 200."""

        def _create_chat_result(self, response: Any, generation_info: Any = None) -> Any:
            if not isinstance(response, dict) and hasattr(response, "model_dump"):
                response = response.model_dump(warnings=False)
            if isinstance(response, dict):
                raise_error(response)
                response = whole_arguments(response)
            return super()._create_chat_result(response, generation_info)

    return Client(**settings)


def raise_error(body: Mapping[str, Any]) -> None:
    """The error that a body of HTTP 200 holds instead of an answer, or in it, as its own HTTP status would have been.

    Raises:
        openai.APIStatusError: there is one.
    """
    import httpx
    import openai

    begun = [choice.get("error") for choice in body.get("choices") or () if isinstance(choice, dict)]
    error = body.get("error") or next(filter(None, begun), None)
    if not error:
        return
    told = error if isinstance(error, dict) else {"message": str(error)}
    request = httpx.Request("POST", "http://server/chat/completions")
    response = httpx.Response(status_of(told), request=request, extensions={BEGUN: True} if begun else {})
    raise openai.APIStatusError(str(told.get("message") or told), response=response, body=told)


def status_of(error: Mapping[str, Any]) -> int:
    """The HTTP status that an error names by number or by its words; 500 for one that names none."""
    for key in ("code", "status", "status_code"):
        number = str(error.get(key) or "")
        if number.isdecimal() and 400 <= int(number) < 600:
            return int(number)
    said = " ".join(str(value) for value in error.values()).lower()
    return next((status for status, words in NAMED if re.search(words, said)), BROKE)


def whole_arguments(body: dict[str, Any]) -> dict[str, Any]:
    """The body with the arguments of tool calls as JSON texts: some servers send them as objects."""
    for choice in body.get("choices") or ():
        for call in (choice.get("message") or {}).get("tool_calls") or ():
            function = call.get("function") or {}
            if isinstance(function.get("arguments"), dict | list):
                function["arguments"] = json.dumps(function["arguments"])
    return body


def as_reply(answer: Any) -> Reply:
    """langchain's message as ours. Raises TypeError and the like for what is no answer."""
    calls = [(call["name"], json.dumps(call["args"])) for call in answer.tool_calls]
    calls += [(call["name"] or "", _whole(call["args"] or "")) for call in answer.invalid_tool_calls]
    cut = answer.response_metadata.get("finish_reason") == "length"
    return Reply(text=_whole(str(answer.text)), calls=tuple(calls), cut=cut)


def counted(answer: Any) -> dict[str, int]:
    """Tokens that the server has counted, in and out; without those that it left out, or gave as null or as zero.

    langchain makes 0 of null, and no call reads or writes nothing.
    """
    said = answer.response_metadata.get("token_usage") or {}
    names = {"input_tokens": "prompt_tokens", "output_tokens": "completion_tokens"}
    counts = {ours: said.get(theirs) for ours, theirs in names.items()}
    return {name: count for name, count in counts.items() if type(count) is int and count > 0}


def _whole(text: str) -> str:
    """Without halves of signs, which JSON can say and no file can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")

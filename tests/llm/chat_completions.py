"""Chat completions as OpenAI's API writes them: one JSON object, or a stream of server-sent events."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.llm.server import Reply

Json = dict[str, Any]
MODELS = json.dumps(
    {"object": "list", "data": [{"id": "scripted", "object": "model", "created": 0, "owned_by": "tests"}]}
)
PIECE = 20


def completion(reply: "Reply", asked: Json) -> tuple[str, str]:
    """Content type and body, streamed where the request asks for it."""
    whole = _whole(reply, asked.get("model", ""))
    if not asked.get("stream"):
        return "application/json", json.dumps(whole)
    counted = bool((asked.get("stream_options") or {}).get("include_usage"))
    events = [*(json.dumps(chunk) for chunk in _chunks(whole, counted)), "[DONE]"]
    return "text/event-stream", "".join(f"data: {event}\n\n" for event in events)


def arguments(given: Json | str) -> str:
    """A tool call's arguments as they are sent; a text stays as it is, so that it may be broken."""
    return given if isinstance(given, str) else json.dumps(given)


def _whole(reply: "Reply", model: str) -> Json:
    calls = [
        {"id": f"call_{place}", "type": "function", "function": {"name": name, "arguments": arguments(given)}}
        for place, (name, given) in enumerate(reply.calls)
    ]
    message = {"role": "assistant", "content": reply.text or None} | ({"tool_calls": calls} if calls else {})
    finish = reply.finish or ("tool_calls" if calls else "stop")
    choice = {"index": 0, "message": message, "finish_reason": finish}
    made = {"id": "1", "object": "chat.completion", "created": 0, "model": model, "choices": [choice]}
    return made | ({"usage": _usage(*reply.usage)} if isinstance(reply.usage, tuple) else {})


def _usage(into: int, out: int) -> Json:
    return {"prompt_tokens": into, "completion_tokens": out, "total_tokens": into + out}


def _chunks(whole: Json, counted: bool) -> Iterator[Json]:
    """The parts of an answer; the usage, if it is asked for, in one without choices at the end."""
    same = {key: whole[key] for key in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    [choice] = whole["choices"]
    for delta in ({"role": "assistant", "content": ""}, *_deltas(choice["message"])):
        yield same | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    yield same | {"choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]}
    if counted and "usage" in whole:
        yield same | {"choices": [], "usage": whole["usage"]}


def _deltas(message: Json) -> Iterator[Json]:
    for piece in _pieces(message["content"] or ""):
        yield {"content": piece}
    for place, call in enumerate(message.get("tool_calls", ())):
        name, given = call["function"]["name"], call["function"]["arguments"]
        yield {"tool_calls": [call | {"index": place, "function": {"name": name, "arguments": ""}}]}
        for piece in _pieces(given):
            yield {"tool_calls": [{"index": place, "function": {"arguments": piece}}]}


def _pieces(text: str) -> list[str]:
    return [text[start : start + PIECE] for start in range(0, len(text), PIECE)]

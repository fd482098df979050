"""What clients get: OpenAI's responses, whole or in pieces."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from tools.continuous.row import Choice
from ui.serve.exchange import Exchange, Piece
from ui.serve.models import Served

Body = dict[str, Any]  # as it goes into JSON


def whole(exchange: Exchange, piece: Piece) -> Body:
    """An answer in one."""
    shown: Body = {"text": piece.text}
    if exchange.asked.chat:
        shown = {"message": {"role": "assistant", "content": piece.text, "refusal": None}}
    choice = _choice(exchange, shown, piece, piece.finish)
    kind = "chat.completion" if exchange.asked.chat else "text_completion"
    return {**_head(exchange, kind), "choices": [choice], "usage": usage(exchange)}


def opening(exchange: Exchange) -> Iterator[Body]:
    """What comes before the first piece of a chat."""
    if exchange.asked.chat:
        delta = {"role": "assistant", "content": "", "refusal": None}
        yield _part(exchange, _choice(exchange, {"delta": delta}, Piece(""), None))


def part(exchange: Exchange, piece: Piece) -> Iterator[Body]:
    """The messages of one piece; of the last one with the end, and what was used if that is wanted."""
    chat = exchange.asked.chat
    if piece.text or piece.choices:
        shown = {"delta": {"content": piece.text}} if chat else {"text": piece.text}
        yield _part(exchange, _choice(exchange, shown, piece, None))
    if piece.finish:
        yield _part(exchange, _choice(exchange, {"delta": {}} if chat else {"text": ""}, Piece(""), piece.finish))
        if exchange.asked.include_usage:
            yield {**_head(exchange, _chunk(exchange)), "choices": [], "usage": usage(exchange)}


def event(body: Body) -> bytes:
    """As a server-sent event."""
    return f"data: {json.dumps(body, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


DONE = b"data: [DONE]\n\n"


def usage(exchange: Exchange) -> Body:
    """Tokens; those of the prompt's shared beginning were not run again."""
    prompt, prefix = exchange.row.prompt, exchange.served.weights.prefix
    cached = len(prefix) if prompt[: len(prefix)] == prefix else 0
    generated = exchange.row.generated
    return {
        "prompt_tokens": len(prompt), "completion_tokens": generated, "total_tokens": len(prompt) + generated,
        "prompt_tokens_details": {"cached_tokens": cached},
    }  # fmt: skip


def model(served: Served, window: int) -> Body:
    """A line of the list of models."""
    return {
        "id": served.name, "object": "model", "created": served.created, "owned_by": "nesylora",
        "root": served.pair.base.model, "max_model_len": window,
    }  # fmt: skip


def _head(exchange: Exchange, kind: str) -> Body:
    fingerprint = f"{exchange.served.prompt.id}{'+adapter' if exchange.served.pair.adapter else ''}"
    return {
        "id": exchange.id, "object": kind, "created": exchange.created, "model": exchange.served.name,
        "system_fingerprint": fingerprint,
    }  # fmt: skip


def _chunk(exchange: Exchange) -> str:
    return "chat.completion.chunk" if exchange.asked.chat else "text_completion"


def _part(exchange: Exchange, choice: Body) -> Body:
    # Where usage is wanted, every chunk has the field.
    return {
        **_head(exchange, _chunk(exchange)),
        "choices": [choice],
        **({"usage": None} if exchange.asked.include_usage else {}),
    }


def _choice(exchange: Exchange, shown: Body, piece: Piece, finish: str | None) -> Body:
    wanted = exchange.asked.sampling.logprobs is not None and piece.choices
    logprobs = {"content": _logprobs(exchange.served, piece.choices), "refusal": None} if wanted else None
    return {"index": 0, **shown, "logprobs": logprobs, "finish_reason": finish}


def _logprobs(served: Served, choices: Sequence[Choice]) -> list[Body]:
    """Of each token of the answer: its own log-probability, and those of the likeliest."""

    def told(token: int, logprob: float | None) -> Body:
        text = str(served.render.tokenizer.decode([token], clean_up_tokenization_spaces=False))
        # The bytes of a token that holds a part of a character are not to be had.
        return {
            "token": text,
            "logprob": logprob,
            "bytes": None if "\N{REPLACEMENT CHARACTER}" in text else list(text.encode()),
        }

    return [
        {**told(choice.token, choice.logprob), "top_logprobs": [told(*likely) for likely in choice.likeliest]}
        for choice in choices
    ]

"""Requests that `nesylora serve` answered, as its log keeps them: one JSON line each."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from agent.records.base import Record


class ServedMessage(Record):
    """A message as the client sent it. Content in parts is joined to one text."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str


class ServedRequest(Record):
    """One answered request: what the client sent, without the refined prompt around it, and what it got."""

    kind: Literal["served"] = "served"
    time: datetime = Field(description="when it came, with its zone")
    request: str = Field(description="its id, as the client got it")
    model: str = Field(description="the name that it asked")
    prompt: str = Field("", description="id of the refined prompt behind that name")
    adapter: bool = Field(False, description="whether an adapter answered with it")
    messages: tuple[ServedMessage, ...] = Field((), description="empty where a raw text was continued")
    text: str = Field("", description="the raw text that was continued (/v1/completions)")
    own_prompt: bool = Field(
        False, description="the messages brought a prompt of their own, in place of the refined one"
    )
    answer: str = Field(description="what the client got; of one that went away, so far")
    finish: Literal["stop", "length", "gone", "slow", "timeout", "failed"] = Field(
        description="stop: the model ended it, or a stop text; gone: the client went away; slow: it read too slowly"
    )
    stopped_at: str = Field("", description="the client's own stop text, where that ended the answer")
    temperature: float = Field(0.0, description="0: greedy")
    prompt_tokens: int = Field(description="of the whole prompt, the refined one included")
    completion_tokens: int
    seconds: float = Field(description="from its arrival to its end")

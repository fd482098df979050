"""Clients of the scripted LLM server, for one test each."""

import time
from typing import Any

import pytest

from agent.config.llm import Llm
from agent.errors import LlmUnavailable
from tests.llm.server import LlmServer, call
from tools.llm.budget import LlmBudget, UnsavedCallLog
from tools.llm.client import LlmChat
from tools.llm.retry import ServerRetry

KEY = "sk-very-secret-0123456789"
STOP = call("stop", reason="done")
TOO_FAST = call("train_lora", reason="hurry", learning_rate=5)


def settings(server: LlmServer, **changes: Any) -> Llm:
    """No second try; 1 USD for a million tokens read, 10 for a million written, answers of at most 20 tokens."""
    given = {"model": "judge-1", "base_url": server.url, "key_variable": "MAYOR_KEY", "patience": 0, "max_tokens": 20}
    return Llm.model_validate(given | {"price": {"input": 1, "output": 10}} | changes)


def retry(wanted: Llm, told: list[str] | None = None) -> ServerRetry:
    return ServerRetry(wanted.patience, wanted.max_concurrency, [].append if told is None else told.append)


def chat(server: LlmServer, budget: LlmBudget | None = None, **changes: Any) -> LlmChat:
    wanted = settings(server, **changes)
    return LlmChat(wanted, "planner", budget or LlmBudget(UnsavedCallLog()), retry(wanted))


def refusal(client: LlmChat) -> LlmUnavailable:
    with pytest.raises(LlmUnavailable) as caught:
        client.complete("system", "user")
    return caught.value


def ending(server: LlmServer, seconds: float, **changes: Any) -> LlmChat:
    """A client of a run that ends in so many seconds."""
    wanted, end = settings(server, patience=3600, **changes), time.monotonic() + seconds
    return LlmChat(wanted, "planner", LlmBudget(UnsavedCallLog()), retry(wanted), deadline=lambda: end)

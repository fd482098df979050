"""When an LLM server does not answer: which errors are worth another try, how long to wait, and when to stop asking."""

import asyncio
import itertools
import math
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from agent.errors import LlmRefused, LlmUnavailable, TooLong

T = TypeVar("T")

LONGEST_WAIT = 60.0  # seconds between two tries, unless the server asks for more
TELL_FROM = 2.0  # seconds of a wait that people are told of
OVERFLOW = (
    "context_length_exceeded", "context length", "context window", "context size", "prompt is too long",
    "too many tokens", "maximum number of tokens",
)  # fmt: skip
NO_CREDIT = (
    "insufficient_quota", "billing_hard_limit", "insufficient credit", "insufficient balance", "credit balance",
)  # fmt: skip
BEGUN = "begun"  # marks the response of an error that came when part of an answer had been written
LEAST_KEY = 8  # characters; a shorter one stands in words that are no secret


class Passing(LlmUnavailable):
    """An error that another try may mend. `after`: seconds that the server asks to wait, if it does."""

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class Broken(Passing):
    """HTTP 500: the server is in trouble, or it broke on something that it does not know."""


class Late(Passing):
    """No answer in time: the server is slow, or a model writes without end where nothing makes it stop."""


class Unsupported(LlmUnavailable):
    """The server does not take the request as it is. Put another way, it might. `said`: all it said, not for people."""

    def __init__(self, message: str, said: str = "") -> None:
        super().__init__(message)
        self.said = said


class Patience:
    """What all roles that ask one server share: how many calls are out, whether it is down, whether it refused the key.

    Args:
        seconds: after a call's first failure, in which it is tried again.
        width: calls that are out at the same time.
        tell: told in a sentence what is waited for, and that the server is not asked any more.
    """

    def __init__(self, seconds: float, width: int, tell: Callable[[str], None]) -> None:
        self.refused = ""  # why this server is not asked any more
        self._seconds = seconds
        self._tell = tell
        self._room = asyncio.Semaphore(width)
        self.down = False  # patience has run out: one try a call, until the server answers again
        self._waiting = 0

    async def answer(self, ask: Callable[[], Awaitable[T]], deadline: float | None = None, suspects: bool = False) -> T:
        """What `ask` brings, tried again while its errors are `Passing` and there is time.

        Args:
            deadline: a reading of time.monotonic() that neither a wait nor an answer may pass.
            suspects: that the request itself may be what the server fails on: `Broken` and `Late` are not tried again.

        Raises:
            LlmUnavailable: the last error.
            LlmRefused: at once, here and at every later call.
        """
        failed_first = None
        for tries in itertools.count():
            try:
                result = await self._once(ask, deadline)
            except Passing as error:
                now, wait = time.monotonic(), _wait(error, tries)
                failed_first = failed_first or now
                if suspects and isinstance(error, Broken | Late):
                    raise
                patient = failed_first + self._seconds
                if self.down or now + wait > (patient if deadline is None else min(patient, deadline)):
                    self.down = True
                    raise
                await self._sleep(wait, error)
            else:
                self.down = False
                return result
        raise AssertionError("the loop ends by an answer or an error")

    async def _once(self, ask: Callable[[], Awaitable[T]], deadline: float | None) -> T:
        async with self._room:
            if self.refused:
                raise LlmRefused(self.refused)
            try:
                async with asyncio.timeout(None if deadline is None else deadline - time.monotonic()):
                    return await ask()
            except TimeoutError:
                raise LlmUnavailable("the run's minutes are used up") from None
            except LlmRefused as error:
                if not self.refused:
                    self.refused = str(error)
                    self._tell(f"The external LLM is not asked any more: {error}.")
                raise

    async def _sleep(self, wait: float, error: Passing) -> None:
        if wait >= TELL_FROM and not self._waiting:
            self._tell(f"Waiting {wait:.0f} s for the external LLM: {error}.")
        self._waiting += 1
        try:
            await asyncio.sleep(wait)
        finally:
            self._waiting -= 1


def _wait(error: Passing, tries: int) -> float:
    """Seconds: as long as the server asks, else 1, 2, 4 and so on; with jitter, so that not all come back at once."""
    if error.after is not None:
        return error.after + random.uniform(0, 1)
    return min(LONGEST_WAIT, 2.0**tries) * random.uniform(0.75, 1.25)


def classified(error: Exception, model: str, url: str, key: str, variable: str) -> LlmUnavailable:
    """An error of the openai package as one of ours: to be tried again, refused for good, too long, or none of these.

    What the server says is quoted and cut, without the key.
    """
    import openai

    if isinstance(error, openai.APITimeoutError):
        return Late(f"{model} did not answer in time")
    if isinstance(error, openai.APIConnectionError):
        return Passing(f"{model} did not answer: no connection to {url}")
    if not isinstance(error, openai.APIStatusError):
        return LlmUnavailable(f"{model} sent what is no chat completion: look at `llm.base_url`")
    said = f"{error.body} {error.message}"
    quoted = f" (HTTP {error.status_code}{_quoted(error, key)})"
    if error.status_code == 402 or (error.status_code in (400, 403, 429) and _says(said, NO_CREDIT)):
        return LlmRefused(f"{model} says that the credit is used up{quoted}")
    if error.status_code in (401, 403):
        return LlmRefused(f"{model} refused the key: look at the environment variable {variable}{quoted}")
    if error.status_code == 413 or (error.status_code == 400 and _says(said, OVERFLOW)):
        return TooLong(f"what was asked is too long for {model}{quoted}")
    if error.status_code == 500:
        return Broken(f"{model} did not answer{quoted}", _asked_wait(error.response.headers))
    if error.status_code in (408, 409, 429) or error.status_code > 500:
        return Passing(f"{model} did not answer{quoted}", _asked_wait(error.response.headers))
    if error.status_code in (400, 422):
        return Unsupported(f"{model} does not take what it is asked{quoted}", said)
    return LlmUnavailable(f"{model} did not answer{quoted}: look at `llm.base_url` and `llm.model`")


def cost_nothing(error: Exception) -> bool:
    """Whether the request was refused before any answer was begun, or never went out. Else nobody can know."""
    import httpx
    import openai

    unsent = (
        httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.UnsupportedProtocol,
        httpx.LocalProtocolError,
    )  # fmt: skip
    cause: BaseException | None = error
    while cause and not isinstance(cause, unsent):  # langchain and openai wrap it, one in the other
        cause = cause.__cause__
    if isinstance(error, openai.APIStatusError):
        return BEGUN not in error.response.extensions
    return cause is not None


def _says(said: str, marks: tuple[str, ...]) -> bool:
    return any(mark in said.lower() for mark in marks)


def _quoted(error: Any, key: str, most: int = 160) -> str:
    """`: …`, or nothing where the server says nothing."""
    body = error.body if isinstance(error.body, dict) else {"message": error.message}
    said = " ".join(str(body.get("message") or "").split())
    said = said.replace(key, "[key]") if len(key) >= LEAST_KEY else said
    return f": {said if len(said) <= most else said[:most] + '…'}" if said else ""


def _asked_wait(headers: Any) -> float | None:
    """Seconds of a Retry-After, which may be a number or a date (RFC 9110, section 10.2.3)."""
    asked = headers.get("retry-after")
    if asked is None:
        return None
    try:
        return max(0.0, float(asked)) if math.isfinite(float(asked)) else None
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(asked) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None

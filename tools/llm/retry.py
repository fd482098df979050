"""When an LLM server fails: which errors are retried, how long to wait, and when to stop asking."""

import asyncio
import itertools
import math
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypeVar

from agent.errors import LlmRefused, LlmUnavailable, TooLong

if TYPE_CHECKING:
    import openai

T = TypeVar("T")

LONGEST_WAIT = 60.0  # seconds between two tries, unless the server asks for more
NOTIFY_FROM = 2.0  # seconds; the user sees a message about waits from here on
OVERFLOW = (
    "context_length_exceeded", "context length", "context window", "context size", "prompt is too long",
    "too many tokens", "maximum number of tokens",
)  # fmt: skip
NO_CREDIT = (
    "insufficient_quota", "billing_hard_limit", "insufficient credit", "insufficient balance", "credit balance",
)  # fmt: skip
BEGUN = "begun"  # marks the response of an error that came after the server had written part of an answer
LEAST_KEY = 8  # characters; a shorter key may be part of an ordinary word, which needs no hiding


class TransientError(LlmUnavailable):
    """A retry may succeed. `after`: seconds that the server asks to wait; None where it names none."""

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class ServerError(TransientError):
    """HTTP 500: the server is in trouble, or the request contains something that it does not know."""


class TimedOut(TransientError):
    """No answer in time: the server is slow, or the model never stops writing."""


class UnsupportedRequest(LlmUnavailable):
    """The server rejects the form of the request; another form may work. `response`: its full text, for programs."""

    def __init__(self, message: str, response: str = "") -> None:
        super().__init__(message)
        self.response = response


class ServerRetry:
    """Retries calls to one server, with state that all its roles share: open calls, server down, key refused.

    Args:
        seconds: for how long a call is retried after its first failure.
        width: most calls in flight at the same time.
        notify: receives a sentence when a wait begins, and when the server is not called any more.
    """

    def __init__(self, seconds: float, width: int, notify: Callable[[str], None]) -> None:
        self.refused = ""  # why this server is not called any more
        self.down = False  # retries have run out of time: one try a call, until the server answers again
        self._seconds = seconds
        self._notify = notify
        self._slots = asyncio.Semaphore(width)
        self._waiting = 0

    async def call(
        self, request: Callable[[], Awaitable[T]], deadline: float | None = None, request_suspect: bool = False
    ) -> T:
        """The result of `request`, retried while it raises `TransientError` and there is time.

        Args:
            deadline: a reading of time.monotonic() that neither a wait nor an answer may pass.
            request_suspect: the request itself may be the cause of `ServerError` and `TimedOut`, so that these are
                not retried.

        Raises:
            LlmUnavailable: the last error.
            LlmRefused: at once, in this and in every later call.
        """
        failed_first = None
        for tries in itertools.count():
            try:
                result = await self._try(request, deadline)
            except TransientError as error:
                now, wait = time.monotonic(), _seconds_to_wait(error, tries)
                failed_first = failed_first or now
                if request_suspect and isinstance(error, ServerError | TimedOut):
                    raise
                retry_until = failed_first + self._seconds
                if self.down or now + wait > (retry_until if deadline is None else min(retry_until, deadline)):
                    self.down = True
                    raise
                await self._sleep(wait, error)
            else:
                self.down = False
                return result
        raise AssertionError("the loop ends by an answer or an error")

    async def _try(self, request: Callable[[], Awaitable[T]], deadline: float | None) -> T:
        async with self._slots:
            if self.refused:
                raise LlmRefused(self.refused)
            try:
                async with asyncio.timeout(None if deadline is None else deadline - time.monotonic()):
                    return await request()
            except TimeoutError:
                raise LlmUnavailable("the run's minutes are used up") from None
            except LlmRefused as error:
                if not self.refused:
                    self.refused = str(error)
                    self._notify(f"The external LLM is not asked any more: {error}.")
                raise

    async def _sleep(self, wait: float, error: TransientError) -> None:
        if wait >= NOTIFY_FROM and not self._waiting:
            self._notify(f"Waiting {wait:.0f} s for the external LLM: {error}.")
        self._waiting += 1
        try:
            await asyncio.sleep(wait)
        finally:
            self._waiting -= 1


def _seconds_to_wait(error: TransientError, tries: int) -> float:
    """As long as the server asks, else 1, 2, 4 … seconds; with jitter, so that callers do not all return at once."""
    if error.after is not None:
        return error.after + random.uniform(0, 1)
    return min(LONGEST_WAIT, 2.0**tries) * random.uniform(0.75, 1.25)


def classify_error(error: Exception, model: str, url: str, key: str, variable: str) -> LlmUnavailable:
    """An error of the openai package as one of ours: retried, refused for good, too long, or none of these.

    The message quotes the server's own, shortened and without the key.

    Args:
        key: the API key, so that it can be removed from the message.
        variable: the environment variable that holds the key.
    """
    import openai

    if isinstance(error, openai.APITimeoutError):
        return TimedOut(f"{model} did not answer in time")
    if isinstance(error, openai.APIConnectionError):
        return TransientError(f"{model} did not answer: no connection to {url}")
    if not isinstance(error, openai.APIStatusError):
        return LlmUnavailable(f"{model} sent something that is no chat completion: look at `llm.base_url`")
    response = f"{error.body} {error.message}"
    quoted = f" (HTTP {error.status_code}{_quoted(error, key)})"
    if error.status_code == 402 or (error.status_code in (400, 403, 429) and mentions(response, NO_CREDIT)):
        return LlmRefused(f"{model} says that the credit is used up{quoted}")
    if error.status_code in (401, 403):
        return LlmRefused(f"{model} refused the key: look at the environment variable {variable}{quoted}")
    if error.status_code == 413 or (error.status_code == 400 and mentions(response, OVERFLOW)):
        return TooLong(f"what was asked is too long for {model}{quoted}")
    if error.status_code == 500:
        return ServerError(f"{model} did not answer{quoted}", retry_after(error.response.headers))
    if error.status_code in (408, 409, 429) or error.status_code > 500:
        return TransientError(f"{model} did not answer{quoted}", retry_after(error.response.headers))
    if error.status_code in (400, 422):
        return UnsupportedRequest(f"{model} does not accept the request{quoted}", response)
    return LlmUnavailable(f"{model} did not answer{quoted}: look at `llm.base_url` and `llm.model`")


def was_not_billed(error: Exception) -> bool:
    """Whether the request was refused before an answer began, or was never sent. Otherwise nobody can know."""
    import httpx
    import openai

    unsent = (
        httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.UnsupportedProtocol,
        httpx.LocalProtocolError,
    )  # fmt: skip
    cause: BaseException | None = error
    while cause and not isinstance(cause, unsent):  # langchain wraps openai's error, which wraps httpx's
        cause = cause.__cause__
    if isinstance(error, openai.APIStatusError):
        return BEGUN not in error.response.extensions
    return cause is not None


def mentions(response: str, marks: tuple[str, ...]) -> bool:
    """Whether a server's words, of which each says its own, hold one of these marks."""
    return any(mark in response.lower() for mark in marks)


def _quoted(error: "openai.APIStatusError", key: str, most: int = 160) -> str:
    """The server's message after a colon, without the key; empty where the server gave none."""
    body = error.body if isinstance(error.body, dict) else {"message": error.message}
    text = " ".join(str(body.get("message") or "").split())
    text = without_key(text, key)
    return f": {text if len(text) <= most else text[:most] + '…'}" if text else ""


def without_key(text: str, key: str) -> str:
    """A server's words without the key, which some quote."""
    return text.replace(key, "[key]") if len(key) >= LEAST_KEY else text


def retry_after(headers: Mapping[str, str]) -> float | None:
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

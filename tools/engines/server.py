"""An engine's HTTP server: requests that wait while it is away, and errors that name the setting to change."""

import os
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import httpx

from agent.config.address import environment_fault, is_local
from agent.config.generation import Generation
from agent.errors import BadInput, NesyLoraError
from tools.llm.retry import NO_CREDIT, mentions, retry_after, without_key

Body = Mapping[str, Any]
Attempt = Callable[[Callable[[], Any]], Any]
CONNECT_SECONDS = 10.0
BRIEF_SECONDS = 5.0  # of a request that nothing depends on
LONGEST_WAIT = 15.0  # seconds between two tries
QUOTED = 300  # characters of a server's message
RESUME = (
    "Nothing is lost: once it answers, the run goes on with `nesylora resume`. If it has another address by then, "
    "change generation.url in the run's task.yaml first."
)


class Refused(Exception):
    """The server has answered with an error. Never leaves this package.

    Attributes:
        status: of HTTP.
        text: the server's own message.
        after: seconds that the server asks to wait; None where it names none.
    """

    def __init__(self, status: int, text: str, after: float | None = None) -> None:
        super().__init__(f"HTTP {status}: {text}")
        self.status = status
        self.text = text
        self.after = after

    @property
    def passes(self) -> bool:
        """Whether the same request may be taken a little later."""
        busy = self.status in (408, 409, 429) or self.status >= 502
        return busy and not mentions(self.text, NO_CREDIT)


class Server:
    """Sends requests from any number of threads.

    Args:
        name: what messages call it.
        url: up to and with /v1.
        settings: for the key's variable, the patience, and how many connections.
        key: in place of the one that the variable holds.
        ended: says in a sentence that the server has ended and will not come back by waiting; empty: it has not.
    """

    def __init__(
        self, name: str, url: str, settings: Generation, key: str = "", ended: Callable[[], str] = str
    ) -> None:
        self.url = url.rstrip("/")
        self.name = f"{name} at {self.url}"
        self._waiting: dict[int, str] = {}  # by thread
        self._settings = settings
        self._left = threading.Event()
        self._key = key or key_of(settings)
        self._ended = ended
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        limits = httpx.Limits(max_connections=settings.batch_size + 4)
        try:
            self._client = httpx.Client(
                timeout=httpx.Timeout(settings.answer_seconds, connect=CONNECT_SECONDS),
                limits=limits,
                headers=headers,
                trust_env=not is_local(self.url),  # as for the external LLM, see tools.llm.connection
            )
        except (OSError, ValueError, ImportError, httpx.InvalidURL) as error:
            raise BadInput(f"{self.name} cannot be asked {environment_fault(error)}") from None

    @property
    def waits(self) -> str:
        """A sentence on what some request waits for; empty while all are answered."""
        return next(iter(list(self._waiting.values())), "")

    def get(self, path: str) -> Any:
        """What stands at a path beside /v1, or in it, as JSON. Raises as `post`."""
        return self._patiently(partial(self._once, "GET", path, None), path)

    def post(self, path: str, body: Body, attempt: Attempt = lambda send: send()) -> Any:
        """The JSON answer (None for other text), or what `attempt` makes of it.

        Args:
            attempt: is given what makes the request once, for each try of it.

        Raises:
            Refused: the server has refused it.
            NesyLoraError: it is away for longer than the settings' patience.
        """
        return self._patiently(lambda: attempt(partial(self._once, "POST", path, body)), path)

    def try_once(self, path: str, body: Body) -> bool:
        """A short try of a request that is not worth waiting for. Returns whether the server has answered."""
        try:
            self._once("POST", path, body, BRIEF_SECONDS)
        except httpx.TransportError:
            return False
        except Refused:
            pass
        return True

    def abandon(self) -> None:
        """Let no request that is open now be tried again."""
        self._left.set()
        self._left = threading.Event()

    def _patiently(self, send: Callable[[], Any], path: str) -> Any:
        try:
            return self._tried(send, path)
        finally:
            self._waiting.pop(threading.get_ident(), None)

    def _tried(self, send: Callable[[], Any], path: str) -> Any:
        began, wait, left = None, 1.0, self._left
        while True:
            try:
                return send()
            except (httpx.TransportError, Refused) as error:
                asked = None
                if isinstance(error, Refused):
                    # Hosted models answer 500 now and then; vLLM also says so of an adapter it will never take.
                    if not error.passes and (error.status, path) != (500, "/chat/completions"):
                        raise
                    asked = error.after
                now, what = time.monotonic(), str(error) or type(error).__name__
                if isinstance(error, httpx.ReadTimeout):
                    what = f"no answer within {self._settings.answer_seconds:g} s, which is generation.answer_seconds"
                if ended := self._ended():
                    raise NesyLoraError(f"{self.name} does not answer ({what}). {ended}. {RESUME}") from error
                began = began or now
                rest = began + self._settings.patience - now
                self._waiting[threading.get_ident()] = f"Waiting for {self.name}: {what}."
                # The last try is when the patience ends.
                if rest <= 0 or left.wait(min(wait if asked is None else asked, rest)):
                    raise NesyLoraError(
                        f"{self.name} does not answer ({what}), for {now - began:.0f} s now (generation.patience). "
                        f"{RESUME}"
                    ) from error
                wait = min(2 * max(wait, 1.0), LONGEST_WAIT)

    def _once(self, method: str, path: str, body: Body | None, seconds: float | None = None) -> Any:
        address = f"{self.url}{path}" if path.startswith("/") else f"{self.url.removesuffix('/v1')}/{path}"
        timeout = httpx.USE_CLIENT_DEFAULT if seconds is None else seconds
        reply = self._client.request(method, address, json=body, timeout=timeout)
        try:
            found = reply.json()
        except ValueError:
            found = None
        if reply.is_success:
            return found
        text = without_key(_message(found) or " ".join(reply.text.split()), self._key)
        raise Refused(reply.status_code, text[:QUOTED], retry_after(reply.headers))

    def fault(self, refused: Refused) -> NesyLoraError:
        """The error that a refusal is to a user, where nothing more is known about it."""
        if refused.status in (401, 403):
            variable = self._settings.key_variable
            key = f"the key in ${variable}" if variable else "a request without a key"
            return BadInput(f"{self.name} refuses {key} ({refused}): look at generation.key_variable")
        if refused.status == 404:
            return BadInput(
                f"{self.name} does not know what it was asked ({refused}): look at model and generation.url"
            )
        return NesyLoraError(f"{self.name} does not take a request: {refused}")


def key_of(settings: Generation) -> str:
    """Empty where none is to be sent. Raises BadInput: a variable is named, and holds no key."""
    if settings.key_variable is None:
        return ""
    key = os.environ.get(settings.key_variable, "").strip()
    if not key or not (key.isascii() and key.isprintable()):
        raise BadInput(f"generation.key_variable: the environment variable {settings.key_variable} holds no key")
    return key


def _message(found: Any) -> str:
    """A server's own words, from the forms in which errors come."""
    error = found.get("error", found) if isinstance(found, dict) else None
    text = error.get("message") or error.get("detail") if isinstance(error, dict) else error
    return " ".join(str(text or "").split())

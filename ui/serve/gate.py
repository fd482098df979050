"""Who may ask, and how often. An ASGI middleware."""

import hmac
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ui.serve.faults import Fault

LOCAL = ("127.0.0.1", "localhost", "::1")
OPEN = ("/health",)  # for load balancers, which have no token
MOST_CLIENTS = 10_000  # whose rate is remembered


@dataclass
class Allowance:
    """Requests that a client may still send, as of a time."""

    left: float
    at: float


class Rate:
    """So many requests a minute of each address, and as many at once.

    Args:
        per_minute: 0: as many as they like.
    """

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute, self._clock = per_minute, clock
        self._clients: OrderedDict[str, Allowance] = OrderedDict()

    def spend(self, client: str) -> float | None:
        """One request. None: it may be sent; or else the seconds until it may."""
        if not self._per_minute:
            return None
        now, most = self._clock(), max(1.0, self._per_minute)
        known = self._clients.pop(client, Allowance(most, now))
        left = min(most, known.left + (now - known.at) * self._per_minute / 60)
        allowed = left >= 1
        self._clients[client] = Allowance(left - allowed, now)
        if len(self._clients) > MOST_CLIENTS:
            self._clients.popitem(last=False)
        return None if allowed else (1 - left) * 60 / self._per_minute


class Gate:
    """Turns away who has no token, pages of other sites, and who asks too often.

    Args:
        token: None: whoever reaches this machine by its own name may ask.
        refused: told the status of what is turned away.
    """

    def __init__(self, app: ASGIApp, token: str | None, rate: Rate, refused: Callable[[int], None]) -> None:
        self._app, self._token, self._rate, self._refused = app, token, rate, refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN:
            await self._app(scope, receive, send)
            return
        fault = self._fault(scope, Headers(scope=scope))
        if fault is None:
            await self._app(scope, receive, send)
        else:
            self._refused(fault.status)
            await fault.response()(scope, receive, send)

    def _fault(self, scope: Scope, headers: Headers) -> Fault | None:
        if self._token is not None:
            sent = headers.get("authorization", "").encode("latin-1")  # the bytes as they were sent
            if not hmac.compare_digest(sent, f"Bearer {self._token}".encode()):
                return Fault(
                    401, "This server wants its token: send it as `Authorization: Bearer …`, which OpenAI's clients do "
                    "with their api_key.", code="invalid_api_key",
                )  # fmt: skip
        elif _host(f"//{headers.get('host', '')}") not in LOCAL:  # a page that a name of its own leads here
            return Fault(403, "This server answers to 127.0.0.1 and localhost; start it with --token for other names.")
        elif "origin" in headers and _host(headers["origin"]) not in LOCAL:
            return Fault(403, "Pages of other sites may not ask this server; start it with --token.")
        wait = self._rate.spend((scope.get("client") or ("",))[0]) if scope["method"] == "POST" else None
        if wait is not None:
            return Fault(429, "Too many requests from this address.", code="rate_limit_exceeded", retry_after=wait)
        return None


def _host(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None

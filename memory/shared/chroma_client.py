"""Chroma's own client, with what it lacks: no wait is without end, and what a proxy says is no bare Exception."""

import time
from contextvars import ContextVar

import httpx
from chromadb.api.client import Client
from chromadb.auth import UserIdentity
from chromadb.config import Settings
from chromadb.errors import error_types

UNTIL = ContextVar("UNTIL", default=float("inf"))
"""When the request under way must have been answered, by the monotonic clock."""

LEAST = 1.0  # seconds for an answer, however late it is
AWAY = (502, 503, 504)  # what a proxy says while its server is down
WAYS = ("connect", "read", "write", "pool")


class TimedClient(Client):
    """A client of the server at an address. Raises httpx.HTTPError and ChromaError, here and by all that it does."""

    def __init__(self, host: str, port: int, secure: bool) -> None:
        super().__init__(
            settings=Settings(
                chroma_api_impl="chromadb.api.fastapi.FastAPI",
                chroma_server_host=host,
                chroma_server_http_port=port,
                chroma_server_ssl_enabled=secure,
                anonymized_telemetry=False,
                _env_file=None,
            )
        )

    def get_user_identity(self) -> UserIdentity:
        """The first of all requests, inside `Client.__init__`: from here on there is a session."""
        session: httpx.Client = getattr(self._server, "_session")  # noqa: B009
        session.event_hooks = {"request": [_limit], "response": [_check]}
        return self._server.get_user_identity()

    def _validate_tenant_database(self, tenant: str, database: str) -> None:
        """Nothing: Chroma asks by a second client, with a session of its own. Later requests say what is missing."""


def _limit(request: httpx.Request) -> None:
    seconds = UNTIL.get() - time.monotonic()
    request.extensions["timeout"] = dict.fromkeys(WAYS, max(LEAST, seconds) if seconds < float("inf") else None)


def _check(response: httpx.Response) -> None:
    """Raises httpx.RemoteProtocolError: there is no server; HTTPStatusError: an error that is none of Chroma's own."""
    if response.status_code in AWAY:
        raise httpx.RemoteProtocolError(f"{response.status_code} {response.reason_phrase}", request=response.request)
    if response.is_error:
        response.read()
        try:
            known = response.json()["error"] in error_types
        except (ValueError, LookupError, TypeError):
            known = False
        if not known:
            response.raise_for_status()

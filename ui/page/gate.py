"""Who may come in: only this machine, only our own pages, only who holds the key. An ASGI middleware.

The key is a file beside the runs that only its owner can read, so a browser stays logged in when the server restarts.
A browser gets it as a cookie, by a link that works once.
"""

import hashlib
import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import TextIO
from urllib.parse import parse_qs, quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

NAMES = ("127.0.0.1", "localhost", "[::1]")
KEY_FILE = ".page-key"
MONTH = 30 * 24 * 3600  # seconds that a browser keeps the cookie
MOST_LINKS = 16  # that are not used yet
SAFE = ("GET", "HEAD")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
}
CLOSED = (
    "This page is for the user who started it. Open the link that `nesylora ui` printed; it works once. For another "
    "browser, take 'Link for another browser' on the page of the first, or start `nesylora ui` again.\n"
)


class Keys:
    """The key of a runs folder, and the links that hand it to a browser once."""

    def __init__(self, runs: Path) -> None:
        self._key = _kept(runs / KEY_FILE)
        self._links: list[str] = []
        # Browsers send a host's cookies to all its ports: pages of several runs folders must not share a name.
        self.cookie = f"nesylora-{hashlib.sha256(str(runs.resolve()).encode()).hexdigest()[:8]}"

    def link(self) -> str:
        """The path of a new link that lets a browser in, once."""
        self._links = [*self._links, secrets.token_urlsafe(24)][-MOST_LINKS:]
        return f"/enter?token={quote(self._links[-1])}"

    def spend(self, token: str) -> bool:
        """Whether the token is that of a link which was not used; it is used now."""
        found = [link for link in self._links if hmac.compare_digest(link.encode(), token.encode())]
        self._links = [link for link in self._links if link not in found]
        return bool(found)

    def fits(self, key: str | None) -> bool:
        return hmac.compare_digest((key or "").encode(), self._key.encode())

    def give(self, response: Response) -> Response:
        """The response, with the key as a cookie."""
        response.set_cookie(self.cookie, self._key, max_age=MONTH, httponly=True, samesite="strict")
        return response


class Gate:
    """Turns away what does not come from a browser of ours, and adds the headers that keep a page to itself."""

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self._app, self._keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_closed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        answer = self._answer(Request(scope))
        await (answer or self._app)(scope, receive, send_closed)

    def _answer(self, request: Request) -> Response | None:
        """What the gate itself answers; None lets the request through."""
        fault = _fault(request.scope, request.headers)
        if fault:
            return PlainTextResponse(fault, 403)
        known = self._keys.fits(request.cookies.get(self._keys.cookie))
        if request.url.path == "/enter" and request.method == "GET":
            token = parse_qs(request.url.query).get("token", [""])[0]
            if self._keys.spend(token):
                return self._keys.give(RedirectResponse("/", 303))
            return RedirectResponse("/", 303) if known else PlainTextResponse(CLOSED, 401)
        return None if known or request.url.path.startswith("/static/") else PlainTextResponse(CLOSED, 401)


def _fault(scope: Scope, headers: Headers) -> str:
    """What is wrong with where a request goes to or comes from; empty if nothing.

    A site elsewhere may resolve its own name to this machine: then Host is not ours. Or it may post here from its own
    page: then Origin is not ours, which every browser sends with what may change something.
    """
    host, port = headers.get("host", ""), scope["server"][1]
    if host not in {f"{name}:{port}" for name in NAMES} | (set(NAMES) if port == 80 else set()):
        return f"This page answers at 127.0.0.1:{port} only, not as {host[:80]!r}.\n"
    if scope["method"] not in SAFE and headers.get("origin") != f"http://{host}":
        return "This was not sent by a page of ours, and nothing was done.\n"
    return ""


def _kept(path: Path) -> str:
    """The key in this file, which is made if it is not there; nobody else can read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError), _made(path) as file:
        file.write(secrets.token_urlsafe(32))
    path.chmod(0o600)
    key = path.read_text().strip()
    if len(key) < 32:  # cut off by a kill
        path.unlink()
        return _kept(path)
    return key


def _made(path: Path) -> TextIO:
    """A new file that only its owner can read. Raises FileExistsError."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w")

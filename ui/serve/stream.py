"""Responses that end when the client goes away, also while nothing is sent."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ui.serve.exchange import Exchange

LAST = 5  # seconds beyond the time of a request in which a reader may take in that it is over
GRACE = 30  # seconds in which a reader that was dropped may still take in the reason

T = TypeVar("T")


async def until_gone(receive: Receive, waited: Coroutine[Any, Any, T]) -> T | None:
    """What is waited for; None if the client goes away before."""
    work, gone = asyncio.ensure_future(waited), asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        return await work if work.done() else None
    finally:
        for task in (work, gone):
            task.cancel()
        await asyncio.gather(work, gone, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Server-sent events.

    Args:
        events: as bytes.
        ended: called at its end, whatever that was.
        exchange: whose reader may be too slow: then the response is left, though what was sent is not taken in.
        until: by time.monotonic(); `LAST` seconds after it the response is left, too.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncIterator[bytes],
        ended: Callable[[], None],
        exchange: Exchange,
        headers: Mapping[str, str],
        until: float,
    ) -> None:
        self.status_code, self.background = 200, None
        self._events, self._ended, self._exchange, self._until = events, ended, exchange, until
        self.init_headers({"cache-control": "no-cache", "x-accel-buffering": "no", **headers})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.ensure_future(self._send(send))
        gone = asyncio.ensure_future(_gone(receive))
        dropped = asyncio.ensure_future(self._exchange.dropped.wait())
        try:
            left = max(0.0, self._until + LAST - time.monotonic())  # a reader that takes nothing holds `send` for good
            done, _ = await asyncio.wait({sending, gone, dropped}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                self._exchange.end("timeout")
            if dropped.done() and not gone.done():
                await asyncio.wait({sending, gone}, timeout=GRACE, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, gone, dropped):
                task.cancel()
            results = await asyncio.gather(sending, gone, dropped, return_exceptions=True)
            self._ended()
        if isinstance(results[0], Exception):
            raise results[0]

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for event in self._events:
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

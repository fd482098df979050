"""The application: what it answers at which address."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, PlainTextResponse, Response

from agent.errors import NesyLoraError
from memory.run.about import own_version
from tools.continuous.engine import Engine, NoSuchToken, QueueFull, Stopped, TooLong
from ui.serve import answers
from ui.serve.exchange import Exchange, Piece
from ui.serve.faults import Fault
from ui.serve.gate import Gate, Rate
from ui.serve.log import RequestLog
from ui.serve.metrics import MEDIA_TYPE, Metrics
from ui.serve.models import Prepared, Served
from ui.serve.requests import Asked, read_chat, read_completion
from ui.serve.stream import EventStream, until_gone

MOST_SENT = 2 * 1024 * 1024  # bytes of a request
BODY_SECONDS = 30  # in which a request must be there
LONGEST_RETRY = 120  # seconds; OpenAI's clients do not come back after more

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """What a client may ask for.

    Attributes:
        seconds: of a request, from its arrival to the end of its answer.
        rate: requests a minute of one address; 0: no limit.
    """

    seconds: float = 600
    rate: float = 0


@dataclass
class Desk:
    """Takes requests in, and has them answered.

    Attributes:
        draining: requests under way are answered, and no new ones taken.
    """

    engine: Engine
    served: dict[str, Served]
    limits: Limits
    log: RequestLog | None = None
    metrics: Metrics = field(default_factory=Metrics)
    draining: bool = False
    open: set[Exchange] = field(default_factory=set)
    preparing: int = 0  # requests that are taken in just now
    # Rendering a long request takes seconds, and retrieval computes: neither is for the event loop.
    workers: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2, "preparing"))

    @property
    def idle(self) -> bool:
        return not (self.open or self.preparing)

    def find(self, name: str) -> Served:
        """Raises Fault: there is no such model."""
        if name not in self.served:
            names = ", ".join(self.served)
            raise Fault(404, f"there is no model {name!r} here, only: {names}", param="model", code="model_not_found")
        return self.served[name]

    async def take_in(self, asked: Asked, arrived: float) -> Exchange:
        """Queue a request. Raises Fault: it is not answered, now or ever."""
        if self.draining:
            raise Fault(503, "The server is stopping, and takes no new requests.", code="stopping", retry_after=5)
        served = self.find(asked.model)
        if self.preparing + self.engine.waiting >= self.engine.room:
            raise self._full()
        self.preparing += 1
        try:
            prepared = await asyncio.get_running_loop().run_in_executor(self.workers, self._prepared, served, asked)
        finally:
            self.preparing -= 1
        exchange = Exchange(
            asked, served, prepared.ids, prepared.own_prompt, arrived, "chatcmpl" if asked.chat else "cmpl"
        )
        param = "messages" if asked.chat else "prompt"
        try:
            self.engine.submit(served.name, exchange.row)
        except NoSuchToken as error:
            raise Fault(400, str(error), param=param) from error
        except TooLong as error:
            raise Fault(400, str(error), param=param, code="context_length_exceeded") from error
        except QueueFull as error:
            raise self._full() from error
        except Stopped as error:
            raise Fault(503, str(error), code="stopping", retry_after=5) from error
        self.open.add(exchange)
        return exchange

    def _prepared(self, served: Served, asked: Asked) -> Prepared:
        if asked.chat:
            try:
                return served.prepared(asked.messages)
            except NesyLoraError as error:
                raise Fault(503, str(error)) from error
        if isinstance(asked.text, str):
            return Prepared(served.text_ids(asked.text), True)
        return Prepared(asked.text, True)

    def _full(self) -> Fault:
        """With the time in which the queue has probably moved on: as long as a request takes."""
        duration = self.metrics.duration
        wait = duration.sum / duration.count if duration.count else 1.0
        most = self.engine.most_waiting
        return Fault(
            429, f"{most} requests wait already, which is the most.", code="queue_full",
            retry_after=min(LONGEST_RETRY, max(1.0, wait)),
        )  # fmt: skip

    def close(self, exchange: Exchange) -> None:
        """Of a request that is over, however it ended."""
        if exchange not in self.open:
            return
        exchange.end("gone")
        self.open.discard(exchange)
        self.metrics.ended(exchange, time.monotonic())
        if self.log:
            self.log.add(exchange.record())

    async def within_time(self, exchange: Exchange, waited: Awaitable[T]) -> T:
        """What is waited for. Raises Fault: the request takes too long."""
        left = exchange.arrived + self.limits.seconds - time.monotonic()
        try:
            async with asyncio.timeout(left):
                return await waited
        except TimeoutError:
            exchange.end("timeout")
            raise Fault(
                504, f"The answer was not whole within {self.limits.seconds:g} seconds.", code="timeout"
            ) from None


def make_app(
    engine: Engine, served: Sequence[Served], *, token: str | None, limits: Limits, log: RequestLog | None = None
) -> FastAPI:
    """The server of these models."""
    app = FastAPI(
        title="NeSyLoRA", version=own_version(), docs_url=None, redoc_url=None, telemetry={"tracing": False},
    )  # fmt: skip
    desk = Desk(engine, {model.name: model for model in served}, limits, log)
    app.state.desk = desk

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        return await _answered(desk, request, read_chat)

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        return await _answered(desk, request, read_completion)

    @app.get("/v1/models")
    async def models() -> Response:
        listed = [answers.model(model, engine.window) for model in served]
        return JSONResponse({"object": "list", "data": listed})

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        return JSONResponse(answers.model(desk.find(name), engine.window))

    @app.get("/health")
    async def health() -> Response:
        state = "stopping" if desk.draining else "ok" if engine.alive else "failed"
        told = {"status": state, "running": engine.running, "waiting": engine.waiting}
        return JSONResponse(told, 200 if state == "ok" else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return PlainTextResponse(desk.metrics.text(engine), media_type=MEDIA_TYPE)

    async def refuse(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            error = Fault(error.status_code, f"{request.url.path}: {error.detail}")
        elif not isinstance(error, Fault):
            error = Fault(500, "The server failed at this request; its own output says why.")
        desk.metrics.refused(error.status)
        return error.response()

    app.add_exception_handler(Fault, refuse)
    app.add_exception_handler(HTTPException, refuse)
    app.add_exception_handler(Exception, refuse)
    app.add_middleware(Gate, token=token, rate=Rate(limits.rate), refused=desk.metrics.refused)
    return app


async def _answered(desk: Desk, request: Request, read: Callable[[bytes], Asked]) -> Response:
    """A request, whole or streamed; while it waits for its first piece, errors still have a status of their own."""
    arrived = time.monotonic()
    try:
        asked = read(await _body(request))
    except ClientDisconnect:
        return Response(status_code=499)
    exchange = await desk.take_in(asked, arrived)
    try:
        piece = await until_gone(request.receive, desk.within_time(exchange, exchange.next()))
        if piece is None:  # the client went away
            exchange.end("gone")
            desk.close(exchange)
            return Response(status_code=499)
    except BaseException:
        desk.close(exchange)
        raise
    headers = {"x-request-id": exchange.id}
    if not asked.stream:
        desk.close(exchange)
        return JSONResponse(answers.whole(exchange, piece), headers=headers)
    until = arrived + desk.limits.seconds
    return EventStream(_events(desk, exchange, piece), lambda: desk.close(exchange), exchange, headers, until)


async def _body(request: Request) -> bytes:
    """Raises Fault: it is too large, or too slow."""
    body = b""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > MOST_SENT:
                    raise Fault(413, f"A request may have {MOST_SENT:,} bytes.", code="too_large")
    except TimeoutError:
        raise Fault(408, f"The request was not whole within {BODY_SECONDS} seconds.") from None
    return body


async def _events(desk: Desk, exchange: Exchange, piece: Piece) -> AsyncIterator[bytes]:
    """The server-sent events of an answer."""
    for body in answers.opening(exchange):
        yield answers.event(body)
    try:
        while True:
            for body in answers.part(exchange, piece):
                yield answers.event(body)
            if piece.finish:
                break
            piece = await desk.within_time(exchange, exchange.next())
    except Fault as fault:
        yield answers.event(fault.body)
        return
    yield answers.DONE

"""One request on its way through the server: what the engine's thread tells, as the event loop takes it."""

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from agent.errors import NesyLoraError
from agent.records.served import ServedRequest
from tools.continuous.row import Choice, Ended, Row
from ui.serve.faults import Fault
from ui.serve.models import Served
from ui.serve.requests import Asked
from ui.serve.text import AnswerText

BEHIND = 512  # pieces that wait for a reader; one that falls further behind is dropped
Finish = Literal["stop", "length", "gone", "slow", "timeout", "failed"]


@dataclass(frozen=True)
class Piece:
    """A part of an answer.

    Attributes:
        choices: the tokens chosen since the last piece, if log-probabilities are wanted.
        finish: why the answer ends with it; None: it goes on.
    """

    text: str
    choices: Sequence[Choice] = ()
    finish: Ended | None = None


class Exchange:
    """A request and its answer. Satisfies `tools.continuous.row.Reader`; those methods are the engine's.

    Args:
        own_prompt: the client's messages brought a prompt of their own.
    """

    def __init__(
        self, asked: Asked, served: Served, ids: list[int], own_prompt: bool, arrived: float, prefix: str
    ) -> None:
        self.id = f"{prefix}-{uuid.uuid4().hex}"
        self.asked, self.served, self.own_prompt = asked, served, own_prompt
        self.created = int(time.time())
        self.arrived = arrived
        self.first: float | None = None  # when its first piece came; seconds of time.monotonic()
        self.finish: Finish | None = None
        self.row = Row(ids, asked.max_new_tokens or served.max_new_tokens, self, asked.sampling)
        self._text = _text(asked, served)
        self._choices: list[Choice] = []
        self._pieces: deque[Piece | Fault] = deque()
        self._news = asyncio.Event()
        self.dropped = asyncio.Event()  # because its client reads too slowly
        self._loop = asyncio.get_running_loop()

    # --- the engine's thread ---

    def token(self, choice: Choice) -> bool:
        stopped = self._text.add(choice.token, self.asked.stream)
        if self.asked.sampling.logprobs is not None:
            self._choices.append(choice)
        if self.asked.stream and not stopped and (text := self._text.piece()):
            self._tell(Piece(text, self._taken()))
        return stopped

    def ended(self, reason: Ended) -> None:
        self._tell(Piece(self._text.rest(), self._taken(), reason))

    def failed(self, error: NesyLoraError) -> None:
        self._tell(Fault(503, str(error), code="not_answered"))

    def _taken(self) -> list[Choice]:
        taken, self._choices = self._choices, []
        return taken

    def _tell(self, piece: "Piece | Fault") -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._put, piece)

    # --- the event loop ---

    def _put(self, piece: "Piece | Fault") -> None:
        if self.finish:
            return
        self.first = self.first or time.monotonic()
        if len(self._pieces) >= BEHIND and isinstance(piece, Piece):
            self._pieces.clear()
            piece = Fault(408, f"The client was {BEHIND} pieces behind with reading, so it was dropped.", code="slow")
            self.end("slow")
            self.dropped.set()
        elif isinstance(piece, Fault):
            self.end("failed")
        elif piece.finish:
            self.end(piece.finish)
        self._pieces.append(piece)
        self._news.set()

    async def next(self) -> Piece:
        """The next piece. Raises Fault: none will come."""
        while not self._pieces:
            self._news.clear()
            await self._news.wait()
        piece = self._pieces.popleft()
        if isinstance(piece, Fault):
            raise piece
        return piece

    def end(self, finish: Finish) -> None:
        """It is over; a row that is still answered leaves. The first reason counts."""
        self.finish = self.finish or finish
        self.row.gone.set()

    @property
    def text(self) -> str:
        """The answer so far."""
        return self._text.whole

    def record(self) -> ServedRequest:
        """For the log."""
        asked, served = self.asked, self.served
        seconds = time.monotonic() - self.arrived
        return ServedRequest(
            time=datetime.fromtimestamp(self.created, UTC),
            request=self.id,
            model=served.name,
            prompt=served.prompt.id,
            adapter=served.pair.adapter is not None,
            messages=asked.messages,
            text=asked.text if isinstance(asked.text, str) else served.text_of(asked.text),
            own_prompt=self.own_prompt,
            answer=self.text,
            finish=self.finish or "gone",
            stopped_at=self._text.ended_by,
            temperature=asked.sampling.temperature,
            prompt_tokens=len(self.row.prompt),
            completion_tokens=self.row.generated,
            seconds=round(seconds, 3),
        )


def _text(asked: Asked, served: Served) -> AnswerText:
    render = served.render
    plain = asked.chat and not render.tokenizer.chat_template
    output: Callable[[list[int]], str] = render.text_of if plain else render.output
    return AnswerText(output if asked.chat else served.text_of, asked.stops, plain)

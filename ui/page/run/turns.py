"""talk.jsonl: what was said to a run on the page, and what was answered, so that it stands there after a reload."""

import os
import re
from contextlib import suppress
from datetime import UTC, datetime

from pydantic import Field, ValidationError

from agent.records.base import Record
from eval.feedback.redaction import without_keys
from memory.run.folder import RunFolder
from memory.storage.disk import append_line, lines_from
from memory.storage.lock import held_shortly
from ui.talk.lines import Line

SECRET = re.compile(r"KEY|TOKEN|PASSWORD|SECRET", re.IGNORECASE)  # in the name of an environment variable
SHORTEST = 8  # signs of a secret; what is shorter may be any word
WAIT = 10.0  # seconds for another server that writes, too


class Turn(Record):
    """What a user said, and the lines that it was answered by."""

    time: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(), description="ISO 8601, UTC")
    said: str
    heard: tuple[Line, ...] = ()
    seen: str = Field("", description="the mark of the plan that the conversation had shown last")

    @property
    def asks(self) -> str:
        """The question at its end, which yes or no answers; empty if there is none."""
        return self.heard[-1].text if self.heard and self.heard[-1].kind == "ask" else ""


def keep(run: RunFolder, turn: Turn) -> None:
    """Write a turn, without the secrets in it.

    Raises:
        NesyLoraError: the disk is full.
    """
    heard = tuple(line._replace(text=_without_secrets(line.text)) for line in turn.heard)
    kept = turn.model_copy(update={"said": _without_secrets(turn.said), "heard": heard})
    with held_shortly(run.talk, f"The talk of run {run.name}", WAIT):
        append_line(run.talk, kept.model_dump_json(), sync=False)


def turns_from(run: RunFolder, offset: int) -> tuple[list[Turn], int]:
    """The turns behind a byte offset, and the offset behind them; what cannot be read is left out."""
    lines, behind = lines_from(run.talk, offset)
    turns = list[Turn]()
    for line in lines:
        with suppress(ValidationError):  # damaged, or of another version
            turns.append(Turn.model_validate_json(line))
    return turns, max(0, behind)  # below 0, there is no file yet


def _without_secrets(text: str) -> str:
    for name, value in os.environ.items():
        if SECRET.search(name) and len(value) >= SHORTEST:
            text = text.replace(value, f"[{name}]")
    return without_keys(text)

"""The limits of a run, and how a user extends them while it works or after it has ended."""

from typing import Literal

from pydantic import Field

from agent.records.base import Record


class Limits(Record):
    """What ends a run: its budget and its target. None: no limit."""

    rounds: int = Field(ge=0, le=10_000)
    minutes: float | None = Field(None, gt=0)
    usd: float | None = Field(None, ge=0)
    train_tokens: int | None = Field(None, gt=0)
    llm_tokens: int | None = Field(None, gt=0)
    target: float | None = Field(None, gt=0, le=1, description="validation reward; None only where it is not known")


class Extension(Record):
    """A row of the ledger: a user has set other limits, which hold from here on."""

    number: int = Field(description="1 for the first of the run")
    limits: Limits = Field(description="all that hold now, also those that stayed")
    reopened: bool = Field(
        False, description="whether the run had ended: it goes on, and the outcome before it stays, as seen"
    )
    by: Literal["", "user", "queue"] = Field("", description="who set them; empty in older ledgers")

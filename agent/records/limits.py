"""The limits of a run, and how a user extends them while it works or after it has ended."""

from typing import Annotated, Literal

from pydantic import Field

from agent.records.base import Record

ROUNDS = Field(ge=0, le=10_000, description="trainings, edits and the like, kept or not")
Minutes = Annotated[float | None, Field(gt=0, description="of work; pauses do not count")]
TrainTokens = Annotated[int | None, Field(gt=0, description="tokens trained, padding aside")]
Usd = Annotated[float | None, Field(ge=0, description="for the external LLM, and for the answers of `engine: openai`")]
LlmTokens = Annotated[
    int | None, Field(gt=0, description="of the external LLM and of `engine: openai`, read and written")
]
TARGET = Field(gt=0, le=1, description="validation reward at which the run is done")


class OtherLimits(Record):
    """Limits that a user may set, by the names that every face has for them. None: as it is.

    They hold for the whole run, what is done and used up included.
    """

    rounds: Annotated[int | None, ROUNDS] = None
    minutes: Minutes = None
    usd: Usd = None
    train_tokens: TrainTokens = None
    llm_tokens: LlmTokens = None
    target: Annotated[float | None, TARGET] = None

    @property
    def named(self) -> dict[str, float]:
        """Those that are set."""
        return {name: value for name in OtherLimits.model_fields if (value := getattr(self, name)) is not None}


class Limits(OtherLimits):
    """What ends a run: its budget and its target. None: no limit; of the target, that it is not known."""

    rounds: Annotated[int, ROUNDS]


class Extension(Record):
    """A row of the ledger: a user has set other limits, which hold from here on."""

    number: int = Field(description="1 for the first of the run")
    limits: Limits = Field(description="all that hold now, also those that stayed")
    reopened: bool = Field(
        False, description="whether the run had ended: it goes on, and the outcome before it stays, as seen"
    )
    by: Literal["", "user", "queue"] = Field("", description="who set them; empty in older ledgers")

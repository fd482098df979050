"""What is measured, and what came of it: one line on disk for each contender, cell and lap."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from agent.records.base import Record


class Place(Record):
    """Which model, and where it runs."""

    model: str
    device: Literal["cpu", "cuda"]


class TrainingCell(Record):
    """Optimizer steps over the same `batch` rows; the first one warms up and is not counted."""

    kind: Literal["training"] = "training"
    prefix: int = Field(description="tokens all rows share, about; 0 for rows that begin differently")
    batch: int
    steps: int = Field(ge=2, le=20)

    @property
    def work(self) -> int:
        """About how many tokens the plain way runs in a step."""
        return self.batch * (self.prefix + 32)


class AnswerCell(Record):
    """Greedy answers to `rows` questions under one prompt."""

    kind: Literal["answers"] = "answers"
    prefix: int
    rows: int = 64
    new: int = Field(12, description="most tokens of an answer; above 12 the demonstrations show long answers")
    adapter: bool = False
    batch_size: int = 32

    @property
    def work(self) -> int:
        """About how many tokens the plain way runs; one that is decoded costs as much as a few that are read."""
        return self.rows * (self.prefix + 24 + 4 * self.new)


Cell = Annotated[TrainingCell | AnswerCell, Field(discriminator="kind")]


class Trained(Record):
    """`seconds` of each counted step; `tokens` as the plain way counts them, padding left out; `memory` in bytes."""

    kind: Literal["trained"] = "trained"
    seconds: tuple[float, ...]
    loss: float = Field(description="of the last step, nats per token")
    tokens: int
    prefix: int = Field(description="tokens before the questions, as they really are")
    memory: int


class Answered(Record):
    """`seconds` for all rows; `generated` counts each row's tokens, its end included; `memory` in bytes."""

    kind: Literal["answered"] = "answered"
    seconds: float
    texts: tuple[str, ...]
    generated: tuple[int, ...]
    prefix: int
    memory: int


class Floor(Record):
    """What the arithmetic needs and what the device gives.

    flops: of a training step, or of reading the prompts; each further decoding step of `rows` rows takes
    `step_flops` and reads `step_bytes`. Rates in FLOP/s: `shaped` in products of the shapes at hand, `square` in
    the best square one. `bandwidth` in bytes/s.
    """

    kind: Literal["floor"] = "floor"
    flops: float
    shaped: float
    square: float
    bandwidth: float
    rows: int = 0
    step_flops: float = 0.0
    step_shaped: float = 0.0
    step_bytes: float = 0.0

    def least_seconds(self, generated: Sequence[int] = ()) -> float:
        """The least time of it all at the measured rates. `generated`: each answer's tokens, of which reading the
        prompt gives the first."""
        start = self.flops / self.shaped
        decoded = max(0, sum(generated) - len(generated))
        if not decoded:
            return start
        step = max(self.step_flops / self.step_shaped, self.step_bytes / self.bandwidth)
        return start + decoded / self.rows * step


class LeftOut(Record):
    """Why a contender has no number here."""

    kind: Literal["left out"] = "left out"
    why: str


Outcome = Annotated[Trained | Answered | Floor | LeftOut, Field(discriminator="kind")]


class Line(Record):
    """One measurement."""

    cell: Cell
    contender: str
    lap: int
    outcome: Outcome


class Machine(Record):
    """What the numbers hold for."""

    date: str
    command: str
    commit: str
    processor: str
    cores: int
    memory: int = Field(description="bytes")
    device: str
    dtype: str
    model: str
    versions: dict[str, str]

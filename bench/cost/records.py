"""What is measured, and what came of it: one line of lines.jsonl for each contender, cell and lap."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from agent.records.base import Record
from memory.storage.disk import whole_lines


class ModelSpec(Record):
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
        """About how many tokens the plain loop runs in a step."""
        return self.batch * (self.prefix + 32)

    @property
    def title(self) -> str:
        return f"training, prefix {self.prefix}, batch {self.batch}"


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
        """About how many tokens plain `generate` runs; a decoded one costs as much as a few that are read."""
        return self.rows * (self.prefix + 24 + 4 * self.new)

    @property
    def title(self) -> str:
        adapter = " with an adapter" if self.adapter else ""
        return f"{self.rows} answers of at most {self.new} tokens, prefix {self.prefix}{adapter}"


Cell = Annotated[TrainingCell | AnswerCell, Field(discriminator="kind")]


class Trained(Record):
    """`seconds` of each counted step; `tokens` as the plain loop runs them, without padding; `memory` in bytes."""

    kind: Literal["trained"] = "trained"
    seconds: tuple[float, ...]
    loss: float = Field(description="of the last step, nats per token")
    tokens: int
    prefix: int = Field(description="tokens before the questions, as measured")
    memory: int

    @property
    def duration(self) -> float:
        """Seconds of the median step."""
        return median(self.seconds)


class Answered(Record):
    """`seconds` for all rows; `generated` counts each row's tokens, its end included; `memory` in bytes."""

    kind: Literal["answered"] = "answered"
    seconds: float
    texts: tuple[str, ...]
    generated: tuple[int, ...]
    prefix: int
    memory: int

    @property
    def duration(self) -> float:
        """Seconds for all rows."""
        return self.seconds


class Floor(Record):
    """What the arithmetic needs, and what the device gives.

    `flops` are of a training step, or of reading the prompts. Each further decoding step of `rows` rows takes
    `step_flops` and reads `step_bytes`. Rates are in FLOP/s: `shaped` in matrix products of the model's shapes,
    `step_shaped` in those of a decoding step, `square` in the best square product. `bandwidth` is in bytes/s.
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
        """The least time of all of it at the measured rates.

        Args:
            generated: tokens of each answer; reading the prompt gives the first one.
        """
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


Measurement = Annotated[Trained | Answered | Floor | LeftOut, Field(discriminator="kind")]


class Line(Record):
    """One contender in one cell, in one lap."""

    cell: Cell
    contender: str
    lap: int
    outcome: Measurement


def read(file: Path) -> list[Line]:
    """The lines so far; a line that was cut off by a kill is skipped."""
    lines = []
    for text in whole_lines(file):
        try:
            lines.append(Line.model_validate_json(text))
        except ValidationError:
            continue
    return lines

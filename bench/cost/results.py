"""What was measured in a cell, over all laps and contenders: from lines to the numbers of the tables."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

from agent.records.base import Record
from bench.cost.plan import FLOOR
from bench.cost.records import AnswerCell, Answered, Cell, Floor, LeftOut, Line, Trained, TrainingCell

T = TypeVar("T", bound=Record)
OURS = "ours"


@dataclass(frozen=True)
class Speedup:
    """How many times faster ours is: best lap against best lap, and the two ends of lap against lap."""

    best: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.best:.2f} × [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True)
class CellResults:
    """All lines of one cell."""

    cell: Cell
    lines: tuple[Line, ...]

    def outcomes(self, contender: str, kind: type[T]) -> list[T]:
        """The contender's outcomes of this kind, lap by lap."""
        return list(self._by_lap(contender, kind).values())

    def _by_lap(self, contender: str, kind: type[T]) -> dict[int, T]:
        own = [line for line in self.lines if line.contender == contender]
        return {line.lap: line.outcome for line in own if isinstance(line.outcome, kind)}

    def _pairs(self, peer: str, kind: type[T]) -> list[tuple[T, T]]:
        """Ours and the peer's, of the laps that both have."""
        mine, theirs = self._by_lap(OURS, kind), self._by_lap(peer, kind)
        return [(mine[lap], theirs[lap]) for lap in mine if lap in theirs]

    def runs(self, contender: str) -> list[Trained | Answered]:
        """Its measured laps."""
        return [*self.outcomes(contender, Trained), *self.outcomes(contender, Answered)]

    def median(self, contender: str, get: Callable[[Trained | Answered], float]) -> float | None:
        """The median over its laps, or None where it was left out."""
        values = [get(run) for run in self.runs(contender)]
        return median(values) if values else None

    def seconds(self, contender: str) -> float | None:
        """Of a step, or of all answers, in the best lap: other work on the machine only ever adds to it."""
        return min((run.duration for run in self.runs(contender)), default=None)

    def rate(self, contender: str) -> float | None:
        """Rows per second in the best lap, or None where it was left out."""
        seconds = self.seconds(contender)
        return self.rows / seconds if seconds else None

    def speedup(self, peer: str) -> Speedup | None:
        """None where either was left out."""
        pairs: list[tuple[Trained | Answered, Trained | Answered]]
        pairs = [*self._pairs(peer, Trained), *self._pairs(peer, Answered)]
        if not pairs:
            return None
        durations = [(mine.duration, theirs.duration) for mine, theirs in pairs]
        best, best_of_peer = (min(side) for side in zip(*durations, strict=True))
        by_lap = [theirs / mine for mine, theirs in durations]
        return Speedup(best_of_peer / best, min(by_lap), max(by_lap))

    def why_left_out(self, contender: str) -> str:
        """Empty where it was not."""
        return next((outcome.why for outcome in self.outcomes(contender, LeftOut)), "")

    @property
    def rows(self) -> int:
        """Rows of a step, or of all answers."""
        return self.cell.batch if isinstance(self.cell, TrainingCell) else self.cell.rows

    @property
    def prefix(self) -> int:
        """Tokens before the questions; as asked for where nothing was measured."""
        return next((run.prefix for run in self.runs(OURS)), self.cell.prefix)

    @property
    def floor(self) -> Floor | None:
        """The rates of the best lap."""
        return max(self.outcomes(FLOOR, Floor), key=lambda floor: floor.square, default=None)

    @property
    def least_seconds(self) -> float | None:
        """The floor's seconds for what ours does here."""
        runs = self.runs(OURS)
        if not runs or not self.floor:
            return None
        return self.floor.least_seconds(runs[0].generated if isinstance(runs[0], Answered) else ())

    @property
    def share_of_floor(self) -> float | None:
        """The floor's seconds over ours, in [0, 1]."""
        seconds, least = self.seconds(OURS), self.least_seconds
        return least / seconds if least is not None and seconds else None

    def same_texts(self, peer: str) -> int | None:
        """How many of the peer's texts are ours, in the worst lap."""
        pairs = self._pairs(peer, Answered)
        return min((sum(map(str.__eq__, mine.texts, theirs.texts)) for mine, theirs in pairs), default=None)

    def loss(self, contender: str) -> float | None:
        """Of the last step, nats per token."""
        return next((run.loss for run in self.outcomes(contender, Trained)), None)


def by_cell(lines: Sequence[Line]) -> list[CellResults]:
    """Lines gathered by cell, in the order in which the cells were measured."""
    cells = dict.fromkeys(line.cell for line in lines)
    return [CellResults(cell, tuple(line for line in lines if line.cell == cell)) for cell in cells]


def training(cells: Sequence[CellResults], prefix: int | None = None, batch: int | None = None) -> list[CellResults]:
    """The training cells, by prefix and batch; of this prefix or batch only, where given."""
    own = [(found.cell, found) for found in cells if isinstance(found.cell, TrainingCell)]
    return [
        found
        for cell, found in sorted(own, key=lambda pair: (pair[0].prefix, pair[0].batch))
        if prefix in (None, cell.prefix) and batch in (None, cell.batch)
    ]


def answers(cells: Sequence[CellResults]) -> list[CellResults]:
    """The answer cells, by prefix, length and adapter."""
    own = [(found.cell, found) for found in cells if isinstance(found.cell, AnswerCell)]
    return [found for cell, found in sorted(own, key=lambda pair: (pair[0].prefix, pair[0].new, pair[0].adapter))]

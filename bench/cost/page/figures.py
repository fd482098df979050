"""From lines to the figures of the tables."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

from agent.records.base import Record
from bench.cost.laps import took
from bench.cost.records import AnswerCell, Answered, Cell, Floor, LeftOut, Line, Trained, TrainingCell

T = TypeVar("T", bound=Record)
OURS = "ours"


@dataclass(frozen=True)
class Ratio:
    """How many times faster ours is: best lap against best lap, and the two ends of lap against lap."""

    best: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.best:.2f} × [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True)
class Measured:
    """All lines of one cell."""

    cell: Cell
    lines: tuple[Line, ...]

    def of(self, contender: str, kind: type[T]) -> list[T]:
        """The contender's outcomes of this kind, lap by lap."""
        return list(self._laps(contender, kind).values())

    def _laps(self, contender: str, kind: type[T]) -> dict[int, T]:
        own = [line for line in self.lines if line.contender == contender]
        return {line.lap: line.outcome for line in own if isinstance(line.outcome, kind)}

    def _pairs(self, peer: str, kind: type[T]) -> list[tuple[T, T]]:
        """Ours and the peer's, of the laps that both have."""
        mine, theirs = self._laps(OURS, kind), self._laps(peer, kind)
        return [(mine[lap], theirs[lap]) for lap in mine if lap in theirs]

    def runs(self, contender: str) -> list[Trained | Answered]:
        """Its measured laps."""
        return [*self.of(contender, Trained), *self.of(contender, Answered)]

    def value(self, contender: str, get: Callable[[Trained | Answered], float]) -> float | None:
        """The median over its laps, or None where it was left out."""
        values = [get(run) for run in self.runs(contender)]
        return median(values) if values else None

    def seconds(self, contender: str) -> float | None:
        """Of a step, or of all answers, in the best lap: whatever else the machine does only ever adds to it."""
        return min(map(took, self.runs(contender)), default=None)

    def ratio(self, peer: str) -> Ratio | None:
        """None where either was left out."""
        pairs: list[tuple[Trained | Answered, Trained | Answered]]
        pairs = [*self._pairs(peer, Trained), *self._pairs(peer, Answered)]
        if not pairs:
            return None
        mine, theirs = (min(map(took, side)) for side in zip(*pairs, strict=True))
        laps = [took(their) / took(my) for my, their in pairs]
        return Ratio(theirs / mine, min(laps), max(laps))

    def why_not(self, contender: str) -> str:
        """Why it was left out, or nothing."""
        return next((outcome.why for outcome in self.of(contender, LeftOut)), "")

    @property
    def examples(self) -> int:
        """Rows of a step, or of all answers."""
        return self.cell.batch if isinstance(self.cell, TrainingCell) else self.cell.rows

    @property
    def prefix(self) -> int:
        """Tokens before the questions; as asked where nothing was measured."""
        return next((run.prefix for run in self.runs(OURS)), self.cell.prefix)

    @property
    def floor(self) -> Floor | None:
        """The rates of the best lap."""
        return max(self.of("floor", Floor), key=lambda floor: floor.square, default=None)

    @property
    def least(self) -> float | None:
        """The floor's seconds for what ours does here."""
        runs = self.runs(OURS)
        if not runs or not self.floor:
            return None
        return self.floor.least_seconds(runs[0].generated if isinstance(runs[0], Answered) else ())

    @property
    def share(self) -> float | None:
        """The floor's seconds over ours, in [0, 1]."""
        seconds = self.seconds(OURS)
        return self.least / seconds if self.least is not None and seconds else None

    def same_texts(self, peer: str) -> int | None:
        """How many of the peer's texts are ours, in the worst lap."""
        pairs = self._pairs(peer, Answered)
        return min((sum(map(str.__eq__, mine.texts, theirs.texts)) for mine, theirs in pairs), default=None)

    def loss(self, contender: str) -> float | None:
        """Of the last step, nats per token."""
        return next((run.loss for run in self.of(contender, Trained)), None)


def by_cell(lines: Sequence[Line]) -> list[Measured]:
    """Lines gathered by cell, in the order in which the cells were measured."""
    cells = dict.fromkeys(line.cell for line in lines)
    return [Measured(cell, tuple(line for line in lines if line.cell == cell)) for cell in cells]


def training(cells: Sequence[Measured]) -> list[Measured]:
    """The training cells, by prefix and batch."""
    own = [(one.cell, one) for one in cells if isinstance(one.cell, TrainingCell)]
    return [one for cell, one in sorted(own, key=lambda pair: (pair[0].prefix, pair[0].batch))]


def answers(cells: Sequence[Measured]) -> list[Measured]:
    """The answer cells, by prefix, length and adapter."""
    own = [(one.cell, one) for one in cells if isinstance(one.cell, AnswerCell)]
    return [one for cell, one in sorted(own, key=lambda pair: (pair[0].prefix, pair[0].new, pair[0].adapter))]

"""From the lines of a cell to the numbers of the tables: every contender over all its laps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import NamedTuple

from bench.cost.plan import FLOOR
from bench.cost.records import AnswerCell, Answered, Cell, Floor, LeftOut, Line, Measurement, Trained, TrainingCell

OURS = "ours"
Run = Trained | Answered


class Speedup(NamedTuple):
    """How many times faster ours is: best lap against best lap, and the two ends of lap against lap."""

    best: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.best:.2f} × [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True)
class ContenderResults:
    """A contender in a cell. None: it was left out, or the number has no meaning here.

    seconds: of a step, or of all answers, in the best lap: other work on the machine only ever adds to it.
    rate: rows per second in the best lap.
    tokens_per_second: of training, as the plain loop runs them, without padding.
    loss: of the last step, nats per token.
    memory: bytes, the median over its laps.
    speedup: of ours over this one, in the laps that both have.
    same_texts: how many of its answers are ours, in the worst lap.
    """

    seconds: float | None = None
    rate: float | None = None
    tokens_per_second: float | None = None
    loss: float | None = None
    memory: float | None = None
    speedup: Speedup | None = None
    same_texts: int | None = None
    why_left_out: str = ""


@dataclass(frozen=True)
class CellResults:
    """A cell over all contenders.

    rows: of a step, or of all answers.
    prefix: tokens before the questions; as asked for where nothing was measured.
    floor: its rates of the best lap; `least_seconds` is its time for what ours does here.
    mean_generated: tokens of our answers.
    """

    cell: Cell
    rows: int
    prefix: int
    contenders: Mapping[str, ContenderResults]
    floor: Floor | None
    least_seconds: float | None
    mean_generated: float | None

    def of(self, contender: str) -> ContenderResults:
        """Without numbers where there is no line of it."""
        return self.contenders.get(contender, ContenderResults())

    @property
    def share_of_floor(self) -> float | None:
        """The floor's seconds over ours, in [0, 1]."""
        seconds = self.of(OURS).seconds
        return self.least_seconds / seconds if self.least_seconds is not None and seconds else None


def by_cell(lines: Sequence[Line]) -> list[CellResults]:
    """The results of each cell, in the order in which the cells were measured."""
    cells = dict.fromkeys(line.cell for line in lines)
    return [_cell_results(cell, [line for line in lines if line.cell == cell]) for cell in cells]


def _cell_results(cell: Cell, lines: Sequence[Line]) -> CellResults:
    outcomes: dict[str, dict[int, Measurement]] = {}
    for line in lines:
        outcomes.setdefault(line.contender, {})[line.lap] = line.outcome
    ours = {lap: run for lap, run in outcomes.get(OURS, {}).items() if isinstance(run, Run)}
    rows = cell.batch if isinstance(cell, TrainingCell) else cell.rows
    floors = [floor for floor in outcomes.get(FLOOR, {}).values() if isinstance(floor, Floor)]
    floor = max(floors, key=lambda floor: floor.square, default=None)
    run = next(iter(ours.values()), None)
    generated = run.generated if isinstance(run, Answered) else ()
    return CellResults(
        cell=cell,
        rows=rows,
        prefix=run.prefix if run else cell.prefix,
        contenders={name: _contender_results(rows, ours, laps) for name, laps in outcomes.items()},
        floor=floor,
        least_seconds=floor.least_seconds(generated) if run and floor else None,
        mean_generated=fmean(generated) if generated else None,
    )


def _contender_results(rows: int, ours: Mapping[int, Run], laps: Mapping[int, Measurement]) -> ContenderResults:
    runs = {lap: outcome for lap, outcome in laps.items() if isinstance(outcome, Run)}
    if not runs:
        why = next((outcome.why for outcome in laps.values() if isinstance(outcome, LeftOut)), "")
        return ContenderResults(why_left_out=why)
    seconds = min(run.duration for run in runs.values())
    trained = [run for run in runs.values() if isinstance(run, Trained)]
    pairs = [(ours[lap], runs[lap]) for lap in ours if lap in runs]
    same = [
        sum(map(str.__eq__, mine.texts, theirs.texts))
        for mine, theirs in pairs
        if isinstance(mine, Answered) and isinstance(theirs, Answered)
    ]
    return ContenderResults(
        seconds=seconds,
        rate=rows / seconds,
        tokens_per_second=trained[0].tokens / seconds if trained else None,
        loss=trained[0].loss if trained else None,
        memory=median(run.memory for run in runs.values()),
        speedup=_speedup([(mine.duration, theirs.duration) for mine, theirs in pairs]) if pairs else None,
        same_texts=min(same, default=None),
    )


def _speedup(durations: Sequence[tuple[float, float]]) -> Speedup:
    best, best_of_peer = (min(side) for side in zip(*durations, strict=True))
    by_lap = [theirs / mine for mine, theirs in durations]
    return Speedup(best_of_peer / best, min(by_lap), max(by_lap))


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

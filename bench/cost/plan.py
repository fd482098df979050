"""Which cells are measured, and which contenders in each."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bench.cost.records import AnswerCell, Cell, TrainingCell

TRAINERS = ("ours", "plain", "trl")
ANSWERERS = ("ours", "generate", "generate_sorted", "pipeline")
FLOOR = "floor"
BATCHES = (1, 8, 64)
PREFIXES = (0, 80, 256, 1024)


@dataclass(frozen=True)
class Plan:
    """Cells from the smallest to the largest, laps over all of them, and the longest that a contender may take.

    `most_seconds_step` is for one step in training, `most_seconds_answers` for all rows of a cell.
    """

    cells: tuple[Cell, ...]
    laps: int = 2
    most_seconds_step: float = 40
    most_seconds_answers: float = 100


def full(device: Literal["cpu", "cuda"]) -> Plan:
    """The whole benchmark; on CPU, answers in fewer kinds, and fewer rows where they are slow."""
    training = [_training(prefix, batch, device) for batch in BATCHES for prefix in PREFIXES]
    cells = _sorted([*training, *_answers(device)])
    return Plan(cells, most_seconds_step=20) if device == "cpu" else Plan(cells, laps=3)


def quick(device: Literal["cpu", "cuda"]) -> Plan:
    """Three small cells."""
    training = [_training(0, 1, device), _training(80, 8, device)]
    return Plan(_sorted([*training, AnswerCell(prefix=80, rows=16, batch_size=16)]))


def contenders(cell: Cell) -> list[str]:
    """Those that are installed, ours first, then the floor."""
    names: Sequence[str] = TRAINERS if isinstance(cell, TrainingCell) else ANSWERERS
    return [*(name for name in names if name != "trl" or importlib.util.find_spec("trl")), FLOOR]


def _training(prefix: int, batch: int, device: str) -> TrainingCell:
    cell = TrainingCell(prefix=prefix, batch=batch, steps=12)
    if device == "cuda":
        return cell
    return cell.model_copy(update={"steps": 6 if cell.work < 300 else 3 if cell.work < 2000 else 2})


def _answers(device: str) -> list[AnswerCell]:
    if device == "cuda":
        kinds = [(new, adapter) for new in (12, 48) for adapter in (False, True)]
        return [AnswerCell(prefix=prefix, new=new, adapter=a) for prefix in PREFIXES[1:] for new, a in kinds]
    short = [AnswerCell(prefix=80), AnswerCell(prefix=80, adapter=True), AnswerCell(prefix=256)]
    return [*short, AnswerCell(prefix=256, rows=16, new=48), AnswerCell(prefix=1024, rows=8, batch_size=8)]


def _sorted(cells: Sequence[Cell]) -> tuple[Cell, ...]:
    return tuple(sorted(cells, key=lambda cell: (cell.kind != "training", cell.work)))

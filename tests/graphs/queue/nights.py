"""Queues of short runs, and a watcher that does something while they are worked on."""

from collections.abc import Callable
from pathlib import Path

from agent.records.queue import (
    Estimate,
    NightLimits,
    QueueBegun,
    QueueRow,
    Rate,
    TaskAdded,
    TaskEnded,
)
from eval.tasks.task import load_config
from graphs.control.steering import RunStatus
from memory.queue import QueueFolder, QueueState, now
from memory.run.folder import RunFolder

SHORT = ["policy=lora-only", "budget.rounds=1", "lora.epochs=1"]
LONG = ["policy=lora-only", "budget.rounds=2", "lora.epochs=20", "lora.batch_size=1", "lora.enough=0"]  # 80 steps
ONE_LONG = [*LONG, "budget.rounds=1"]  # so long that a training is not missed on a busy machine
AT_ONCE = (0.0,)  # two tries, one after the other


class Seen:
    """A watcher that keeps what it is told, and does something at a row or while a run works."""

    def __init__(self, at_row: Callable[[QueueRow], object] = bool, at_run: Callable[..., object] = bool) -> None:
        self.rows: list[QueueRow] = []
        self.stops = 0
        self._at_row, self._at_run = at_row, at_run

    def row(self, row: QueueRow, state: QueueState) -> None:
        self.rows.append(row)
        self._at_row(row)

    def run(self, run: RunFolder, status: RunStatus) -> None:
        self._at_run((run, status))

    def stopping(self) -> None:
        self.stops += 1

    @property
    def ends(self) -> list[tuple[int, str]]:
        return [(row.number, row.state) for row in self.rows if isinstance(row, TaskEnded)]


def run_of(queue: QueueFolder) -> RunFolder:
    """Of its first task."""
    return RunFolder.open(queue.root / queue.read().items[0].run)


def raise_(error: BaseException) -> None:
    raise error


def a_queue_whose_first_task_is_too_long(tasks: list[Path], root: Path) -> QueueFolder:
    """Of two; 20 minutes are left, and the first takes 30."""
    rate = Rate(answering=100, training=200, source="a test")
    short = Estimate(start=60, lora=60, edit=60, end=60, trained=1, rounds=6, rate=rate)
    queue = QueueFolder.create(root)
    rows: list[QueueRow] = [QueueBegun(time=now(), limits=NightLimits(minutes=20))]
    for number, (task, start) in enumerate(zip(tasks, (100 * 60 * 30, 60), strict=True), 1):
        own = load_config(task / "task.yaml").limits
        estimate = short.model_copy(update={"start": start})
        rows.append(
            TaskAdded(time=now(), number=number, name=task.name, task=str(task), overrides=tuple(LONG), limits=own,
                      estimate=estimate)
        )  # fmt: skip
    for row in rows:
        queue.append(lambda _, row=row: row)  # type: ignore[misc]
    return queue

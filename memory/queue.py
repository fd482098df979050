"""The folder of a queue of tasks: queue.jsonl says what is to be done and what became of it."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from pydantic import ValidationError

from agent.errors import BadInput
from agent.records.queue import (
    QUEUE_ROW,
    LimitsChanged,
    NightLimits,
    QueueBegun,
    QueueEnded,
    QueueRow,
    TaskAdded,
    TaskEnded,
    TaskSkipped,
    TaskSpent,
    TaskStarted,
    TaskStopped,
)
from agent.records.rounds import Spend
from memory.run.naming import new_folder
from memory.storage.disk import append_line, whole_lines
from memory.storage.lock import held

WAIT = 30.0  # seconds for another process that appends


class Item(NamedTuple):
    """A task of a queue, with all that has happened to it. `started` and `stopped` are in the order written.

    `used` is what each of its runs, by name, had used up when that was last noted.
    """

    added: TaskAdded
    started: tuple[TaskStarted, ...] = ()
    stopped: tuple[TaskStopped, ...] = ()
    ended: TaskEnded | None = None
    used: Mapping[str, Spend] = MappingProxyType({})

    @property
    def run(self) -> str:
        """The name of its run; empty before it was begun."""
        return self.started[-1].run if self.started else ""

    @property
    def put_off(self) -> bool:
        """Whether it waits until the others have had their turn."""
        return any(stop.then == "later" for stop in self.stopped)

    def after(self, row: TaskStarted | TaskSpent | TaskStopped | TaskEnded) -> "Item":
        """The task once this has happened to it, too."""
        match row:
            case TaskStarted():
                return self._replace(started=(*self.started, row))
            case TaskSpent():
                return self._replace(used=_with(self.used, row.run, row.spend))
            case TaskStopped():
                return self._replace(stopped=(*self.stopped, row))
            case TaskEnded():
                return self._replace(ended=row, used=_with(self.used, self.run, row.spend))


class QueueState(NamedTuple):
    """What the rows of a queue say together. `ended` is None while it is worked on, or waits to be."""

    limits: NightLimits
    notify: str
    items: tuple[Item, ...]
    begun: tuple[QueueBegun, ...]
    ended: QueueEnded | None
    skipped: tuple[TaskSkipped, ...] = ()

    @property
    def kept(self) -> list[Item]:
        """All tasks but those that a user has taken out."""
        return [item for item in self.items if item.ended is None or item.ended.state != "removed"]

    @property
    def open(self) -> list[Item]:
        """Tasks that are still to be worked on, in the order in which they have their turn."""
        return sorted((item for item in self.items if item.ended is None), key=lambda item: item.put_off)

    def behind(self, number: int) -> list[Item]:
        """Open tasks that have their turn after this one; all, where this one has ended."""
        items = self.open
        return items[next((place for place, item in enumerate(items, 1) if item.added.number == number), 0) :]


class QueueFolder:
    """`runs/queue-<time>/`: a queue, its page, and its log. What writes may raise NesyLoraError: the disk is full."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.name = self.path.name
        self.root = self.path.parent
        self.rows_file = self.path / "queue.jsonl"
        self.page = self.path / "index.html"
        self.console = self.path / "console.log"
        self.lock_path = self.path / "queue"  # with .lock and .holder behind it

    @classmethod
    def create(cls, root: Path, name: str | None = None) -> "QueueFolder":
        """A new queue under `root`. Raises BadInput: the name cannot be a folder's, or is taken."""
        return cls(new_folder(root, "queue", name))

    @classmethod
    def open(cls, path: Path) -> "QueueFolder":
        """The queue at `path`. Raises BadInput, with the nearest names, if there is none."""
        queue = cls(path)
        if not queue.rows_file.is_file():
            names = [other.name for other in queues(queue.root)]
            near = get_close_matches(queue.name, names, n=3, cutoff=0.4) or names[:3]
            hint = f"The nearest are: {', '.join(near)}." if near else f"There are no queues in {queue.root} yet."
            raise BadInput(f"There is no queue at {path}. {hint}")
        return queue

    def locked(self) -> AbstractContextManager[None]:
        """Works on the queue alone. Raises Busy, naming the holder, when another live process does."""
        return held(self.lock_path, f"The queue {self.name}")

    def append(self, row: Callable[[QueueState], QueueRow]) -> QueueRow:
        """Adds the row that is made of what stands there already; it is on the disk when this returns.

        Several processes may do this, one at a time: tasks are added to a queue that is worked on.
        """
        with self.alone():
            made = row(self.read())
            append_line(self.rows_file, made.model_dump_json(), sync=True)
            return made

    def alone(self) -> AbstractContextManager[None]:
        """While this is held, nobody adds a row. Raises Busy: another process does so, for too long."""
        return held(self.path / "rows", f"queue.jsonl of {self.name}", wait=WAIT)

    def read(self) -> QueueState:
        """All rows. A last line that a kill cut off does not count.

        Raises:
            BadInput: a whole line is not a row; names file and line.
        """
        rows = [self._parsed(line, number) for number, line in enumerate(whole_lines(self.rows_file), 1)]
        begun = [row for row in rows if isinstance(row, QueueBegun)]
        limits, items = NightLimits(), dict[int, Item]()
        for row in rows:
            match row:
                case QueueBegun():
                    limits, items = row.limits, {number: _again(item) for number, item in items.items()}
                case LimitsChanged():
                    limits = row.limits
                case TaskAdded():
                    items[row.number] = Item(row)
                case TaskStarted() | TaskSpent() | TaskStopped() | TaskEnded():
                    items[row.number] = items[row.number].after(row)
                case _:
                    pass
        last = rows[-1] if rows else None
        return QueueState(
            limits=limits,
            notify=begun[-1].notify if begun else "",
            items=tuple(items.values()),
            begun=tuple(begun),
            ended=last if isinstance(last, QueueEnded) else None,
            skipped=tuple(row for row in rows if isinstance(row, TaskSkipped)),
        )

    def _parsed(self, line: bytes, number: int) -> QueueRow:
        try:
            return QUEUE_ROW.validate_json(line)
        except ValidationError as error:
            raise BadInput(
                f"{self.rows_file}, line {number}: not a row of a queue ({error}). Take the line out, or put the file "
                "back from a copy."
            ) from error


def _with(used: Mapping[str, Spend], run: str, spend: Spend) -> Mapping[str, Spend]:
    """What is known of each run, and of this one no less than before: its folder may be gone."""
    before = used.get(run, Spend())
    return {**used, run: before + spend.beyond(before)}


def _again(item: Item) -> Item:
    """The task in a queue that is taken up again: what had failed is tried once more, and has all its tries."""
    failed = item.ended is not None and item.ended.state == "failed"
    return item._replace(ended=None, stopped=()) if failed or item.ended is None else item


def queues(root: Path) -> list[QueueFolder]:
    """All queues under `root`, newest first."""
    found = root.glob("*/queue.jsonl")
    return [QueueFolder(file.parent) for file in sorted(found, key=lambda file: -file.stat().st_ctime_ns)]


def now() -> datetime:
    """The time of a row."""
    return datetime.now(UTC)

"""What the commands do that change a queue, also while it is worked on."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from agent.errors import BadInput
from graphs.queue.changes import change_limits, remove_task, twin
from graphs.queue.making import add_task, next_time
from memory.queue import QueueFolder, now
from memory.run.naming import as_typed
from memory.storage.lock import holder
from ui.queue.page import write_page
from ui.queue.words import limits_in_words, say_remarks, say_that_tasks_are_read


def add(queue: QueueFolder, task: Path, overrides: Sequence[str]) -> int:
    """Put a task behind the others. Raises BadInput: it cannot be used."""
    say_that_tasks_are_read(1)
    row = add_task(queue, task, overrides)
    write_page(queue)
    say_remarks([row])
    print(f"{row.name} is task {row.number} of {queue.name}.")
    if same := twin(queue.read(), row.number):
        print(
            f"It waits there as task {same.added.number} already, so it will be worked on twice. To take one out: "
            f"nesylora queue remove {row.number} --queue {as_typed(queue.path)}"
        )
    _say_if_idle(queue)
    return 0


def remove(queue: QueueFolder, task: str) -> int:
    """Take a task out, by its number or name. Raises BadInput: see `graphs.queue.changes.remove_task`."""
    item = remove_task(queue, task)
    write_page(queue)
    print(f"Task {item.added.number} ({item.added.name}) is taken out of {queue.name}.")
    return 0


def extend(queue: QueueFolder, named: Mapping[str, str]) -> int:
    """Set other limits, by the names of the options; "none" lifts one. Raises BadInput: they cannot be."""
    if not named:
        raise BadInput("Name a limit, such as --until 08:00 or --minutes 90. (All: nesylora queue extend --help)")
    limits = change_limits(queue, {name.replace("-", "_"): _limit(name, value) for name, value in named.items()})
    write_page(queue)
    print(f"{queue.name}: {limits_in_words(limits)}")
    _say_if_idle(queue)
    return 0


def _limit(name: str, value: str) -> datetime | float | None:
    if value.lower() == "none":
        return None
    if name == "until":
        return next_time(value, now())
    try:
        return float(value)
    except ValueError:
        raise BadInput(f"--{name} {value}: {value!r} is no number; none lifts a limit") from None


def _say_if_idle(queue: QueueFolder) -> None:
    if not holder(queue.lock_path):
        print(f"Nobody works on the queue now: nesylora queue resume {as_typed(queue.path)}")

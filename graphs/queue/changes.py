"""A queue changed by a user, also while it is worked on: other limits for it, a task taken out."""

from collections.abc import Mapping
from datetime import datetime

from pydantic import ValidationError

from agent.errors import BadInput
from agent.records.queue import LimitsChanged, NightLimits, QueueRow, TaskEnded
from graphs.queue.making import refuse_unpriced
from memory.queue import Item, QueueFolder, QueueState, now
from memory.storage.lock import holder

Changes = Mapping[str, datetime | float | None]
"""Limits by the names of `NightLimits`; None lifts one."""


def change_limits(queue: QueueFolder, changes: Changes) -> NightLimits:
    """Let other limits hold for the whole queue. Who works on it lets them hold for the run under way, too.

    Raises:
        BadInput: a value that cannot be, nothing is changed, or money is limited and a task knows no price.
    """

    def row(state: QueueState) -> QueueRow:
        try:
            limits = NightLimits.model_validate(state.limits.model_dump() | dict(changes))
        except ValidationError as error:
            fault = error.errors()[0]
            name = str(fault["loc"][0]).replace("_", "-")
            raise BadInput(f"--{name} {fault['input']}: {fault['msg']}") from None
        if limits == state.limits:
            raise BadInput(f"Nothing is changed: these limits hold for queue {queue.name} already.")
        if limits.usd is not None:
            refuse_unpriced(queue, state.open)
        return LimitsChanged(time=now(), limits=limits)

    made = queue.append(row)
    assert isinstance(made, LimitsChanged), "as it was made"
    return made.limits


def remove_task(queue: QueueFolder, task: str) -> Item:
    """Take a task out of the queue: it is not worked on any more. What its run has used up still counts.

    Args:
        task: its number or its name.

    Raises:
        BadInput: there is no such task, several have that name, it has ended, or it is worked on.
    """
    found: list[Item] = []

    def row(state: QueueState) -> QueueRow:
        item = _named(state, task, queue.name)
        what = f"Task {item.added.number} ({item.added.name})"
        if item.ended:
            raise BadInput(f"{what} has ended already: it is {item.ended.state}.")
        if item.run and holder(queue.root / item.run / "run"):
            raise BadInput(f"{what} is worked on now, as run {item.run}. `nesylora ctl finish` ends the run.")
        found.append(item)
        return TaskEnded(time=now(), number=item.added.number, state="removed", reason="A user took it out.")

    queue.append(row)
    return found[0]


def twin(state: QueueState, number: int) -> Item | None:
    """Another task that waits, of the same file and with the same settings."""
    this = next(item.added for item in state.items if item.added.number == number)
    others = [item for item in state.open if item.added.number != number and not item.started]
    same = [item for item in others if (item.added.task, item.added.overrides) == (this.task, this.overrides)]
    return same[0] if same else None


def _named(state: QueueState, task: str, queue: str) -> Item:
    found = [item for item in state.kept if task in (str(item.added.number), item.added.name)]
    waiting = [item for item in found if item.ended is None]
    if len(found) == 1 or len(waiting) == 1:
        return (waiting or found)[0]
    each = [f"{item.added.number} {item.added.name}" for item in (found or state.kept)]
    fault = f"Several tasks are named {task}: give the number" if found else f"There is no task {task} in queue {queue}"
    raise BadInput(f"{fault}. Its tasks: {', '.join(each)}.")

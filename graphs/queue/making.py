"""Queues made and added to: every task is checked, and estimated, before anything begins."""

import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from agent.config.notify import Notify
from agent.errors import BadInput
from agent.records.queue import NightLimits, QueueBegun, QueueRow, TaskAdded, TaskSkipped
from agent.records.rounds import Spend
from eval.tasks.task import Task, load_config
from graphs.context import checked
from graphs.queue import needs
from graphs.queue.estimate import Untried, estimates
from graphs.queue.shares import left_of, spend_of
from memory.queue import Item, QueueFolder, QueueState, now
from memory.run.naming import as_typed
from memory.storage.lock import holder

JUST_PASSED = timedelta(hours=1)


def read_tasks(
    tasks: Sequence[Path],
    overrides: Sequence[str],
    limits: NightLimits,
    root: Path,
    try_out: bool = True,
    here: bool = True,
) -> list[TaskAdded]:
    """The rows of these tasks, numbered from 1, each with its estimate.

    Args:
        try_out: new ones, which loads their models.
        here: see `check_tasks`.

    Raises:
        BadInput: some cannot be used; all of them are named.
    """
    usable = check_tasks(tasks, overrides, limits, here)
    try:
        return _rows(usable, overrides, root, try_out)
    except Untried as error:
        faults = {tasks[place]: f"{tasks[place]}: {fault}" for place, fault in error.faults.items()}
        raise _refused(faults, tasks) from error


def check_tasks(
    tasks: Sequence[Path], overrides: Sequence[str], limits: NightLimits, here: bool = True
) -> list[tuple[Path, Task]]:
    """The tasks, read.

    Args:
        here: they will be worked on by this machine, which has to have what they need.

    Raises:
        BadInput: some cannot be used; all of them are named.
    """
    usable, faults = _sorted_out(tasks, overrides, limits, here)
    if faults:
        raise _refused(faults, tasks)
    return usable


def _sorted_out(
    tasks: Sequence[Path], overrides: Sequence[str], limits: NightLimits, here: bool = True
) -> tuple[list[tuple[Path, Task]], dict[Path, str]]:
    """Those that can be used; and why the others cannot."""
    usable, faults = [], dict[Path, str]()
    for path in tasks:
        try:
            task, _ = checked(path, overrides)
        except BadInput as error:
            faults[path] = str(error)
            continue
        lacking = needs.faults(task.config) if here else []
        if limits.usd is not None and task.config.unpriced:
            lacking.append(f"money is limited, which needs {task.config.unpriced} in the task")
        if lacking:
            faults[path] = "\n  ".join(f"{path}: {fault}" for fault in lacking)
        else:
            usable.append((path, task))
    return usable, faults


def _refused(faults: Mapping[Path, str], tasks: Sequence[Path]) -> BadInput:
    count = f"{len(faults)} of {len(tasks)} tasks cannot be used, so nothing was begun:\n  " if len(tasks) > 1 else ""
    return BadInput(count + "\n  ".join(faults.values()))


def _rows(
    usable: Sequence[tuple[Path, Task]], overrides: Sequence[str], root: Path, try_out: bool = True
) -> list[TaskAdded]:
    """Raises Untried: some cannot be worked on."""
    estimated = estimates([task for _, task in usable], root, try_out)
    return [
        TaskAdded(
            time=now(), number=number, name=task.config.name, task=str(path.resolve()),
            overrides=tuple(overrides), limits=task.config.limits, estimate=each,
        )
        for number, ((path, task), each) in enumerate(zip(usable, estimated, strict=True), 1)
    ]  # fmt: skip


def new_queue(
    tasks: Sequence[Path],
    limits: NightLimits,
    root: Path,
    overrides: Sequence[str] = (),
    name: str | None = None,
    notify: str = "",
    skip_broken: bool = False,
) -> QueueFolder:
    """A queue of these tasks, checked and estimated; nothing is worked on yet.

    Args:
        skip_broken: tasks that cannot be used are left out, as long as one can; the queue says which.

    Raises:
        BadInput: a task cannot be used, or not even one round of each fits into the limits; nothing was begun.
    """
    refuse_notify(notify)
    if skip_broken:
        rows, left_out = _those_left(tasks, overrides, limits, root)
    else:
        rows, left_out = read_tasks(tasks, overrides, limits, root), {}
    refuse_what_does_not_fit(rows, limits, Spend(), root)
    queue = QueueFolder.create(root, name)
    queue.append(lambda _: QueueBegun(time=now(), limits=limits, notify=notify))
    for task, reason in left_out.items():
        queue.append(partial(_as_it_is, TaskSkipped(time=now(), task=str(task), reason=" ".join(reason.split()))))
    for row in rows:
        queue.append(partial(_as_it_is, row))
    return queue


def _those_left(
    tasks: Sequence[Path], overrides: Sequence[str], limits: NightLimits, root: Path
) -> tuple[list[TaskAdded], dict[Path, str]]:
    """The rows of those that can be used; and why the others cannot. Raises BadInput: none can."""
    usable, faults = _sorted_out(tasks, overrides, limits)
    while usable:
        try:
            return _rows(usable, overrides, root), faults
        except Untried as error:
            faults |= {usable[place][0]: fault for place, fault in error.faults.items()}
            usable = [each for place, each in enumerate(usable) if place not in error.faults]
    raise _refused(faults, tasks)


def refuse_notify(notify: str) -> None:
    """Raises BadInput where nobody could be told as `--notify` says."""
    if faults := needs.notify_faults(Notify.of(notify)):
        raise BadInput(f"--notify: {faults[0]}")


def add_task(queue: QueueFolder, task: Path, overrides: Sequence[str] = ()) -> TaskAdded:
    """Put a task behind the others, also while the queue is worked on.

    Raises:
        BadInput: it cannot be used.
    """
    # While it is worked on, the model of a run is loaded: there may be no room for another.
    idle = holder(queue.lock_path) is None
    row = read_tasks([task], overrides, queue.read().limits, queue.root, try_out=idle)[0]

    def numbered(state: QueueState) -> QueueRow:
        return row.model_copy(update={"number": len(state.items) + 1})

    made = queue.append(numbered)
    assert isinstance(made, TaskAdded), "as it was made"
    return made


def take_up(queue: QueueFolder, limits: NightLimits, notify: str = "") -> QueueState:
    """Begin to work on a queue again, with what is named in `limits` in place of what held.

    Raises:
        BadInput: nothing is left to do, its time has passed, not even one round fits, or money is limited and a task
            knows no price.
    """
    refuse_notify(notify)
    state = queue.read()
    merged = state.limits.model_copy(update={name: value for name, value in limits if value is not None})
    held_out = [item for item in state.items if item.ended is None or item.ended.state == "failed"]
    if not held_out:
        raise BadInput(
            f"Queue {queue.name} is done. Its page: {queue.page}. Add a task with: nesylora queue add TASK --queue "
            f"{as_typed(queue.path)}"
        )
    if merged.until is not None and merged.until <= now():
        raise BadInput(
            f"Queue {queue.name} was to work until {merged.until.astimezone():%Y-%m-%d %H:%M}, which has passed. Give "
            "another time, such as --until 07:00"
        )
    if merged.usd is not None:
        refuse_unpriced(queue, held_out)
    rows = [item.added for item in held_out if not item.started]
    refuse_what_does_not_fit(rows, merged, spend_of(queue, state), queue.root)
    queue.append(lambda _: QueueBegun(time=now(), limits=merged, notify=notify or state.notify))
    return queue.read()


def refuse_what_does_not_fit(rows: Sequence[TaskAdded], limits: NightLimits, used: Spend, root: Path) -> None:
    """Raises BadInput where not even one round of each task fits into what is left, or the disk is too full."""
    left, known = left_of(limits, used, now()), [(row, row.estimate.least_minutes) for row in rows]
    needed = sum(minutes for _, minutes in known if minutes is not None)
    if left.minutes is not None and needed > left.minutes:
        each = ", ".join(f"{row.name} {minutes:.1f}" for row, minutes in known if minutes is not None)
        raise BadInput(
            f"Not even one round of each task fits: {max(left.minutes, 0):.1f} minutes are left {left.source}, and "
            f"start, one round and end take about {needed:.1f} ({each}). Give more time, or fewer tasks."
        )
    trained = min((row.estimate.trained for row in rows), default=0)
    if left.train_tokens is not None and left.train_tokens < trained:
        raise BadInput(
            f"Not even one training fits into {max(left.train_tokens, 0):,.0f} training tokens: one takes about "
            f"{trained:,}. Give more, or set no such limit."
        )
    there, asked = _existing(root), sum(row.estimate.disk for row in rows)
    free = shutil.disk_usage(there).free
    if free < asked:
        raise BadInput(
            f"{root} has {free / 1e9:.1f} GB of room left, and these runs may take {asked / 1e9:.1f} GB. Make room, or "
            "give another folder with --runs"
        )


def refuse_unpriced(queue: QueueFolder, items: Sequence[Item]) -> None:
    """Raises BadInput where the calls of a task, as it was begun, would count as free."""
    for item in items:
        begun = queue.root / item.run / "task.yaml"
        file, changes = (begun, ()) if item.run and begun.is_file() else (Path(item.added.task), item.added.overrides)
        try:
            unpriced = load_config(file, changes).unpriced
        except BadInput:  # said when its turn comes
            continue
        if unpriced:
            raise BadInput(
                f"{item.added.name}: money is limited, which needs {unpriced} in {file}. Put it there, or go on "
                "without --usd"
            )


def _as_it_is(row: QueueRow, state: QueueState) -> QueueRow:
    return row


def _existing(path: Path) -> Path:
    return next(place for place in (path, *path.resolve().parents) if place.exists())


def next_time(text: str, present: datetime, name: str = "--until", *, typed: bool = True) -> datetime:
    """The next moment at which clocks here show this.

    Args:
        text: such as 07:00, or 2026-11-28 07:00.
        name: what it is the value of, for messages.
        typed: by somebody who hardly means tomorrow by a time that was minutes ago.

    Raises:
        BadInput: it is no time, has passed, or is a time of the clock that has only just passed.
    """
    here = present.astimezone()
    for form in ("%H:%M", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M"):
        try:
            read = datetime.strptime(text, form)
        except ValueError:
            continue
        if form == "%H:%M":
            return _next_on_the_clock(text, read, here, name, typed)
        wanted = read.astimezone()
        if wanted <= here:
            raise BadInput(f"{name} {text} has passed: it is {here:%Y-%m-%d %H:%M} here")
        return wanted
    raise BadInput(f"{name} {text}: give a time such as 07:00, or a day and a time such as '2026-11-28 07:00'")


def _next_on_the_clock(text: str, read: datetime, here: datetime, name: str, typed: bool) -> datetime:
    # Without a zone: the clock may change until then.
    yesterday, today, tomorrow = (
        datetime.combine(here.date() + timedelta(days=days), read.time()) for days in (-1, 0, 1)
    )
    moments = [day.replace(fold=fold).astimezone() for day in (yesterday, today, tomorrow) for fold in (0, 1)]
    wanted = next(moment for moment in moments if moment > here)
    passed = [moment for moment in moments if moment <= here and moment.time() == read.time()]
    if typed and passed and here - max(passed) < JUST_PASSED and wanted - here > 12 * JUST_PASSED:
        raise BadInput(
            f"{name} {text} has just passed: it is {here:%H:%M} here. If the next day is meant, name it: "
            f"{name} '{wanted:%Y-%m-%d %H:%M}'"
        )
    return wanted

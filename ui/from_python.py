"""What `nesylora.py` does for people who write Python: runs to their end, or one event after the other."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import NamedTuple

from agent.errors import BadInput
from agent.protocols import Listener
from agent.records.events import Event, WorkProgressed
from agent.records.examples import Prompt
from agent.records.queue import NightLimits
from agent.records.rounds import Outcome
from memory.queue import Item, QueueFolder, now
from memory.run.folder import RunFolder

WAITS = 0.5  # seconds between two looks at a run that tells nothing


class Brought(NamedTuple):
    """What a run that has ended brought; the fields of `nesylora.Adapted`."""

    run: Path
    prompt: Prompt
    adapter: Path | None
    outcome: Outcome


class ToldTo:
    """A listener that hands every event, and all progress, to a function of one argument."""

    def __init__(self, function: Callable[[Event], object]) -> None:
        self._function = function

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        self._function(WorkProgressed(what=what, done=done, total=total, note=note))

    def event(self, event: Event) -> None:
        self._function(event)


def begun(task: Path, overrides: Sequence[str] | Mapping[str, object], runs: Path, name: str | None) -> RunFolder:
    """A new run of a task. Raises BadInput."""
    from graphs.context import new_run

    return new_run(task, settings(overrides), runs, name)


def settings(overrides: Sequence[str] | Mapping[str, object]) -> list[str]:
    """Overrides as the task reader takes them. Raises BadInput: one text in place of a list of them."""
    from eval.tasks.task import as_overrides

    if isinstance(overrides, str):
        raise BadInput(f"overrides={overrides!r}: give a list, such as [{overrides!r}], or a dictionary")
    return as_overrides(overrides) if isinstance(overrides, Mapping) else list(overrides)


def work(folder: RunFolder, listener: Listener | Callable[[Event], object] | None) -> Brought:
    """The run, worked on to its end in this thread. One that has ended is only read.

    Raises:
        NesyLoraError: it stopped otherwise.
    """
    from graphs.session import open_session
    from ui.report.write import write_report

    with open_session(folder, listener=_listening(listener), report=write_report) as session:
        session.go()
    return brought(folder)


def extend(folder: RunFolder, limits: Mapping[str, float | None]) -> None:
    """Set limits of a run that no process works on. Raises BadInput, Busy."""
    from eval.tasks.task import load_config
    from graphs.control.extension import extend_stopped

    extend_stopped(folder, load_config(folder.task_file), limits)


def events(folder: RunFolder) -> Iterator[Event]:
    """Everything that happens in a run, while a thread works on it. To stop early cuts the step under way off.

    Raises:
        NesyLoraError: the run stopped otherwise.
    """
    from graphs.control.driver import drive
    from ui.report.write import write_report

    told, over = SimpleQueue[Event](), False
    with drive(folder, listener=ToldTo(told.put), report=write_report) as driver:
        while not over:
            with suppress(Empty):
                yield told.get(timeout=WAITS)
                continue
            over = driver.wait(0)
        while not told.empty():
            yield told.get()


def brought(folder: RunFolder) -> Brought:
    """What a run that has ended brought."""
    outcome = folder.outcome()
    assert outcome is not None, "an unsupervised run ends with an outcome"
    best = outcome.best
    adapter = folder.adapter_folder(best.adapter) if best.adapter else None
    return Brought(folder.path, folder.prompt(best.prompt), adapter, outcome)


def queued(
    tasks: Sequence[str | Path],
    overrides: Sequence[str] | Mapping[str, object],
    runs: Path,
    *,
    until: str | None,
    minutes: float | None,
    usd: float | None,
    llm_tokens: int | None,
    train_tokens: int | None,
    notify: str,
    queue: str | Path | None,
    skip_broken: bool,
) -> Iterator[tuple[str, str, str, Brought | None]]:
    """Work through a queue; then, of each task, its name, what became of it, why, and what it brought.

    Args and errors as for `nesylora.adapt_all`.
    """
    from graphs.queue.foreman import Foreman
    from graphs.queue.making import new_queue, next_time, take_up
    from ui.queue.view import QuietQueue

    due = next_time(until, now(), "until") if until else None
    limits = NightLimits(until=due, minutes=minutes, usd=usd, llm_tokens=llm_tokens, train_tokens=train_tokens)
    if queue is None:
        named = [Path(task) for task in tasks]
        folder = new_queue(named, limits, runs, settings(overrides), notify=notify, skip_broken=skip_broken)
    else:
        folder = QueueFolder.open(Path(queue))
        take_up(folder, limits, notify)
    Foreman(folder, QuietQueue(folder)).work()
    state = folder.read()
    for item in state.items:
        yield _became(folder, item)
    for row in state.skipped:
        yield row.task, "left out", row.reason, None


def _became(folder: QueueFolder, item: Item) -> tuple[str, str, str, Brought | None]:
    from ui.queue.words import became

    if item.ended is None:
        return item.added.name, "waits", became(item), None
    done = item.ended.state == "finished"
    result = brought(RunFolder.open(folder.root / item.run)) if done else None
    return item.added.name, item.ended.state, item.ended.reason, result


def _listening(listener: Listener | Callable[[Event], object] | None) -> Listener | None:
    """A function of one argument as a listener."""
    return listener if listener is None or hasattr(listener, "event") else ToldTo(listener)  # type: ignore[return-value]

"""A run that tells others of its end, and of an error that stops it."""

from collections.abc import Iterator
from contextlib import contextmanager

from agent.config.notify import Notify
from agent.errors import NesyLoraError
from agent.records.rounds import Outcome, Spend
from graphs.control.watching import limits_of
from graphs.queue.shares import spent
from memory.run.folder import RunFolder
from ui import wording
from ui.telling.notify import Notice, tell


@contextmanager
def telling(folder: RunFolder, notify: Notify) -> Iterator[None]:
    """Around the work on a run. A run that was stopped by a user, or that had ended before, tells nothing."""
    had_ended = folder.outcome() is not None
    try:
        yield
    except NesyLoraError as error:
        tell(notify, of_trouble(folder, str(error)))
        raise
    outcome = folder.outcome()
    if outcome and not had_ended:
        tell(notify, of_end(folder, outcome))


def of_end(folder: RunFolder, outcome: Outcome) -> Notice:
    """What is told at the end."""
    first, rounds, target = folder.baseline(), folder.rounds(), limits_of(folder).target
    row = rounds[-1] if rounds else first
    reached = row is not None and target is not None and row.reward >= target
    before, after = outcome.baseline_test.reward, outcome.best_test.reward
    verdict = "reached its target" if reached else "ended below its target"
    return Notice(
        event="end", of="run", name=folder.name, task=folder.about.task, reached=reached, before=before, after=after,
        text=f"{folder.about.task} {verdict}: test reward {wording.number(before)} → {wording.number(after)} in "
        f"{wording.plural(len(rounds), 'round')}. {outcome.stopped}",
        spend=outcome.spend, page=str(folder.report_html),
    )  # fmt: skip


def of_trouble(folder: RunFolder, reason: str) -> Notice:
    """The notice of an error that stopped it."""
    begun = folder.path.exists()
    return Notice(
        event="trouble", of="run", name=folder.name, task=folder.about.task,
        text=f"Run {folder.name} has stopped: {reason}", spend=spent(folder) if begun else Spend(),
        page=str(folder.report_html) if begun and folder.report_html.exists() else "",
    )  # fmt: skip

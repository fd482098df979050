"""What a task may use of its queue's budget: what the later ones are not estimated to need. None of them keeps more
than an equal share of what is left, or the time of one round where that is longer."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from math import inf

from pydantic import Field

from agent.counting import plural
from agent.errors import BadInput
from agent.records.base import Record
from agent.records.limits import Extension, Limits
from agent.records.queue import Estimate, NightLimits, TaskAdded, counted
from agent.records.rounds import Baseline, Outcome, Round, Spend
from memory.queue import Item, QueueFolder, QueueState, queues
from memory.run.folder import RunFolder
from memory.run.ledger import outcome_of

SLACK = 1.0  # minutes by which a run's limit may differ from what it would be given now


class Left(Record):
    """What is left for all tasks that are still to be worked on. None: no limit."""

    minutes: float | None = None
    usd: float | None = None
    llm_tokens: float | None = None
    train_tokens: float | None = None
    source: str = Field("", description="what ends the minutes, in words")


def spent(run: RunFolder) -> Spend:
    """All that a run has used up, the step that a kill cut off and talk about the run included."""
    rows = run.known_rows()
    steps = [row for row in rows if isinstance(row, Baseline | Round)]
    ends = [row.spend for row in rows if isinstance(row, Outcome)]
    if outcome := outcome_of(rows):
        known = outcome.spend
    else:  # of a run that was opened again, the charges have the step that had ended it
        known = steps[-1].spend if steps else Spend()
        known += run.charges.beyond(len(steps) - 1 if steps else None)
        if ends:
            known += ends[-1].beyond(known)  # where the charges were lost
    calls = run.run_calls.known_usage() + run.chat_calls.known_usage()
    return known.model_copy(
        update={"llm_tokens": max(known.llm_tokens, calls.tokens), "usd": max(known.usd, calls.usd)}
    )


def spend_of(queue: QueueFolder, state: QueueState) -> Spend:
    """Of all runs of the queue, whatever became of them. Where a run's folder is gone, what was noted of it last."""
    total = Spend()
    for item in state.items:
        for name in dict.fromkeys(start.run for start in item.started):
            noted, folder = item.used.get(name, Spend()), queue.root / name
            total += noted + (spent(RunFolder(folder)).beyond(noted) if folder.exists() else Spend())
    return total


def left_of(limits: NightLimits, used: Spend, now: datetime) -> Left:
    """What is left of a queue's budget.

    Args:
        used: by all its runs so far.
    """
    minutes: list[tuple[float, str]] = []
    if limits.until is not None:
        minutes.append(((limits.until - now).total_seconds() / 60, f"until {limits.until.astimezone():%H:%M}"))
    if limits.minutes is not None:
        of = f"of {plural(limits.minutes, 'minute')} of work"
        minutes.append((limits.minutes - used.seconds / 60, of))
    least = min(minutes, default=(None, ""))
    return Left(
        minutes=least[0],
        source=least[1],
        usd=None if limits.usd is None else limits.usd - used.usd,
        llm_tokens=None if limits.llm_tokens is None else limits.llm_tokens - used.llm_tokens,
        train_tokens=None if limits.train_tokens is None else limits.train_tokens - used.train_tokens,
    )


def share_of(left: Left, later: Sequence[Item]) -> Left:
    """What the task whose turn it is may use of what is left, with these behind it."""
    tasks = [item.added for item in later]
    return Left(
        minutes=_share(left.minutes, tasks, _minutes, lambda task: task.estimate.least_minutes or 0.0),
        usd=_share(left.usd, tasks, _usd),
        llm_tokens=_share(left.llm_tokens, tasks, _llm_tokens),
        train_tokens=_share(left.train_tokens, tasks, _train_tokens),
        source=left.source,
    )


def lacking(item: Item, share: Left) -> str:
    """Why the task cannot be worked on with this share, in a sentence; empty if it can."""
    task, least = item.added, item.added.estimate.least_minutes or 0.0
    if item.started:
        least = 0.0  # it may be at its last step
    if share.minutes is not None and share.minutes <= max(least, 0.0):
        if item.started:
            return f"{task.name}: no time is left {share.source}."
        there = f"{max(share.minutes, 0):.1f} minutes are left {share.source}"
        return f"{task.name}: {there}, and one round, with start and end, takes about {least:.1f}."
    for name, value, asks in (
        ("USD", share.usd, task.estimate.asks_llm),
        ("LLM tokens", share.llm_tokens, task.estimate.asks_llm),
        ("training tokens", share.train_tokens, True),
    ):
        if asks and value is not None and value < (1 if name != "USD" else 1e-9):
            return f"{task.name}: no {name} are left in the queue's budget."
    return ""


def limits_within(own: Limits, share: Left, used: Spend, estimate: Estimate) -> Limits:
    """A run's limits: its task's own, or what it has used and its share, where that is less.

    Args:
        estimate: of the task; the time in which its test rows are opened is kept free.
    """

    def at_most(limit: float | None, used: float, more: float | None) -> float | None:
        if more is None:
            return limit
        return min(inf if limit is None else limit, used + max(more, 0.0))

    minutes = None if share.minutes is None else max(share.minutes - estimate.end_minutes(share.minutes), 0.05)
    tokens = [
        at_most(limit, used, more)
        for limit, used, more in (
            (own.llm_tokens, used.llm_tokens, share.llm_tokens),
            (own.train_tokens, used.train_tokens, share.train_tokens),
        )
    ]
    least = [None if value is None else max(1, int(value)) for value in tokens]
    found = at_most(own.minutes, used.seconds / 60, minutes)
    return own.model_copy(
        update={
            "minutes": found if found == own.minutes or found is None else round(found, 1) or 0.1,
            "usd": at_most(own.usd, used.usd, share.usd),
            "llm_tokens": least[0],
            "train_tokens": least[1],
        }
    )


def as_settings(own: Limits, limits: Limits) -> list[str]:
    """As overrides of a task.yaml, what is limited more than it says."""
    return [
        f"budget.{name}={value:g}" if isinstance(value, float) else f"budget.{name}={value}"
        for name, value in limits.model_dump().items()
        if value != getattr(own, name)
    ]


def own_limits(own: Limits, began: Limits, since: Sequence[Extension]) -> Limits:
    """A task's own limits, with what a user has set while its run worked: that stands, as far as the queue has it.

    Args:
        own: by its task.yaml.
        began: those that its run began with.
        since: those that were set since.
    """
    for row in since:
        changed = {name: value for name, value in row.limits if value != getattr(began, name)}
        own, began = own.model_copy(update=changed) if row.by == "user" else own, row.limits
    return own


def freed(run: RunFolder, began: Limits) -> Limits | None:
    """The limits of a run that has ended as a task of a queue, without what the queue had allowed it.

    Args:
        began: those that the run began with.

    Returns:
        None: it was of no queue.
    """
    for queue in queues(run.path.parent):
        with suppress(BadInput):  # a queue that is damaged
            for item in queue.read().items:
                if item.run == run.name and item.ended and item.ended.state == "finished":
                    present = run.limits() or began
                    own = own_limits(item.added.limits, began, run.extensions())
                    return own.model_copy(update={"rounds": present.rounds, "target": present.target})
    return None


def allowed(run: RunFolder, task: TaskAdded, share: Left, began: Limits) -> Limits | None:
    """The limits that a run may have with its share, where others hold now; None: those that hold stay.

    Args:
        task: of the run.
        share: what is left for the run, beyond what it has used.
        began: the limits that the run began with.
    """
    present = run.limits() or began
    own = own_limits(task.limits, began, run.extensions())
    wanted = limits_within(own, share, spent(run), task.estimate)
    wanted = wanted.model_copy(update={"rounds": present.rounds, "target": present.target})
    return wanted if differ(present, wanted) else None


def differ(present: Limits, wanted: Limits) -> bool:
    """Whether limits are worth setting anew. A minute more or less is not."""
    if present.model_copy(update={"minutes": None}) != wanted.model_copy(update={"minutes": None}):
        return True
    if present.minutes is None or wanted.minutes is None:
        return present.minutes != wanted.minutes
    return abs(present.minutes - wanted.minutes) > SLACK


Need = Callable[[TaskAdded], float]


def _share(left: float | None, later: Sequence[TaskAdded], most: Need, least: Need = lambda _: 0.0) -> float | None:
    if left is None:
        return None
    equal = left / (len(later) + 1)
    return left - sum(min(most(task), max(equal, least(task))) for task in later)


def _minutes(task: TaskAdded) -> float:
    own, full = task.limits.minutes, task.estimate.minutes(task.limits.rounds, "lora")
    return min(inf if own is None else own, inf if full is None else full)


def _usd(task: TaskAdded) -> float:
    if not task.estimate.asks_llm:
        return 0.0
    own, round = task.limits.usd, task.estimate.usd_round
    return min(inf if own is None else own, inf if round is None else round * task.limits.rounds)


def _llm_tokens(task: TaskAdded) -> float:
    if not task.estimate.asks_llm:
        return 0.0
    own, round = task.limits.llm_tokens, task.estimate.llm_tokens_round
    return min(inf if own is None else own, inf if round is None else round * task.limits.rounds)


def _train_tokens(task: TaskAdded) -> float:
    own = task.limits.train_tokens
    return min(inf if own is None else own, task.estimate.trained * counted(task.limits.rounds))

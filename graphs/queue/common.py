"""One budget for runs that are worked on side by side: each is given its part when its turn comes."""

from collections.abc import Sequence
from pathlib import Path

from agent.records.events import LimitsSet
from agent.records.limits import Limits
from agent.records.queue import NightLimits, TaskAdded, TaskStarted
from agent.records.rounds import Spend
from eval.tasks.task import load_config
from graphs.queue.shares import Left, allowed, lacking, left_of, share_of, spent
from memory.queue import Item, now
from memory.run.folder import RunFolder


class CommonBudget:
    """What runs may use together. The limits of each stand in its folder, so they hold on whatever machine it is.

    A run that is under way counts with all that it was given; what it leaves goes to those that begin after its end,
    or after it has failed.

    Args:
        tasks: of the runs, in the same order, which is that of their turns.
        slots: how many are worked on at a time.
    """

    def __init__(self, limits: NightLimits, runs: Sequence[RunFolder], tasks: Sequence[TaskAdded], slots: int) -> None:
        self._limits, self._slots = limits, slots
        self._runs = {run.path: (run, task) for run, task in zip(runs, tasks, strict=True)}
        self._begun, self._under_way = set[Path](), set[Path]()

    def begin(self, run: RunFolder) -> str:
        """Give the run its part. Returns why it cannot be worked on; empty: it can."""
        if run.outcome():  # only its report is missing
            return ""
        self._begun.add(run.path)
        task, left = self._runs[run.path][1], self._left(run)
        share = self._share(left)
        goes_on = spent(run) != Spend()
        item = Item(task, started=(TaskStarted(time=now(), number=task.number, run=run.name),) if goes_on else ())
        # One that goes on needs no round's share, but something: else it would do a whole step before it ended.
        if lack := lacking(item, left if goes_on else share):
            return lack
        if wanted := allowed(run, task, share, load_config(run.task_file).limits):
            with run.locked():
                run.event(LimitsSet(row=run.extend(wanted, by="queue")))
        self._under_way.add(run.path)
        return ""

    def end(self, run: RunFolder) -> None:
        """Nobody works on the run any more, also where it has failed: of its part, only what it has used is taken."""
        self._under_way.discard(run.path)

    def _left(self, run: RunFolder) -> Left:
        """For this run and those that follow."""
        taken = sum((self._taken(*other) for path, other in self._runs.items() if path != run.path), spent(run))
        return left_of(self._limits, taken, now())

    def _share(self, left: Left) -> Left:
        later = [
            Item(task) for path, (other, task) in self._runs.items() if path not in self._begun and not other.outcome()
        ]
        share = share_of(left, later)
        if self._limits.minutes is None:
            # The clock runs for all at once: who follows on the same worker needs the rest.
            share = share.model_copy(update={"minutes": share_of(left, later[self._slots - 1 :: self._slots]).minutes})
        return share

    def _taken(self, run: RunFolder, task: TaskAdded) -> Spend:
        """What a run has used; while it is under way, all that it was given."""
        used = spent(run)
        if run.path not in self._under_way or run.outcome():
            return used
        return _at_least(used, run.limits() or load_config(run.task_file).limits)


def _at_least(used: Spend, given: Limits) -> Spend:
    return used.model_copy(
        update={
            "seconds": max(used.seconds, 60 * (given.minutes or 0.0)),
            "usd": max(used.usd, given.usd or 0.0),
            "llm_tokens": max(used.llm_tokens, given.llm_tokens or 0),
            "train_tokens": max(used.train_tokens, given.train_tokens or 0),
        }
    )

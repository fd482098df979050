"""What has become of a queue's tasks: the row of one that has ended, and what is said at the end of the queue."""

from agent.records.queue import TaskEnded
from agent.records.rounds import Spend
from graphs.control.watching import limits_of
from graphs.queue.shares import spent
from memory.queue import QueueState, now
from memory.run.folder import RunFolder


def ended(number: int, run: RunFolder | None, failure: str = "") -> TaskEnded:
    """The row of a task whose run has ended; else it has failed, for this reason.

    Args:
        run: None where none could be begun.
    """
    there = run if run and run.path.exists() else None
    if there is None or (outcome := there.outcome()) is None:
        spend = spent(there) if there else Spend()
        return TaskEnded(time=now(), number=number, state="failed", reason=failure, spend=spend)
    rounds, first, target = there.rounds(), there.baseline(), limits_of(there).target
    row = rounds[-1] if rounds else first
    assert row is not None, "a run that has ended has measured something"
    return TaskEnded(
        time=now(), number=number, state="finished", reason=outcome.stopped,
        reached=target is not None and row.reward >= target,
        before=outcome.baseline_test.reward, after=outcome.best_test.reward, spend=outcome.spend,
    )  # fmt: skip


def undone(state: QueueState) -> str:
    """A sentence about the tasks that have failed, and those that were left out; empty where there are none."""
    failed = [item.added.name for item in state.kept if item.ended and item.ended.state == "failed"]
    done = sum(item.ended is not None for item in state.kept) - len(failed)
    parts = [f"failed: {', '.join(failed)}"] if failed else []
    parts += [f"left out: {', '.join(row.task for row in state.skipped)}"] if state.skipped else []
    return "; ".join([f"{done} of {len(state.kept) + len(state.skipped)} done", *parts]) + "." if parts else ""

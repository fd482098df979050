"""How every face says where a queue and its tasks stand."""

import sys
from collections.abc import Sequence
from pathlib import Path

from agent.counting import plural
from agent.records.queue import NightLimits, TaskAdded, TaskSkipped
from eval.tasks.task import load_config
from graphs.queue.needs import remarks
from memory.queue import Item
from ui import wording


def limits_in_words(limits: NightLimits) -> str:
    """What all tasks may use together."""
    named = {
        f"until {limits.until.astimezone():%H:%M on %B %-d}" if limits.until else "": limits.until is not None,
        f"{plural(limits.minutes or 0.0, 'minute')} of work": limits.minutes is not None,
        wording.money(limits.usd or 0): limits.usd is not None,
        f"{limits.llm_tokens or 0:,} LLM tokens": limits.llm_tokens is not None,
        f"{limits.train_tokens or 0:,} training tokens": limits.train_tokens is not None,
    }
    return ", ".join(text for text, holds in named.items() if holds) or "no limit but each task's own"


def skipped_in_words(row: TaskSkipped) -> str:
    """A task that is not in the queue, though it was named."""
    return f"{row.task}: left out. {wording.printable(row.reason)}"


def say_that_tasks_are_read(count: int) -> None:
    """Say on standard error what the next seconds go to, so that nobody takes the wait for a hang."""
    print(
        f"Reading {plural(count, 'task')}, and trying out what never ran here, to estimate it: some seconds a task, "
        "more where the machine is busy.",
        file=sys.stderr, flush=True,
    )  # fmt: skip


def say_remarks(tasks: Sequence[TaskAdded]) -> None:
    """Say on standard error what they ask for that is not there now, and may be by their turn."""
    found = dict[str, list[str]]()
    for row in tasks:
        for remark in remarks(load_config(Path(row.task), row.overrides)):
            found.setdefault(remark, []).append(row.name)
    for remark, names in found.items():
        then = "It is asked for at the task's turn." if len(names) == 1 else "It is asked for at their turns."
        print(f"nesylora: {', '.join(names)}: {remark}. {then}", file=sys.stderr)


def became(item: Item) -> str:
    """What became of a task so far."""
    end = item.ended
    if end and end.state == "finished":
        test = f"test reward {wording.number(end.before)} → {wording.number(end.after)}"
        return f"{'target reached' if end.reached else 'below its target'}, {test}. {end.reason}"
    if end and end.state == "removed":
        return "taken out of the queue"
    if end:
        return f"failed: {wording.printable(end.reason)}"
    if item.put_off:
        return f"put off until the others are done: {wording.printable(item.stopped[-1].reason)}"
    if item.started:
        return f"begun as run {item.run}"
    return "waits for its turn"

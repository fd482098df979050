"""What the commands about queues do: begin, take up, show."""

import subprocess
import sys
from contextlib import nullcontext

from rich.console import Console
from rich.table import Table

from agent.errors import BadInput, Busy
from agent.policy.learned import short
from agent.records.queue import Estimate, NightLimits
from graphs.control.process import environment
from graphs.queue.foreman import Foreman
from graphs.queue.making import take_up
from graphs.queue.shares import spend_of
from memory.queue import Item, QueueFolder, QueueState
from memory.run.naming import as_typed
from memory.storage.lock import holder
from ui import wording
from ui.control.signals import Ending, outlive_the_terminal
from ui.control.work import IMPROVED, NOTHING, REACHED
from ui.queue.page import write_page
from ui.queue.view import QueueView
from ui.queue.words import became, limits_in_words, skipped_in_words

FAILED = 1


def begin(
    queue: QueueFolder, ending: Ending, *, detached: bool = False, json: bool = False, overnight: bool = False
) -> int:
    """Work on the queue to its end, in this process or in one of its own. Returns the exit code.

    Args:
        overnight: it goes on when the terminal is closed.
    """
    if detached:
        return _detach(queue)
    ending.advice = f"What was completed is kept; go on with: nesylora queue resume {as_typed(queue.path)}"
    said = "ending after the batch under way; a second signal ends it at once"
    view = QueueView(queue, json, lambda: ending.begin(said))
    with view if not json else nullcontext(), outlive_the_terminal() if overnight else nullcontext():
        Foreman(queue, view).work()
    return exit_code(queue.read())


def resume(queue: QueueFolder, limits: NightLimits, notify: str, json: bool = False) -> bool:
    """Take the queue up with these limits; those that are not named stay. Says what holds now.

    Returns:
        False: it is done already, which is said.

    Raises:
        Busy: a process works on it.
        BadInput: see `graphs.queue.making.take_up`.
    """
    if held := holder(queue.lock_path):
        name = as_typed(queue.path)
        raise Busy(
            f"The queue {queue.name} is worked on by {held}. How far it is: nesylora queue status {name}. Other limits "
            f"for it: nesylora queue extend {name} --help"
        )
    state = queue.read()
    if all(item.ended and item.ended.state == "finished" for item in state.kept):
        print(f"{queue.name}: {state_in_words(queue)}. Its page: {write_page(queue)}")
        return False
    state = take_up(queue, limits, notify)
    if not json:
        print(
            f"{queue.name}: {wording.plural(len(state.open), 'task')} to be worked on, {limits_in_words(state.limits)}"
        )
    return True


def exit_code(state: QueueState) -> int:
    """0: every task has reached its target; 4: something was gained; 5: nothing was; 1: one failed, or was left out."""
    ends = [item.ended for item in state.kept if item.ended]
    if state.skipped or any(end.state == "failed" for end in ends):
        return FAILED
    if len(ends) == len(state.kept) and all(end.reached for end in ends):
        return REACHED
    return IMPROVED if any(end.reached or (end.after or 0) > (end.before or 0) for end in ends) else NOTHING


def show_estimate(queue: QueueFolder) -> None:
    """What the tasks will take, before they begin."""
    state, console = queue.read(), Console(highlight=False)
    console.print(f"{queue.name}: {wording.plural(len(state.items), 'task')}, {limits_in_words(state.limits)}")
    table = Table("task", "an edit", "a training", "likely", "at most", "disk")
    for item in state.items:
        table.add_row(*_estimated(item))
    console.print(table)
    rates = {item.added.estimate.rate for item in state.items if item.added.estimate.rate}
    for rate in rates:
        console.print(
            f"At {rate.answering:,.0f} forward tokens a second while answering and {rate.training:,.0f} while "
            f"training, by {rate.source}. Likely: until the target, as far as a few answers or earlier runs tell. "
            "Money: where earlier runs tell.",
            style="dim", soft_wrap=True,
        )  # fmt: skip
    console.print(f"Its page: {write_page(queue)}", soft_wrap=True)


def show_status(queue: QueueFolder) -> int:
    """A line for the queue, and one for each task."""
    state, console = queue.read(), Console(highlight=False)
    console.print(f"{queue.name}: {state_in_words(queue)}; {limits_in_words(state.limits)}", soft_wrap=True)
    for item in state.items:
        lost = ", whose folder is gone: it begins anew" if not item.ended and _is_gone(queue, item) else ""
        console.print(f"  {item.added.number} {item.added.name}: {became(item)}{lost}", soft_wrap=True, markup=False)
    for row in state.skipped:
        console.print(f"  – {skipped_in_words(row)}", soft_wrap=True, markup=False)
    console.print(f"Spent: {wording.cost(spend_of(queue, state)) or 'nothing'}. Page: {queue.page}", soft_wrap=True)
    return 0


def state_in_words(queue: QueueFolder) -> str:
    """Where a queue stands, in a line."""
    try:
        state = queue.read()
    except BadInput as error:
        return f"damaged: {error}"
    ends = [item.ended.state for item in state.kept if item.ended]
    done, total = ends.count("finished"), len(state.kept)
    head = f"{done} of {wording.plural(total, 'task')} done"
    head += f", {len(ends) - done} failed" if len(ends) > done else ""
    if held := holder(queue.lock_path):
        return f"{head}, worked on by {held}"
    if len(ends) < total:
        return f"{head}, to be resumed"
    return head


def _estimated(item: Item) -> tuple[str, ...]:
    """Times of a round of each lever; then the run, likely and at most; room."""
    known, own = item.added.estimate, item.added.limits.minutes
    rate = known.rate
    return (
        item.added.name,
        _roughly(known.edit / rate.answering) if rate else "–",
        _roughly(known.lora / known.lora_rate) if rate else "–",
        _of_rounds(known, known.likely_rounds, known.tokens, known.likely_minutes, own),
        _of_rounds(known, known.rounds, known.most_tokens, known.most_minutes, own),
        f"{known.disk / 1e6:,.0f} MB",
    )


def _of_rounds(known: Estimate, rounds: int, tokens: float | None, minutes: float | None, own: float | None) -> str:
    """Rounds, time, forward tokens and money, a line each, as far as they are known.

    Args:
        own: minutes that the task may use by its own task.yaml.
    """
    lines = [wording.plural(rounds, "round")]
    if minutes is not None:
        lines.append(_roughly(60 * (minutes if own is None else min(minutes, own))))
    if tokens is not None:
        lines.append(f"{short(round(tokens))} tokens")
    if known.usd_round:
        lines.append(wording.money(known.usd_round * rounds))
    return "\n".join(lines)


def _roughly(seconds: float) -> str:
    """No seconds from ten minutes on."""
    return wording.duration(seconds if seconds < 600 else 60 * round(seconds / 60))


def _detach(queue: QueueFolder) -> int:
    """Start a process of its own for the queue, and leave it to it."""
    command = [sys.executable, "-P", "-m", "nesylora", "queue", "work", str(queue.path)]
    with queue.console.open("ab") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            env=environment(),
        )  # fmt: skip
    print(f"The queue {queue.name} is worked on in the background (process {process.pid}); its log: {queue.console}")
    name = as_typed(queue.path)
    print(f"How far it is: nesylora queue status {name}    Add a task: nesylora queue add TASK --queue {name}")
    return 0


def _is_gone(queue: QueueFolder, item: Item) -> bool:
    """Whether somebody has removed the folder of the task's run."""
    return item.run in item.used and not (queue.root / item.run).exists()

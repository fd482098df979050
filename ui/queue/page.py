"""index.html in a queue's folder: what became of each task, rewritten whenever something happens."""

import shlex
from functools import cache
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader

from agent.errors import BadInput
from agent.records.queue import TaskStopped
from agent.records.rounds import Outcome, Round, Spend
from graphs.queue.shares import spend_of, spent
from memory.queue import Item, QueueFolder, QueueState
from memory.run.folder import RunFolder
from memory.storage.disk import write_atomically
from ui import wording
from ui.queue.words import limits_in_words
from ui.report.write import LOADER, with_words

CURVE = 40  # rewards that a line shows, the latest
HERE = Path(__file__).parent


class TaskLine(NamedTuple):
    """A task as the page shows it. `link` is the report's, seen from the page; empty where there is none."""

    item: Item
    link: str
    curve: str
    reward: float | None
    rounds: list[Round]
    outcome: Outcome | None
    spend: Spend
    about: str

    @property
    def state(self) -> str:
        end = self.item.ended
        if end is None:
            return "put off" if self.item.put_off else "begun" if self.item.started else "waits"
        if end.state == "failed":
            return "failed"
        return "target reached" if end.reached else "improved" if (end.after or 0) > (end.before or 0) else "no gain"

    @property
    def gained(self) -> list[Round]:
        """Rounds that were kept, the largest gain first."""
        return sorted((row for row in self.rounds if row.verdict.kept), key=lambda row: -row.verdict.gain)

    @property
    def troubles(self) -> tuple[TaskStopped, ...]:
        return self.item.stopped


def write_page(queue: QueueFolder) -> Path:
    """Writes the page anew, and returns its path.

    Raises:
        BadInput: queue.jsonl is damaged.
        NesyLoraError: the disk is full.
    """
    state = queue.read()
    facts = {
        "queue": queue,
        "state": state,
        "lines": [_line(queue, item) for item in state.kept],
        "limits": limits_in_words(state.limits),
        "spend": spend_of(queue, state),
        "seconds": _seconds(state),
        "commands": _commands(queue, state),
    }
    write_atomically(queue.page, _pages().get_template("queue.html.j2").render(facts))
    return queue.page


def _line(queue: QueueFolder, item: Item) -> TaskLine:
    run = RunFolder(queue.root / item.run) if item.run else None
    if run is None or not run.path.exists():
        return TaskLine(item, "", "", None, [], None, Spend(), _about(item))
    try:
        first, rounds, outcome, used = run.baseline(), run.rounds(), run.outcome(), spent(run)
    except BadInput as error:
        return TaskLine(item, "", "", None, [], None, Spend(), str(error))
    rewards = [first.seed_reward, first.reward, *(row.reward for row in rounds)] if first else []
    link = f"../{run.name}/report.html" if run.report_html.exists() else ""
    curve = wording.sparkline(rewards[-CURVE:])
    return TaskLine(item, link, curve, rewards[-1] if rewards else None, rounds, outcome, used, _about(item))


def _about(item: Item) -> str:
    """Where it stands, beside its state."""
    if item.ended:
        return item.ended.reason
    if item.put_off:
        return f"Waits until the others are done: {item.stopped[-1].reason}"
    return "It has begun, and not ended." if item.started else "Waits for its turn."


def _seconds(state: QueueState) -> float | None:
    """From the first begin to the end; None before that."""
    return (state.ended.time - state.begun[0].time).total_seconds() if state.ended and state.begun else None


def _commands(queue: QueueFolder, state: QueueState) -> list[tuple[str, str]]:
    name = queue.name if queue.root == Path.cwd() / "runs" else shlex.quote(str(queue.path))
    commands = [(f"nesylora queue status {name}", "where each task stands")]
    if state.open or any(item.ended and item.ended.state == "failed" for item in state.items):
        until = " --until 07:00" if state.limits.until else ""
        commands.append((f"nesylora queue resume {name}{until}", "go on with what is not done"))
    best = [item.run for item in state.items if item.ended and item.ended.state == "finished"]
    commands += [(f"nesylora chat {run}", "ask its best pair something") for run in best[:1]]
    return [*commands, (f"nesylora queue add TASK --queue {name}", "put one more task behind them")]


@cache
def _pages() -> Environment:
    loader = FileSystemLoader([HERE, *LOADER.searchpath])
    return with_words(Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True))

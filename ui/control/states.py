"""Where a run stands, in words."""

from typing import Literal, NamedTuple

from agent.errors import Busy
from graphs.control import process
from graphs.control.client import live
from graphs.control.extension import in_words as limits_in_words
from graphs.control.steering import RunStatus
from memory.run.folder import RunFolder
from memory.storage.lock import holder
from ui import wording
from ui.status_wording import doing, standing

State = Literal["working", "waiting", "paused", "finished", "to be resumed", "failed", "damaged"]


class RunState(NamedTuple):
    """A run's state, and what is to be said about it; `note` may be empty."""

    state: State
    note: str = ""


def state_of(run: RunFolder) -> RunState:
    """Where a run stands. Raises BadInput: its files are damaged."""
    run.check()
    outcome = run.outcome()
    try:
        status = remote.status() if (remote := live(run)) else None
    except Busy as busy:  # one run that does not answer hides no other
        return RunState("working", str(busy))
    if status and status.condition in ("working", "waiting", "paused"):
        return RunState(status.condition, wording.printable(doing(status)))
    if held := holder(run.lock_path):
        return RunState("working", held)
    if outcome:
        return RunState("finished", f"its test rows were opened {outcome.seen + 1} times" if outcome.seen else "")
    last = process.noted(run)
    if last and last.trouble:
        return RunState("failed", last.trouble)
    return RunState("to be resumed", f"process {last.pid} was killed" if last else "")


def in_words(status: RunStatus) -> str:
    """A status, in a line or two."""
    spent = [wording.duration(status.spend.seconds), wording.money(status.spend.usd) if status.spend.usd else ""]
    about = f"; {wording.printable(doing(status))}" if doing(status) else ""
    lines = [f"{standing(status)}{about}", f"  limits: {limits_in_words(status.limits)}"]
    lines[1] += f"; used: {', '.join(filter(None, spent))}"
    if status.pid:
        lines[1] += f"; process {status.pid}"
    if status.trouble:
        lines.append(f"  {wording.printable(status.trouble)}")
    return "\n".join(lines)

"""Where a run stands, in words."""

from typing import Literal, NamedTuple

from graphs.control import process
from graphs.control.client import status_of
from graphs.control.extension import in_words as limits_in_words
from graphs.control.steering import RunStatus
from memory.run.folder import RunFolder
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
    status, last = status_of(run), process.noted(run)
    if status.condition == "finished":
        seen = run.outcomes()[-1].seen
        return RunState("finished", f"its test rows were opened {seen + 1} times" if seen else "")
    if status.condition != "stopped":
        return RunState(status.condition, wording.printable(doing(status) or status.trouble))
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

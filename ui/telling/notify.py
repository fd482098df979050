"""One JSON record, to a command or an address, at the end of a run and at trouble. It never stops the run."""

import os
import shlex
import subprocess
import sys
import threading
from datetime import UTC, datetime
from queue import Empty, Queue
from typing import Literal

from pydantic import Field

from agent.config.notify import Notify
from agent.records.base import Record
from agent.records.rounds import Spend

LIMIT = 20.0  # seconds that a command, or the server of an address, may take


class Notice(Record):
    """What is told. Every field is there every time."""

    event: Literal["end", "trouble"] = Field(description="end: of the run or queue; trouble: it stopped before its end")
    of: Literal["run", "queue", "task"] = Field(description="task: a run of a queue")
    name: str
    task: str = ""
    text: str = Field(description="a sentence that says all in short")
    reached: bool = Field(False, description="the target")
    before: float | None = Field(None, description="test reward of the seed prompt")
    after: float | None = Field(None, description="of the best pair")
    spend: Spend = Spend()
    page: str = Field("", description="path of the report, or of the queue's page")
    time: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))


def send(notify: Notify, notice: Notice) -> list[str]:
    """Tell all that are named. Returns a sentence for each that could not be told."""
    faults = []
    if notify.command and (fault := _run(notify.command, notice)):
        faults.append(f"The notification's command failed: {fault}")
    if notify.url and (fault := _post(notify.url, notice)):
        faults.append(f"The notification could not be posted: {fault}")
    return faults


def tell(notify: Notify, notice: Notice) -> None:
    """The same, with the sentences on standard error."""
    for fault in send(notify, notice):
        print(f"nesylora: {fault}", file=sys.stderr, flush=True)


def _run(command: str, notice: Notice) -> str:
    try:
        words = [os.path.expandvars(word).replace("{text}", notice.text) for word in shlex.split(command)]
        done = subprocess.run(
            words, input=notice.model_dump_json(), text=True, capture_output=True, timeout=LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        return f"it took longer than {LIMIT:.0f} s, and was stopped"
    except (OSError, ValueError) as error:  # no such program; quotes that do not end
        return str(error)
    said = done.stderr.strip().splitlines()
    return "" if done.returncode == 0 else f"exit code {done.returncode}{f', {said[-1][:200]}' if said else ''}"


def _post(url: str, notice: Notice) -> str:
    faults: Queue[str] = Queue()
    # httpx limits each read and write, and a server that trickles has no end.
    threading.Thread(target=lambda: faults.put(_posted(url, notice)), name="notification", daemon=True).start()
    try:
        return faults.get(timeout=LIMIT)
    except Empty:
        return f"no answer within {LIMIT:.0f} s"


def _posted(url: str, notice: Notice) -> str:
    import httpx

    address = os.path.expandvars(url)
    try:
        answer = httpx.post(address, json=notice.model_dump(mode="json"), timeout=LIMIT)
    except httpx.InvalidURL:
        return "the address is none"
    except httpx.HTTPError as error:  # whose text may hold the address, and that is often a secret
        return f"{httpx.URL(address).host or 'no host'}: {type(error).__name__}"
    return "" if answer.is_success else f"{httpx.URL(address).host} answers with status {answer.status_code}"

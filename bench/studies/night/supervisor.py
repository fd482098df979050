"""Starts the queue of a night, and starts it again whenever it has ended too early, as cron or systemd would."""

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from agent.errors import BadInput, NesyLoraError
from agent.records.base import Record
from agent.records.queue import TaskEnded
from bench.studies.night.faults import DAMAGES, NOTHING_TO_DAMAGE, Fault, Grounds, Turns
from bench.studies.night.gateway import Gateway
from bench.studies.night.tasks import KEY
from memory.queue import QueueFolder

QUEUE = "night"
LOOKS = 0.5  # seconds between two looks at the queue
RESTS = 5.0  # seconds until the queue is started again
PATIENCE = 100  # starts


class Happened(Record):
    """A line of the night's diary. `at` is in seconds after its beginning."""

    at: float
    what: str
    note: str = ""


class Night(NamedTuple):
    """A night that is under way.

    Attributes:
        root: of the runs and the queue.
        diary: the file that says what has happened.
    """

    root: Path
    diary: Path
    tasks: Sequence[Path]
    gateway: Gateway

    @property
    def queue(self) -> QueueFolder:
        """Its folder, which may not be there yet."""
        return QueueFolder(self.root / QUEUE)

    def work(self, faults: Iterator[Fault]) -> bool:
        """To the end of the queue. Whether every task has finished."""
        began, grounds, starts = time.monotonic(), Grounds(self.queue, self.gateway), 0
        turns, freed = Turns(faults, grounds.meets), 0.0
        process: subprocess.Popen[bytes] | None = None
        while True:
            now = time.monotonic() - began
            if process is None:
                process, starts = self._start(), starts + 1
            if freed and now >= freed:
                grounds.free_the_disk()
                freed = 0.0
                self.note(now, "the disk has room again")
            if fault := turns.take(now):
                freed = max(freed, self._happens(fault, grounds, now, began))
            if process.poll() is not None:
                self.note(now, f"the queue's process has ended with {process.returncode}")
                process = None
                if self._done() or starts >= PATIENCE:
                    for waits in turns.waiting:
                        self.note(now, waits.kind, f"due after {waits.at:.0f} s, and there was nothing to spoil")
                    return self._done()
                time.sleep(RESTS)
            time.sleep(LOOKS)

    def note(self, at: float, what: str, note: str = "") -> None:
        """A line of the diary."""
        with self.diary.open("a") as file:
            file.write(Happened(at=round(at, 1), what=what, note=note).model_dump_json() + "\n")

    def _start(self) -> "subprocess.Popen[bytes]":
        words = ["run", *map(str, self.tasks), "--name", QUEUE, "--json"]
        if self.queue.rows_file.exists():
            words = ["queue", "resume", QUEUE, "--json"]
        command = [sys.executable, "-P", "-m", "nesylora", *words, "--runs", str(self.root)]
        with self.diary.with_suffix(".log").open("ab") as out:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
                env=os.environ | {KEY: "none", "PYTHONPATH": str(Path(__file__).parents[3])},
            )  # fmt: skip

    def _happens(self, fault: Fault, grounds: Grounds, now: float, began: float) -> float:
        """The fault, noted. Returns until when the disk is full; 0.0 where it is not."""
        until, note = 0.0, ""
        try:
            match fault.kind:
                case "the run is killed":
                    note = grounds.kill(queue=False)
                case "the queue is killed":
                    note = grounds.kill(run=False)
                case "the LLM is down":
                    grounds.let_llm_down(began + now + fault.seconds)
                    note = f"for {fault.seconds:.0f} s"
                case "the disk is full":
                    until = now + fault.seconds
                    note = f"{grounds.fill_the_disk():,} bytes for {fault.seconds:.0f} s"
                case _:
                    note = grounds.kill()
                    if fault.kind in DAMAGES:
                        note = f"{note}; {grounds.damage(fault) or NOTHING_TO_DAMAGE}"
        except (OSError, NesyLoraError, ValueError, sqlite3.Error) as error:
            note = f"{note} not done: {error}"
        self.note(now, fault.kind, note)
        return until

    def _done(self) -> bool:
        with suppress(BadInput):
            state = self.queue.read()
            return all(isinstance(item.ended, TaskEnded) and item.ended.state == "finished" for item in state.items)
        return False


def read_diary(diary: Path) -> list[Happened]:
    """All lines."""
    lines = diary.read_text().splitlines() if diary.exists() else []
    return [Happened.model_validate_json(line) for line in lines]

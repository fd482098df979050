"""Whether the process that works on a run gives a sign of life: it writes something, it computes, or it moves data."""

import socket
import time
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from eval.tasks.task import load_config
from graphs.control import process
from memory.run.folder import RunFolder

if TYPE_CHECKING:
    import psutil

STILL = 900.0  # seconds without a sign of life after which a process counts as hung, beside its waits for an LLM
WINDOW = 10.0  # seconds over which computing is measured
IDLE = 0.02  # share of a core; answering who asks how far the run is takes a tenth of it
MOVED = 1000.0  # bytes a second from a disk, or written: the weights are loaded from a slow one, or downloaded
LAPSE = 120.0  # seconds between two looks after which this process was stopped itself, and maybe all others with it


class Done(NamedTuple):
    """What a process has done since it began: seconds that it has computed, and bytes that it has moved."""

    seconds: float
    bytes: int

    def beyond(self, before: "Done", seconds: float) -> bool:
        """Whether it has done something in these seconds. Less than before: another process, or fewer of them."""
        computed, moved = self.seconds - before.seconds, self.bytes - before.bytes
        return not (0 <= computed <= IDLE * seconds and 0 <= moved <= MOVED * seconds)


class Pulse:
    """The pulse of a run's process on this machine. One elsewhere always beats: nothing can be seen of it.

    Attributes:
        lost: what is said of a process that hangs; empty as long as none was found to.
    """

    def __init__(self, run: RunFolder) -> None:
        self._run, self.lost = run, ""
        self.rest()

    def rest(self) -> None:
        """Begin anew: the run is paused, and nothing need happen."""
        self._since = self._window = self._looked = time.monotonic()
        self._written: dict[str, tuple[int, int]] = {}
        self._done: Done | None = None

    @cached_property
    def _waits(self) -> float:
        """Seconds in which an LLM, or an engine, is waited for."""
        config = load_config(self._run.task_file)
        asked = [config.llm.of(role) for role in config.roles] if config.llm else []
        there = config.generation
        engine = there.patience + there.answer_seconds if there.engine != "own" else 0.0
        return max([engine, *(llm.patience + llm.timeout for llm in asked)])

    def beats(self) -> bool:
        """Whether there was a sign of life not too long ago."""
        now, written = time.monotonic(), self._files()
        if now - self._looked > LAPSE:
            self.rest()
        self._looked = now
        if written != self._written:
            self._since, self._written = now, written
        if now - self._window >= WINDOW:
            done, before = self._done_so_far(), self._done
            if done is None or before is None or done.beyond(before, now - self._window):
                self._since = now
            self._window, self._done = now, done
        if now - self._since < STILL or now - self._since < STILL + self._waits:
            return True
        still = f"{(now - self._since) / 60:.0f} minutes"
        self.lost = f"Its process has written nothing and computed nothing for {still}, so it was ended."
        return False

    def _files(self) -> dict[str, tuple[int, int]]:
        """Size and time of each file of the run, by name."""
        found = {}
        for file in self._run.path.glob("*"):
            try:
                seen = file.stat()
            except FileNotFoundError:
                continue
            found[file.name] = (seen.st_size, seen.st_mtime_ns)
        return found

    def _done_so_far(self) -> Done | None:
        """By the process and those it has started; None where that cannot be seen."""
        import psutil

        at = process.last(self._run)  # also one that hangs while it lets go of the run
        if at is None or at.host != socket.gethostname():
            return None
        try:
            own = psutil.Process(at.pid)
            parts = [own, *own.children(recursive=True)]
            return Done(sum(_seconds(part) for part in parts), sum(_bytes(part) for part in parts))
        except psutil.Error:
            return None


def _seconds(part: "psutil.Process") -> float:
    times = part.cpu_times()
    return float(times.user + times.system)


def _bytes(part: "psutil.Process") -> int:
    """Read from a disk, or written; 0 where the system does not count it.

    What the disk's cache answers is left out: who asks how far the run is has the same files read again and again.
    """
    import psutil

    if not hasattr(part, "io_counters"):  # macOS
        return 0
    try:
        moved = part.io_counters()
    except psutil.AccessDenied:
        return 0
    return int(moved.read_bytes + max(moved.write_bytes, getattr(moved, "write_chars", 0)))

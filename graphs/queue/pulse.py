"""Whether the process that works on a run gives a sign of life: it writes something, or it computes."""

import socket
import time
from functools import cached_property

from eval.tasks.task import load_config
from graphs.control import process
from memory.run.folder import RunFolder

STILL = 900.0  # seconds without a sign of life after which a process counts as hung, beside its waits for an LLM
WINDOW = 10.0  # seconds over which computing is measured
IDLE = 0.02  # share of a core; answering who asks how far the run is takes a tenth of it


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
        self._since = self._window = time.monotonic()
        self._written: dict[str, tuple[int, int]] = {}
        self._computed: float | None = None

    @cached_property
    def _waits(self) -> float:
        """Seconds in which an LLM is waited for."""
        config = load_config(self._run.task_file)
        asked = [config.llm.of(role) for role in config.roles] if config.llm else []
        return max((llm.patience + llm.timeout for llm in asked), default=0.0)

    def beats(self) -> bool:
        """Whether there was a sign of life not too long ago."""
        now, written = time.monotonic(), self._files()
        if written != self._written:
            self._since, self._written = now, written
        if now - self._window >= WINDOW:
            computed, before = self._seconds(), self._computed
            # Fewer seconds than before: another process, or fewer of them.
            if computed is None or before is None or not 0 <= computed - before <= IDLE * (now - self._window):
                self._since = now
            self._window, self._computed = now, computed
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

    def _seconds(self) -> float | None:
        """That the process and those it has started have computed; None where that cannot be seen."""
        import psutil

        at = process.noted(self._run)
        if at is None or at.host != socket.gethostname():
            return None
        try:
            own = psutil.Process(at.pid)
            times = [part.cpu_times() for part in (own, *own.children(recursive=True))]
        except psutil.Error:
            return None
        return float(sum(time.user + time.system for time in times))

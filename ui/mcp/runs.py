"""The runs that the tools work on, each in a process of its own, so that they outlive their callers."""

from collections.abc import Callable, Mapping
from pathlib import Path

from agent.errors import BadInput, NesyLoraError
from eval.tasks.task import load_config
from graphs.control.client import live
from graphs.control.extension import extend_stopped
from graphs.control.steering import Steering
from memory.run.folder import RunFolder, runs

Steer = Callable[[RunFolder], Steering]
EVERY = 1.0  # seconds that a thread waits for news, after which the caller is looked after


class Runs:
    """The runs under one folder.

    Args:
        steer: begins to work on a run, or finds the process that does.
    """

    def __init__(self, root: Path, steer: Steer) -> None:
        self.root = root
        self._steer = steer
        self._begun: dict[str, Steering] = {}  # by us: others end their own

    def find(self, name: str) -> RunFolder:
        """The run of this name, or the newest. Raises BadInput: there is none."""
        if name and (Path(name).name != name or name == ".." or "\0" in name):
            raise BadInput(f"run {name!r}: give its name, as list_runs has it, without a path")
        if name:
            return RunFolder.open(self.root / name)
        newest = next(iter(runs(self.root)), None)
        if newest is None:
            raise BadInput(f"there are no runs in {self.root} yet; begin with start_run")
        return newest

    def all(self) -> list[RunFolder]:
        """Those that can be read, the newest first."""
        found = []
        for run in runs(self.root):
            try:
                run.check()
            except BadInput:
                continue
            found.append(run)
        return found

    def steering(self, folder: RunFolder) -> Steering:
        """The run, worked on. Raises Busy, or NesyLoraError if its process cannot begin."""
        if folder.outcome():
            raise BadInput(f"Run {folder.name} has finished. To go on with it, set other limits with `extend`.")
        if remote := live(folder):
            return remote
        self._begun[folder.name] = self._steer(folder)
        return self._begun[folder.name]

    def extended(self, folder: RunFolder, limits: Mapping[str, float]) -> Steering:
        """The run under other limits, worked on again. Raises BadInput, Busy."""
        if remote := live(folder):
            remote.extend(**limits)
            return remote
        extend_stopped(folder, load_config(folder.task_file), limits)
        return self.steering(folder)

    def close(self) -> None:
        """Let the processes end that wait for an answer which nobody gives any more. The runs can be gone on with."""
        for steering in self._begun.values():
            try:
                if steering.status().condition in ("waiting", "paused"):
                    steering.leave()
            except NesyLoraError:  # it has ended already
                continue
        self._begun.clear()

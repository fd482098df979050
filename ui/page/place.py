"""What a request works on: the runs folder, a run in it, and whoever has the run."""

from functools import lru_cache
from pathlib import Path
from typing import Annotated, NamedTuple, Protocol

from fastapi import Depends, Request

from agent.config.task import TaskConfig
from agent.errors import BadInput
from eval.tasks.task import load_config
from graphs.control import process
from graphs.control.client import live, steer
from graphs.control.steering import RunStatus, Steering
from graphs.control.watching import status_of_folder
from memory.run.folder import RunFolder
from memory.storage.lock import holder
from ui.page.gate import Keys

MOST_OPEN = 64  # run folders whose ledgers are kept parsed


class Steers(Protocol):
    """How a run is reached."""

    def attached(self, run: RunFolder) -> Steering | None:
        """Whoever works on the run, in another process; None where nobody does."""

    def steered(self, run: RunFolder, supervised: bool) -> Steering:
        """Whoever works on the run; a new worker process where nobody does."""


class Workers:
    """By the process that works on it, or a new one, which outlives this server. Satisfies `Steers`."""

    def attached(self, run: RunFolder) -> Steering | None:
        return live(run)

    def steered(self, run: RunFolder, supervised: bool) -> Steering:
        return steer(run, supervised)


class Place(NamedTuple):
    """The runs folder, and how its runs are reached."""

    root: Path
    steers: Steers
    keys: Keys

    def run(self, name: str) -> RunFolder:
        """The run of this name. Raises BadInput: there is none, or it is damaged."""
        root = self.root.resolve()
        path = root if "\0" in name else (root / name).resolve()
        if path.parent != root:
            raise BadInput(f"{name!r} names no run in {self.root}: a name holds no path.")
        about = path / "run.json"
        return _opened(path, about.stat().st_mtime_ns if about.is_file() else 0)


@lru_cache(MOST_OPEN)
def _opened(path: Path, made: int) -> RunFolder:
    """Parsed rows are kept as long as the ledger's size stays; whatever is lost here is read again.

    Args:
        made: when run.json was written, in nanoseconds: a run that was made anew under the same name is another one.
    """
    return RunFolder.open(path)


def the_place(request: Request) -> Place:
    place: Place = request.app.state.place
    return place


def the_run(name: str, request: Request) -> RunFolder:
    return the_place(request).run(name)


Here = Annotated[Place, Depends(the_place)]
Run = Annotated[RunFolder, Depends(the_run)]


def status_of(place: Place, run: RunFolder) -> RunStatus:
    """The status of a run: as whoever works on it says, else as its folder has it."""
    steering = place.steers.attached(run)
    return steering.status() if steering else resting(run)


def resting(run: RunFolder) -> RunStatus:
    """The status of a run that nobody works on whom we can reach. Raises BadInput: it is damaged."""
    status = status_of_folder(run)
    if held := holder(run.lock_path):
        trouble = f"It is in use by {held}, which cannot be steered from here."
        return status.model_copy(update={"condition": "working", "trouble": trouble})
    last = process.noted(run)
    if status.condition == "stopped" and last and last.trouble:
        return status.model_copy(update={"trouble": last.trouble})
    return status


def task_of(run: RunFolder) -> TaskConfig:
    """The task's settings. Raises BadInput: they cannot be read."""
    return _read(run)


@lru_cache(MOST_OPEN)
def _read(run: RunFolder) -> TaskConfig:
    return load_config(run.task_file)

"""What a request works on: the runs folder, a run in it, and whoever has the run."""

from functools import lru_cache
from pathlib import Path
from typing import Annotated, NamedTuple

from fastapi import Depends, Request

from agent.config.task import TaskConfig
from agent.errors import BadInput
from eval.tasks.task import load_config
from graphs.control.anybody import Steers
from graphs.control.client import status_of
from graphs.control.steering import RunStatus
from memory.run.folder import RunFolder
from ui.page.gate import Keys

MOST_OPEN = 64  # run folders whose ledgers are kept parsed


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

    def status(self, run: RunFolder) -> RunStatus:
        """Where a run stands. Raises BadInput: it is damaged."""
        return status_of(run, self.steers.attached)


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


def task_of(run: RunFolder) -> TaskConfig:
    """The task's settings. Raises BadInput: they cannot be read."""
    return _read(run)


@lru_cache(MOST_OPEN)
def _read(run: RunFolder) -> TaskConfig:
    return load_config(run.task_file)

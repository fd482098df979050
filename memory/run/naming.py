"""The names of runs' folders: a new one's, and how a command names one."""

import itertools
import re
import shlex
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from agent.errors import BadInput


def new_folder(root: Path, task_name: str, name: str | None) -> Path:
    """A new folder under `root`. Raises BadInput: the name cannot be a folder's, or is taken."""
    stem = name or f"{task_name}-{datetime.now():%Y%m%d-%H%M%S}"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", stem):
        raise BadInput(f"A run cannot be named {stem!r}: use letters, digits, -, _ and . with a letter or digit first.")
    path = root / stem
    numbers = itertools.count(2)
    while True:
        with suppress(FileExistsError):
            path.mkdir(parents=True)
            return path
        if name:
            # Where a kill cut its making off, run.json, written last, is not there, and nothing that came after it.
            if all(file.name == "task.yaml" or file.name.endswith(".tmp") for file in path.iterdir()):
                return path
            raise BadInput(f"There is a run named {name} in {root} already. Resume it, or choose another name.")
        path = root / f"{stem}-{next(numbers)}"


def as_typed(folder: Path) -> str:
    """How a command that is typed here names a run or a queue: by its name where it is in ./runs, else by its path."""
    here = Path.cwd()
    if folder.parent == here / "runs":
        return folder.name
    return shlex.quote(str(folder.relative_to(here) if folder.is_relative_to(here) else folder))

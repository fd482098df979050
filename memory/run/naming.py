"""The name of a new run's folder."""

import itertools
import re
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
    while not _made(path):
        if name:
            if _half_made(path):
                return path
            raise BadInput(f"There is a run named {name} in {root} already. Resume it, or choose another name.")
        path = root / f"{stem}-{next(numbers)}"
    return path


def _made(path: Path) -> bool:
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        return False
    return True


def _half_made(path: Path) -> bool:
    """Whether a kill cut its making off: run.json, written last, is not there, and nothing that came after it."""
    return all(file.name == "task.yaml" or file.name.endswith(".tmp") for file in path.iterdir())

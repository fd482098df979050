"""Files with JSON in them that something else than a program of ours has changed, and where they go."""

import os
import shutil
from pathlib import Path

from pydantic import ValidationError

from memory.storage.database import aside


def is_damage(error: ValidationError) -> bool:
    """Whether a text is no JSON. A record of another version is JSON, and no damage."""
    return any(fault["type"] == "json_invalid" for fault in error.errors(include_input=False))


def copy_aside(path: Path, root: Path) -> str:
    """As `set_aside`, for a file that is about to be written anew: its place is never empty, whenever a kill comes."""
    copy = aside(path)
    try:
        os.link(path, copy)
    except OSError:  # a file system without links
        shutil.copyfile(path, copy)
    return f"The file {path.relative_to(root)} was damaged; as it was, it is now {copy.name}"


def set_aside(path: Path, root: Path) -> str:
    """Moves a damaged file out of the way, and says so in the beginning of a sentence. `root` is left out of names."""
    moved = path.rename(aside(path))
    what = "folder" if moved.is_dir() else "file"
    return f"The {what} {path.relative_to(root)} was damaged; it is now {moved.name}"

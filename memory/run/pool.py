"""What several runs of the same task and seed have in common: the model's answers, and adapters."""

import os
import shutil
from functools import cached_property
from pathlib import Path

from memory.replies import ReplyStore


class Pool:
    """For one process at a time. Files are linked where the disk can, so that they use space once."""

    def __init__(self, path: Path) -> None:
        self._adapters = path / "adapters"
        self._answers = path / "answers.sqlite"

    @cached_property
    def answers(self) -> ReplyStore:
        return ReplyStore(self._answers)

    def borrow(self, adapter: str, to: Path) -> bool:
        """Puts the adapter of this id at `to`, if another run has made it. Returns whether it did."""
        return _link(self._adapters / adapter, to)

    def lend(self, adapter: str, made: Path) -> None:
        """Give other runs the complete adapter in `made`."""
        _link(made, self._adapters / adapter)


def _link(source: Path, to: Path) -> bool:
    """Links a complete adapter to `to`, all files at once; False where `to` exists, or the adapter is not complete."""
    if to.exists() or not (source / "complete").is_file():
        return False
    draft = to.with_name(f"{to.name}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(source, draft, copy_function=_linked)
    os.replace(draft, to)
    return True


def _linked(source: str, to: str) -> None:
    try:
        os.link(source, to)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, to)

"""Writing that survives a kill: whole files by rename, single lines by append."""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from agent.errors import NesyLoraError

_appending = Lock()  # a line that another thread has half written looks like one that a kill left


def write_atomically(path: Path, text: str, *, sync: bool = True) -> None:
    """Puts `text` (as UTF-8) at `path` in one step: a reader finds the old file or the new one, never a part.

    Without `sync` that holds for a killed process, not for a machine that loses its power.

    Raises:
        NesyLoraError: the disk is full; the old file is unchanged.
    """
    data = text.encode()
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with _room_for(path, len(data)):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with draft.open("xb") as file:
                file.write(data)
                file.flush()
                if sync:
                    os.fsync(file.fileno())
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)


def append_line(path: Path, line: str, *, sync: bool) -> None:
    """Adds one line (without its newline) to `path`, after cutting off what a kill left of an unfinished one.

    With `sync`, the line is on the disk when this returns.

    Raises:
        NesyLoraError: the disk is full; the earlier lines are unchanged.
    """
    data = line.encode() + b"\n"
    with _appending, _room_for(path, len(data)), path.open("a+b") as file:
        _cut_torn_line(file)
        file.write(data)
        file.flush()
        if sync:
            os.fsync(file.fileno())


def whole_lines(path: Path) -> list[bytes]:
    """The lines of `path` that were written to their end, without newlines. No file, no lines."""
    if not path.exists():
        return []
    # Not splitlines(): JSON texts may hold other line separators, such as U+2028.
    return path.read_bytes().split(b"\n")[:-1]


def _cut_torn_line(file: BinaryIO) -> None:
    if file.seek(0, os.SEEK_END) == 0:
        return
    file.seek(-1, os.SEEK_END)
    if file.read(1) != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


@contextmanager
def _room_for(path: Path, needed: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        free = shutil.disk_usage(path.parent).free
        raise NesyLoraError(
            f"The disk is full: {path} could not be written ({needed:,} bytes needed, {free:,} free). "
            "All that was written before is whole. Make room, then resume."
        ) from error

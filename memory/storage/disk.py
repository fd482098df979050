"""Writing that survives a kill: whole files by rename, single lines by append."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from agent.errors import DiskFull, is_disk_full

_appending = Lock()  # a line that another thread has half written looks like one that a kill left


def write_atomically(path: Path, text: str, *, sync: bool = True, private: bool = False) -> None:
    """Puts `text` (as UTF-8) at `path` in one step: a reader finds the old file or the new one, never a part.

    Without `sync` that holds for a killed process, not for a machine that loses its power. A `private` file is its
    owner's alone.

    Raises:
        NesyLoraError: the disk is full; the old file is unchanged.
    """
    data = text.encode()
    mode = 0o600 if private else 0o666
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with _room_for(path, len(data)):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(draft, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
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
        if file.seek(0, os.SEEK_END) > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # a kill cut the last line off
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
        file.write(data)
        file.flush()
        if sync:
            os.fsync(file.fileno())


def whole_lines(path: Path, start: int = 0) -> list[bytes]:
    """The lines of `path` that were written to their end, without newlines. No file, no lines.

    Args:
        start: bytes that are left out at the begin of the file.
    """
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(start)
        # Not splitlines(): JSON texts may hold other line separators, such as U+2028.
        return file.read().split(b"\n")[:-1]


def lines_from(path: Path, offset: int, most: int = -1) -> tuple[list[bytes], int]:
    """The whole lines behind so many bytes, without newlines, and how many bytes they end at: to follow a file.

    Args:
        offset: as this returned it before; 0 is the first line, and a negative one counts from the end. One inside a
            line means the line behind it.
        most: bytes to read, about; the rest comes with the next call. Negative: all.
    """
    if not path.exists():
        return [], offset
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        start = max(0, size + offset) if offset < 0 else min(offset, size)
        if start:
            file.seek(start - 1)
            file.readline()  # nothing but its newline, where the offset is the begin of a line
        else:
            file.seek(0)
        start = file.tell()
        lines = file.readlines(most)
    if lines and not lines[-1].endswith(b"\n"):  # still being written
        lines.pop()
    return [line[:-1] for line in lines], start + sum(map(len, lines))


@contextmanager
def _room_for(path: Path, needed: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise DiskFull(path, needed) from error

"""One process at a time: a file lock of the operating system, and a file that says who holds it."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from agent.errors import Busy, DiskFull, is_disk_full
from memory.storage.disk import write_atomically

DIES = 2.0  # seconds in which a process that was killed lets go: its other threads hold what it held for a moment


@contextmanager
def held(path: Path, what: str, wait: float = 0) -> Iterator[None]:
    """Holds `<path>.lock` and describes the holder in `<path>.holder`. The lock of a dead process is free.

    Args:
        path: where the two files go; it need not exist itself.
        what: the thing that is locked, for the message.
        wait: seconds to wait for another holder.

    Raises:
        Busy: a live process holds it; the message names its id, its host and since when.
    """
    holder = Path(f"{path}.holder")
    with held_shortly(path, what, wait):
        try:
            since = datetime.now(UTC).isoformat(timespec="seconds")
            write_atomically(holder, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}))
            yield
        finally:
            holder.unlink(missing_ok=True)


@contextmanager
def held_shortly(path: Path, what: str, wait: float) -> Iterator[None]:
    """Holds `<path>.lock` for so short a while that nobody asks who does. Arguments and errors as of `held`."""
    # Not thread-local: a graph may take the lock in one thread and let it go in another.
    lock = FileLock(f"{path}.lock", timeout=wait, thread_local=False)
    try:
        try:
            lock.acquire()
        except Timeout:
            if holder(path):
                raise
            lock.acquire(timeout=DIES)
    except Timeout:
        by = _named(Path(f"{path}.holder"))
        raise Busy(f"{what} is in use by {by}. Wait for its end, or stop it, then try again.") from None
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise DiskFull(Path(lock.lock_file), 1) from error
    try:
        yield
    finally:
        lock.release()


def holder(path: Path) -> str | None:
    """Who holds this now, in words; None: nobody, or only a process that is dead."""
    note = Path(f"{path}.holder")
    try:
        known = json.loads(note.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    if known["host"] == socket.gethostname() and not _lives(known["pid"], known["since"]):
        return None
    return _named(note)


def is_holder(path: Path, pid: int, note: Path) -> bool:
    """Whether this process of this machine holds it now, and did already when it wrote a note."""
    holder = Path(f"{path}.holder")
    try:
        known = json.loads(holder.read_text())
        if note.stat().st_mtime_ns < holder.stat().st_mtime_ns:  # it has let go, and taken it again for something else
            return False
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    here = known["host"] == socket.gethostname() and known["pid"] == pid
    return here and _lives(pid, known["since"])


def _lives(pid: int, since: str) -> bool:
    """Whether this process is the one that took a lock then, and no later one of the same id."""
    import psutil

    try:
        process = psutil.Process(pid)
        return bool(process.status() != psutil.STATUS_ZOMBIE and process.create_time() < _seconds(since) + 2)
    except psutil.Error:
        return False


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


def _named(holder: Path) -> str:
    try:
        note = json.loads(holder.read_text())
    except (FileNotFoundError, json.JSONDecodeError):  # taken this very moment, the note not yet written
        return "another process"
    return f"process {note['pid']} on {note['host']} (since {note['since']})"

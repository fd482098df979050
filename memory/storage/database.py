"""SQLite files that others wrote to before us: whether one is damaged, and where it goes then."""

import itertools
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

LOG_INDEX = 65_536  # bytes; SQLite begins the index of its log (-shm) with half of them


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file itself is at fault, and not a lock, a full disk or a wrong statement."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest says more of the same
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def is_locked(error: sqlite3.Error) -> bool:
    """Whether another connection holds the file."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def is_full(error: sqlite3.Error, file: Path) -> bool:
    """Whether the disk had no room for what was to be written."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_IOERR:  # so it calls the lack of room for the index of its log
        return is_little_left(file)
    return code == sqlite3.SQLITE_FULL


def is_little_left(file: Path) -> bool:
    """Whether the disk has less room than the index of a database's log takes."""
    return shutil.disk_usage(file.parent).free < LOG_INDEX


def room_for(file: Path) -> int:
    """Bytes that a change of a database may take, about: it is written to a log first."""
    return LOG_INDEX + (file.stat().st_size if file.exists() else 0)


def is_sound(file: Path, *, whole: bool, wait: float = 5.0) -> bool:
    """Whether the file has a head and its full length, and, if `whole`, sound pages.

    The head is read at once; the pages take as long as the file is large.

    Args:
        wait: seconds for another who has the file.

    Raises:
        sqlite3.DatabaseError: it cannot be read for another reason than damage.
    """
    try:
        with closing(sqlite3.connect(file, timeout=wait)) as database:
            database.execute("SELECT count(*) FROM sqlite_master").fetchone()
            return not whole or database.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
    except sqlite3.DatabaseError as error:
        if is_damage(error):
            return False
        raise


def moved_aside(file: Path) -> Path:
    """Where a damaged file is now."""
    moved = file.rename(aside(file))
    for part in ("-wal", "-shm"):  # they would be read into the new file
        Path(f"{file}{part}").unlink(missing_ok=True)
    return moved


def aside(path: Path) -> Path:
    """Where a damaged file or folder is moved to: beside its place, with the time in its name."""
    place = path.with_name(f"{path.name}-corrupt-{time.strftime('%Y%m%d-%H%M%S')}")
    numbers = itertools.count(2)
    free = place
    while free.exists():
        free = place.with_name(f"{place.name}-{next(numbers)}")
    return free

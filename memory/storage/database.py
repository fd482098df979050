"""SQLite files that others wrote to before us: whether one is damaged, and where it goes then."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file itself is at fault, and not a lock, a full disk or a wrong statement."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest says more of the same
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def is_locked(error: sqlite3.Error) -> bool:
    """Whether another connection holds the file."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


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
    return path.with_name(f"{path.name}-corrupt-{time.strftime('%Y%m%d-%H%M%S')}")

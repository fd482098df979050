"""Answers of the LLM on disk, so that a call of this run or another is not made and paid for twice."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from agent.errors import Busy, DiskFull, NesyLoraError, is_disk_full
from memory.storage.database import is_damage, is_full, is_locked, is_sound, moved_aside, room_for
from memory.storage.lock import held

WAIT = 60.0  # seconds to wait for another writer
TABLE = "CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL) WITHOUT ROWID"


class ReplyStore:
    """Satisfies `agent.protocols.Replies` with one SQLite file, for several threads and processes at once.

    A damaged file is moved to `corrupt`, and a new one is begun.

    Raises:
        Busy: here and from every method: another process has held the file for a minute.
        NesyLoraError: here and from every method: it cannot be used (disk full, no permission).
    """

    def __init__(self, path: Path) -> None:
        self.corrupt: Path | None = None
        self._path = path.resolve()
        self._lock = Lock()
        with self._plainly():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._database = self._opened(whole=False)

    def get(self, key: str) -> str | None:
        """The answer that was put under just this key, or None."""
        return next((reply for (reply,) in self._run("SELECT reply FROM replies WHERE key = ?", key)), None)

    def put(self, key: str, reply: str) -> None:
        """Keeps an answer. An earlier answer under the same key stays."""
        self._run("INSERT OR IGNORE INTO replies VALUES (?, ?)", key, reply)

    def _run(self, statement: str, *values: str) -> list[tuple[str]]:
        with self._plainly(), self._lock:
            try:
                return self._database.execute(statement, values).fetchall()
            except sqlite3.Error as error:
                if not is_damage(error):
                    raise
            self._database.close()
            self._database = self._opened(whole=True)
            return self._database.execute(statement, values).fetchall()

    def _opened(self, *, whole: bool) -> sqlite3.Connection:
        # One at a time: the switch to WAL does not wait for another's, and only one may move the file.
        with held(self._path, f"The file {self._path}", WAIT):
            if self._path.exists() and not is_sound(self._path, whole=whole):
                self.corrupt = moved_aside(self._path)
            database = sqlite3.connect(self._path, timeout=WAIT, isolation_level=None, check_same_thread=False)
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")  # a kill loses nothing, a power cut the last answers
            database.execute(TABLE)
            return database

    @contextmanager
    def _plainly(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            if isinstance(error, sqlite3.Error) and is_locked(error):
                raise Busy(
                    f"{self._path} has been held by another process for {WAIT:.0f} seconds. Close what has it "
                    "open, then try again."
                ) from None
            if is_disk_full(error) or (isinstance(error, sqlite3.Error) and is_full(error, self._path)):
                raise DiskFull(self._path, room_for(self._path)) from error
            raise NesyLoraError(
                f"The answers kept in {self._path} cannot be used: {error}. Mend the cause, or move the file away."
            ) from error

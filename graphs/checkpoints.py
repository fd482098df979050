"""A run's checkpoints in SQLite: waited for, set aside where the file is damaged, given up where nothing can read them.

A checkpoint only says where a round stands. The ledger is the run's truth: without checkpoints it goes on after its
last complete round.
"""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.sqlite import SqliteSaver

from agent.errors import Busy, DiskFull, NesyLoraError
from graphs.serializer import RecordSerializer
from graphs.state import unreadable
from memory.storage.database import is_full, is_locked, is_sound, moved_aside, room_for

T = TypeVar("T")

SOON = 5.0  # seconds that a lock of another process is waited for without a word
PATIENCE = 60.0  # seconds until it is an error
# What LangGraph raises on bytes that are not what it wrote: of msgpack and JSON, and of what it then looks for in them.
BROKEN = (ValueError, TypeError, LookupError, AttributeError, NotImplementedError)
# The history is the ledger's; a resume needs the last checkpoint only, and the one before if that is broken. The
# trigger forgets older ones in the transaction that writes a new one.
KEEP_TWO = """
CREATE TRIGGER IF NOT EXISTS keep_two AFTER INSERT ON checkpoints BEGIN
    DELETE FROM checkpoints WHERE thread_id = NEW.thread_id AND checkpoint_ns = NEW.checkpoint_ns
        AND checkpoint_id NOT IN (SELECT checkpoint_id FROM checkpoints WHERE thread_id = NEW.thread_id
            AND checkpoint_ns = NEW.checkpoint_ns ORDER BY checkpoint_id DESC LIMIT 2);
    DELETE FROM writes WHERE thread_id = NEW.thread_id AND checkpoint_ns = NEW.checkpoint_ns
        AND checkpoint_id NOT IN (SELECT checkpoint_id FROM checkpoints WHERE thread_id = NEW.thread_id
            AND checkpoint_ns = NEW.checkpoint_ns);
END;
"""


class Store(Protocol):
    """What holds a run's checkpoints, beside what LangGraph asks of it."""

    def newest(self) -> str | None: ...

    def forget(self, checkpoint: str | None = None) -> None: ...


class Checkpoints(SqliteSaver):
    """LangGraph's saver, with the last two checkpoints of each thread in one file.

    Args:
        notify: says what a user should know.

    Raises:
        Busy: here and from every method: another process has held the file for a minute.
        NesyLoraError: here and from every method: it cannot be used (disk full, no permission).
    """

    def __init__(self, path: Path, notify: Callable[[str], None]) -> None:
        self._path = path
        self._notify = notify
        if path.exists() and not self._retrying(lambda: is_sound(path, whole=True, wait=SOON)):
            notify(f"The run's checkpoints were damaged; they are now in {moved_aside(path)}. {AFTER_THE_LAST}")
        connection = self._retrying(lambda: sqlite3.connect(path, timeout=SOON, check_same_thread=False))
        super().__init__(connection, serde=RecordSerializer())
        self._retrying(self.setup)

    def setup(self) -> None:
        if not self.is_setup:
            super().setup()
            self.conn.executescript(KEEP_TWO)

    def get_tuple(self, *args: Any, **kwargs: Any) -> Any:
        read = super().get_tuple
        return self._retrying(lambda: read(*args, **kwargs))

    def put(self, *args: Any, **kwargs: Any) -> Any:
        write = super().put
        return self._retrying(lambda: write(*args, **kwargs))

    def put_writes(self, *args: Any, **kwargs: Any) -> None:
        write = super().put_writes
        self._retrying(lambda: write(*args, **kwargs))

    def forget(self, checkpoint: str | None = None) -> None:
        """Forget this checkpoint; None: all of them."""
        which, values = ("", ()) if checkpoint is None else (" WHERE checkpoint_id = ?", (checkpoint,))

        def delete() -> None:
            with self.lock, self.conn:
                for table in ("checkpoints", "writes"):
                    self.conn.execute(f"DELETE FROM {table}{which}", values)

        self._retrying(delete)

    def newest(self) -> str | None:
        """The id of the newest checkpoint."""
        read = "SELECT max(checkpoint_id) FROM checkpoints"
        found: str | None = self._retrying(lambda: self.conn.execute(read).fetchone()[0])
        return found

    def close(self) -> None:
        self.conn.close()

    def _retrying(self, do: Callable[[], T]) -> T:
        until, notified = time.monotonic() + PATIENCE, False
        while True:
            try:
                return do()
            except sqlite3.Error as error:
                if is_full(error, self._path):
                    raise DiskFull(self._path, room_for(self._path)) from error
                if not is_locked(error):
                    raise NesyLoraError(
                        f"The run's checkpoints in {self._path} cannot be used: {error}. Mend the cause, then go on "
                        "with resume; or move the file away: the run goes on after its last complete round."
                    ) from error
                if notified and time.monotonic() >= until:
                    raise Busy(
                        f"{self._path} has been held by another process for {PATIENCE:.0f} seconds. Close what has it "
                        "open (a database browser, a backup), then go on with resume."
                    ) from None
            if not notified:
                self._notify(f"Waiting for another process to let go of {self._path}.")
                notified = True


OTHER_VERSION = "The checkpoint was written by another version of NeSyLoRA"
AFTER_THE_LAST = "The run goes on after its last complete round."


def repair(
    graph: Any, saver: Store, config: RunnableConfig, notify: Callable[[str], None], *, rounds: int, ended: bool
) -> None:
    """Leaves a checkpoint from which the graph can go on, or none: one back where the newest is damaged, and says so.

    Args:
        graph: compiled with `saver`.
        rounds: of the ledger.
        ended: the run has; so its checkpoint waits at no node.
    """
    if (newest := saver.newest()) and _written(newest) > time.time() + 1:
        saver.forget()  # later ones would have smaller ids, and LangGraph takes the largest for the newest
        notify(f"The run's checkpoint is of a later time than the clock shows, which was set back. {AFTER_THE_LAST}")
    while (newest := saver.newest()) is not None:
        try:
            stale = _stale(graph, config, rounds, ended)
        except BROKEN as error:
            saver.forget(newest)
            way_out = "The run goes on from the one before." if saver.newest() else AFTER_THE_LAST
            notify(f"The newest checkpoint cannot be read ({type(error).__name__}: {error}). {way_out}")
            continue
        if not stale:
            return
        saver.forget()
        notify(f"{stale}. {AFTER_THE_LAST}")


def _written(checkpoint: str) -> float:
    """When a checkpoint was written, in seconds since 1970, by its id (RFC 9562, UUID version 6)."""
    number = UUID(checkpoint).int
    ticks = (number >> 80 << 12) | (number >> 64 & 0xFFF)  # of 100 ns, since 1582
    return (ticks - 0x01B21DD213814000) / 1e7


def _stale(graph: Any, config: RunnableConfig, rounds: int, ended: bool) -> str:
    """Why the run cannot go on from the newest checkpoint, which can be read; "" if it can. LangGraph says nothing."""
    snapshot = graph.get_state(config)
    written = graph.checkpointer.get_tuple(snapshot.config).pending_writes or ()
    lost = unreadable(snapshot.values) or ", ".join(name for _, name, value in written if unreadable({name: value}))
    if lost:
        return f"{OTHER_VERSION}: it holds what is no record now ({lost})"
    number = snapshot.values.get("number", rounds)
    if number not in (rounds, rounds - 1):  # its last step writes a round's row, before the checkpoint that counts it
        return f"The checkpoint is of another time than the ledger: it counts {number} rounds, the ledger {rounds}"
    return "" if snapshot.tasks or ended else f"{OTHER_VERSION}: it waits at a step that there is no more"

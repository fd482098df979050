"""A run's checkpoints on a Postgres server that several runs share, by langgraph-checkpoint-postgres."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import psycopg
from langgraph.checkpoint.postgres import PostgresSaver
from psycopg.rows import DictRow, dict_row

from agent.errors import BadInput, NesyLoraError
from graphs.serializer import RecordSerializer
from memory.shared.connection import Connection, Place, connect

T = TypeVar("T")

PATIENCE = 60.0  # seconds for a server that has gone away, hangs, or has its tables made by another
BETWEEN = 0.5  # seconds from one try to the next
SILENCE = 5.0  # seconds in which others usually make the tables
SETTING_UP = 7_105_216  # number of the advisory lock under which tables are made: nobody else's, we hope
KEEP_TWO = (
    """DELETE FROM checkpoints WHERE thread_id = %(thread)s AND (checkpoint_ns, checkpoint_id) NOT IN (
        SELECT checkpoint_ns, checkpoint_id FROM (SELECT checkpoint_ns, checkpoint_id, row_number() OVER (
            PARTITION BY checkpoint_ns ORDER BY checkpoint_id DESC) AS place FROM checkpoints
            WHERE thread_id = %(thread)s) AS numbered WHERE place <= 2)""",
    """DELETE FROM checkpoint_writes WHERE thread_id = %(thread)s AND (checkpoint_ns, checkpoint_id) NOT IN (
        SELECT checkpoint_ns, checkpoint_id FROM checkpoints WHERE thread_id = %(thread)s)""",
    """DELETE FROM checkpoint_blobs WHERE thread_id = %(thread)s AND (checkpoint_ns, channel, version) NOT IN (
        SELECT checkpoint_ns, key, value FROM checkpoints, jsonb_each_text(checkpoint -> 'channel_versions')
        WHERE thread_id = %(thread)s)""",
)


class PostgresCheckpoints(PostgresSaver):
    """LangGraph's saver for Postgres, with the last two checkpoints of a run, and connected anew where that was lost.

    Args:
        address: as `checkpoints:` in the task.yaml has it.
        thread: the run's, unlike any other's on the server.
        waiting: is told, in a sentence, what is waited for; and "" once it goes on.

    Raises:
        BadInput: the address cannot be used.
        NesyLoraError: here and from every method: the server cannot be reached, or refuses; names the place.
    """

    conn: Connection[DictRow]

    def __init__(self, address: str, thread: str, waiting: Callable[[str], None]) -> None:
        self._address, self._thread, self._waiting = expanded(address), thread, waiting
        self._waits = False
        self._place = Place.of(self._address, "checkpoints")
        self._until = time.monotonic() + PATIENCE
        try:
            super().__init__(self._connected(), serde=RecordSerializer())
        except psycopg.Error as error:
            raise self._unusable(error) from None
        self._retrying(self._set_up)

    def get_tuple(self, *args: Any, **kwargs: Any) -> Any:
        read = super().get_tuple
        return self._retrying(lambda: read(*args, **kwargs))

    def put(self, *args: Any, **kwargs: Any) -> Any:
        write = super().put
        written = self._retrying(lambda: write(*args, **kwargs))
        self._retrying(self._keep_two)
        return written

    def put_writes(self, *args: Any, **kwargs: Any) -> None:
        write = super().put_writes
        self._retrying(lambda: write(*args, **kwargs))

    def forget(self, checkpoint: str | None = None) -> None:
        """Forget this checkpoint of the run; None: all of them."""
        if checkpoint is None:
            forget_all = super().delete_thread
            self._retrying(lambda: forget_all(self._thread))
            return
        delete = "DELETE FROM checkpoints WHERE thread_id = %s AND checkpoint_id = %s"
        self._retrying(lambda: self.conn.execute(delete, (self._thread, checkpoint)))
        self._retrying(self._keep_two)

    def newest(self) -> str | None:
        """The id of the run's newest checkpoint."""
        read = "SELECT max(checkpoint_id) AS newest FROM checkpoints WHERE thread_id = %s"
        row = self._retrying(lambda: self.conn.execute(read, (self._thread,)).fetchone())
        return row["newest"] if row else None

    def close(self) -> None:
        self.conn.close()

    def _keep_two(self) -> None:
        with self.lock, self.conn.transaction():
            for statement in KEEP_TWO:
                self.conn.execute(statement, {"thread": self._thread})

    def _set_up(self) -> None:
        """Make the tables, one process at a time. Who finds them made asks for no lock.

        Through a pooler, it may be stuck on a connection that another client has got.
        """
        start = time.monotonic()
        while not self._made():
            if self._asked("SELECT pg_try_advisory_lock(%s) AS done"):
                with self._unlocking():
                    super().setup()
            elif time.monotonic() + BETWEEN > self._until:
                raise psycopg.errors.LockNotAvailable(
                    f"its tables are not made, and another session holds the advisory lock {SETTING_UP} (it is in "
                    "pg_locks; pg_terminate_backend ends it)"
                )
            else:
                if time.monotonic() - start > SILENCE:
                    self._wait(f"Waiting for {self._place.shown}, where another session makes tables.")
                time.sleep(BETWEEN / 10)

    def _made(self) -> bool:
        """Whether all migrations of this version are there."""
        found = self.conn.execute("SELECT to_regclass('checkpoint_migrations') IS NOT NULL AS done").fetchone()
        if not found or not found["done"]:
            return False
        row = self.conn.execute("SELECT max(v) AS newest FROM checkpoint_migrations").fetchone()
        newest = row["newest"] if row else None
        return newest is not None and newest >= len(self.MIGRATIONS) - 1

    @contextmanager
    def _unlocking(self) -> Iterator[None]:
        """The lock was tried for, not waited for: who waits in a statement would itself be waited for by CREATE INDEX
        CONCURRENTLY, which is among what makes the tables."""
        try:
            yield
        finally:
            if not self.conn.closed:
                self._asked("SELECT pg_advisory_unlock(%s) AS done")

    def _asked(self, question: str) -> bool:
        row = self.conn.execute(question, (SETTING_UP,)).fetchone()
        return bool(row and row["done"])

    def _connected(self) -> Connection[DictRow]:
        made = cast("Connection[DictRow]", connect(self._address, self._until))
        made.row_factory = dict_row
        return made

    def _retrying(self, do: Callable[[], T]) -> T:
        """What `do` returns. Where the connection is lost, all is done again over a new one: nothing is written twice.

        Whoever wrote a checkpoint has its id from before, so that a second time changes nothing.
        """
        until = time.monotonic() + PATIENCE
        self._until = until
        while True:
            try:
                if self.conn.closed:
                    self.conn = self._connected()
                self.conn.until = until
                done = do()
                self._go_on()
                return done
            except psycopg.Error as error:
                lost = self.conn.closed and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
                if not lost or time.monotonic() + BETWEEN > until:
                    raise self._unusable(error) from None
                self._wait(f"Waiting for {self._place.shown}, where the run's checkpoints are.")
            finally:
                self.conn.until = float("inf")  # LangGraph calls methods that are not ours, too
            time.sleep(BETWEEN)

    def _wait(self, text: str) -> None:
        """Say what is waited for; once, also where several calls meet the same outage one after another."""
        if not self._waits:
            self._waits = True
            self._waiting(text)

    def _go_on(self) -> None:
        if self._waits:
            self._waits = False
            self._waiting("")

    def _unusable(self, error: psycopg.Error) -> NesyLoraError:
        return NesyLoraError(
            f"The run's checkpoints at {self._place.shown} cannot be used: {self._place.said(error)}. What was "
            "completed is kept. Mend the cause, then go on with resume."
        )


def expanded(address: str) -> str:
    """The address itself, where the setting names an environment variable. Raises BadInput: it is not set."""
    if not address.startswith("$"):
        return address
    name = address.strip("${}")
    if not os.environ.get(name):
        raise BadInput(f"checkpoints: {address}: the environment variable {name} is not set, or empty")
    return os.environ[name]

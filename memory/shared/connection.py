"""Connections to Postgres on which no wait is without end; and what of an address may be shown."""

import os
import time
from collections.abc import Generator
from typing import NamedTuple, TypeVar

import psycopg
from psycopg import waiting
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow

from agent.config.address import POSTGRES
from agent.errors import BadInput

Got = TypeVar("Got")
Row = TypeVar("Row")

CONNECTS = 10  # seconds for a connection
ANSWERS = 15.0  # seconds for a statement


class Connection(psycopg.Connection[Row]):
    """Closed by a statement that is not answered in time.

    Counted here: a server that stopped, or that holds a lock, minds no `statement_timeout` of its own (which poolers
    refuse, too), and while its machine acknowledges packets, neither keepalives nor `tcp_user_timeout` end the wait.
    """

    until = float("inf")
    """When all statements must be done, by the monotonic clock."""

    def wait(  # type: ignore[override]
        self, gen: Generator[waiting.Wait, waiting.Ready | int, Got], interval: float = 0.1, **others: float | None
    ) -> Got:
        return super().wait(self._in_time(gen), interval, **others)

    def _in_time(
        self, gen: Generator[waiting.Wait, waiting.Ready | int, Got]
    ) -> Generator[waiting.Wait, waiting.Ready | int, Got]:
        start = time.monotonic()
        until = min(start + ANSWERS, self.until)
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() > until:
                    self.close()
                    raise psycopg.OperationalError(f"no answer within {max(until - start, 0):.1f} s")
                wanted = gen.send(ready)
        except StopIteration as end:
            got: Got = end.value
            return got


def connect(address: str, until: float = float("inf")) -> Connection[TupleRow]:
    """Autocommit, without which LangGraph's saver would lose all at the end; no prepared statements: poolers mix them.

    Args:
        until: when all that is done with it must be done, by the monotonic clock.

    Raises:
        psycopg.Error: there is none.
    """
    within = min(CONNECTS, max(1, round(until - time.monotonic()))) if until < float("inf") else CONNECTS
    made: Connection[TupleRow] = Connection.connect(
        address, autocommit=True, prepare_threshold=None, connect_timeout=within
    )
    made.until = until
    return made


class Place(NamedTuple):
    """Of a server: what is shown of its address, and the password, which is not."""

    shown: str
    password: str

    @classmethod
    def of(cls, address: str, setting: str) -> "Place":
        """Host, port and database. Raises BadInput, naming the setting: it is no address."""
        try:
            if not POSTGRES.fullmatch(address):
                raise psycopg.ProgrammingError
            parts = conninfo_to_dict(address)
        except psycopg.Error:  # whose text may quote a part of the password
            raise BadInput(
                f"{setting}: this is no address of a Postgres server, such as postgresql://user@host:5432/database (in "
                "a password, write /, @ and the like as %2F, %40)"
            ) from None
        named = {name: str(parts.get(name) or "") for name in ("user", "host", "port", "dbname", "password")}
        host = named["host"] or os.environ.get("PGHOST") or "the local server"
        port = f":{named['port']}" if named["port"] else ""
        by = f"{named['user']}@" if named["user"] else ""
        shown = f"{by}{host}{port}/{named['dbname'] or named['user']}"
        return cls(shown, named["password"] or os.environ.get("PGPASSWORD", ""))

    def said(self, error: psycopg.Error) -> str:
        """The error in one line, without the password."""
        text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        return text.replace(self.password, "…") if self.password else text

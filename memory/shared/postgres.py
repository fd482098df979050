"""Answers of the LLM, and what rounds brought, in one Postgres for runs on several machines.

Each call connects anew: it comes once an answer or a round, and so it finds a server that was restarted.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from agent.errors import BadInput, NesyLoraError
from agent.policy.experience import Experience
from memory.shared.waiting import told

if TYPE_CHECKING:
    import psycopg

T = TypeVar("T")

PATIENCE = 60.0  # seconds for a server that is down, hangs, or has its tables made by another
WAITS = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 28.0)  # seconds before a statement is sent again: within PATIENCE
TABLES = (
    "CREATE TABLE IF NOT EXISTS nesylora_replies (key text PRIMARY KEY, reply bytea NOT NULL)",
    "CREATE TABLE IF NOT EXISTS nesylora_experience (origin text, run text, number integer, line text NOT NULL, "
    "written bigserial, PRIMARY KEY (origin, run, number))",
)  # bytea: an answer may hold a NUL, which text does not take
MADE = "SELECT to_regclass('nesylora_replies') IS NOT NULL AND to_regclass('nesylora_experience') IS NOT NULL"
LOCK = 7_243_908  # two that make a table at once would fail


class Database:
    """A Postgres database, named as libpq does; passwords come from PGPASSWORD or ~/.pgpass.

    Raises:
        BadInput: psycopg is not installed.
        NesyLoraError: here and from all that uses it: the server does not answer for a minute, or refuses.
    """

    def __init__(self, address: str) -> None:
        try:
            from memory.shared.connection import Place
        except ImportError as error:
            raise BadInput("memory.postgres needs psycopg: pip install 'nesylora[postgres]'") from error
        self._address, self._place = address, Place.of(address, "memory.postgres")
        self._do(self._make_tables)

    def rows(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        """What a query returns."""
        return self._do(lambda connection: connection.execute(statement, values).fetchall())

    def write(self, statement: str, values: Sequence[Sequence[object]]) -> None:
        """Run the statement for each of these, all or none."""

        def write(connection: "psycopg.Connection") -> None:
            with connection.transaction():
                connection.cursor().executemany(statement, values)

        self._do(write)

    @staticmethod
    def _make_tables(connection: "psycopg.Connection") -> None:
        import psycopg

        if connection.execute(MADE).fetchone() == (True,):
            return  # and nobody's lock matters
        with connection.transaction():
            if connection.execute("SELECT pg_try_advisory_xact_lock(%s)", [LOCK]).fetchone() != (True,):
                raise psycopg.errors.LockNotAvailable(
                    f"its tables are not made, and another session holds the advisory lock {LOCK} (it is in pg_locks)"
                )
            for table in TABLES:
                connection.execute(table)

    def _do(self, use: "Callable[[psycopg.Connection], T]") -> T:
        with told(f"Postgres at {self._place.shown} (up to a minute)"):
            return self._patiently(use)

    def _patiently(self, use: "Callable[[psycopg.Connection], T]") -> T:
        import psycopg

        from memory.shared.connection import connect

        until = time.monotonic() + PATIENCE
        for wait in (*WAITS, None):
            try:
                with connect(self._address, until) as connection:
                    return use(connection)
            except psycopg.OperationalError as error:
                if wait is None or time.monotonic() + wait > until:
                    raise NesyLoraError(
                        f"Postgres at {self._place.shown} does not answer: {self._place.said(error)}. Mend that, or "
                        "start it, then resume."
                    ) from None
                time.sleep(wait)
            except psycopg.Error as error:
                raise NesyLoraError(
                    f"Postgres at {self._place.shown} refuses a statement: {self._place.said(error)}. Mend that, then "
                    "resume."
                ) from None
        raise AssertionError("the last try returns or raises")


@cache
def database(address: str) -> Database:
    """The database at this address, its tables made at the first call of a process."""
    return Database(address)


class PostgresReplies:
    """Satisfies `agent.protocols.Replies`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, key: str) -> str | None:
        """The answer that was put under just this key, or None."""
        found = self._database.rows("SELECT reply FROM nesylora_replies WHERE key = %s", key)
        return bytes(found[0][0]).decode("utf-8", "surrogatepass") if found else None  # type: ignore[call-overload]

    def put(self, key: str, reply: str) -> None:
        """Keeps an answer. An earlier answer under the same key stays."""
        statement = "INSERT INTO nesylora_replies VALUES (%s, %s) ON CONFLICT DO NOTHING"
        self._database.write(statement, [(key, reply.encode("utf-8", "surrogatepass"))])


class PostgresExperience:
    """What rounds of all runs brought. Satisfies `memory.experience.ExperienceStore`.

    Args:
        origin: the name of the runs' folder; see memory/shared/origin.py.
    """

    def __init__(self, database: Database, origin: str) -> None:
        self._database, self._origin = database, origin

    def read(self) -> list[Experience]:
        """All lines, in the order written; each round of each run once. Each says which folder it is from."""
        found = self._database.rows("SELECT origin, line FROM nesylora_experience ORDER BY written")
        return [
            Experience.model_validate_json(str(line)).model_copy(update={"origin": str(origin)})
            for origin, line in found
        ]

    def complete(self, lines: Iterable[Experience]) -> None:
        """Adds those of these lines that are not there: of runs that used a file, or that the database has lost."""
        known = set(self._database.rows("SELECT run, number FROM nesylora_experience WHERE origin = %s", self._origin))
        if missing := [line for line in lines if (line.run, line.number) not in known]:
            self._write(missing)

    def append(self, line: Experience) -> None:
        """Adds a line that is on the server's disk when this returns. The same round a second time changes nothing."""
        self._write([line])

    def _write(self, lines: Iterable[Experience]) -> None:
        self._database.write(
            "INSERT INTO nesylora_experience (origin, run, number, line) VALUES (%s, %s, %s, %s) "
            "ON CONFLICT DO NOTHING",
            [(self._origin, line.run, line.number, line.model_dump_json()) for line in lines],
        )

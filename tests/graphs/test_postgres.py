"""Checkpoints on a real Postgres server: kills, two runs at once, a wrong address, a server that goes away."""

import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.errors import BadInput, NesyLoraError
from agent.records.events import Note
from graphs.context import Silent, new_run
from graphs.postgres import SETTING_UP, PostgresCheckpoints
from graphs.session import open_session
from memory.run.folder import RunFolder
from memory.shared.connection import connect
from memory.shared.postgres import LOCK, Database
from tests.faults.zygote import Play, Zygote, zygote
from tests.fixtures.learnable import LEARNABLE, TinyTask
from tests.fixtures.postgres import PASSWORD, PostgresServer, postgres_server

NAME = "NESYLORA_TEST_POSTGRES"
SETTINGS = ["policy=w -> p", "seed=1", "budget.rounds=2", "lora.epochs=3", f"checkpoints=${NAME}"]
ROWS = "SELECT count(*) FROM checkpoints"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as started:
        yield started


@pytest.fixture(scope="module")
def processes(tiny_model: Callable[[str], Path], server: PostgresServer) -> Iterator[Zygote]:
    with zygote(tiny_model("llama")) as made:
        yield made


@pytest.fixture(autouse=True)
def address(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """In the environment: no file of the run holds it."""
    monkeypatch.setenv(NAME, server.address())
    return {NAME: server.address()}


def outline(run: RunFolder) -> list[object]:
    return [(row.number, row.trial.candidate, row.verdict, row.best) for row in run.rounds()]


def test_two_runs_of_one_name_that_are_killed_in_turn_go_on_within_their_rounds(
    processes: Zygote, tiny_task: TinyTask, tmp_path: Path, server: PostgresServer, address: dict[str, str]
) -> None:
    task = tiny_task(**LEARNABLE)
    first, second = (new_run(task, SETTINGS, tmp_path / name, "same") for name in ("a", "b"))
    whole = new_run(task, SETTINGS[:-1], tmp_path / "whole")
    for run in (first, second):
        assert processes.play(run.path, Play("before the beginning of judge"), address).killed
    assert server.ask("SELECT count(DISTINCT thread_id) FROM checkpoints") == "2"
    assert int(server.ask(ROWS)) == 4, "the last two of each"
    for run in (whole, first, second):
        played = processes.play(run.path, environment=address)
        assert not played.error, played.error
        trained = "before the beginning of train_lora" in played.points
        assert trained == (run is whole), "the training stood in a checkpoint"
        assert outline(run) == outline(whole) and run.outcome() is not None
    tables = ("checkpoints", "checkpoint_writes", "checkpoint_blobs")
    assert [server.ask(f"SELECT count(*) FROM {table}") for table in tables] == ["0"] * 3, "of ended runs nothing stays"
    files = [file.read_bytes() for file in (tmp_path / "a").rglob("*") if file.is_file()]
    assert not [data for data in files if b"postgresql://" in data or PASSWORD.encode() in data]
    assert not first.checkpoints.exists()


def test_tables_are_made_once_by_processes_that_come_at_once(server: PostgresServer, address: dict[str, str]) -> None:
    for table in ("checkpoints", "checkpoint_writes", "checkpoint_blobs", "checkpoint_migrations"):
        server.ask(f"DROP TABLE IF EXISTS {table}")

    def use(thread: str) -> str | None:
        saver = PostgresCheckpoints(address[NAME], thread, pytest.fail)
        try:
            return saver.newest()
        finally:
            saver.close()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(use, "abcd")) == [None] * 4


@pytest.mark.parametrize("wrong", ["another/pass@word", "port"])
def test_a_wrong_address_names_the_place_and_no_password(
    wrong: str, tiny_task: TinyTask, tmp_path: Path, server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = f"night@127.0.0.1:{server.port}/postgres"
    monkeypatch.setenv(NAME, server.address(wrong))
    if wrong == "port":
        monkeypatch.setenv(NAME, server.address().replace(str(server.port), "9"))
        shown = "night@127.0.0.1:9/postgres"
    run = new_run(tiny_task(), SETTINGS, tmp_path / "runs")
    with pytest.raises(NesyLoraError) as said, open_session(run) as session:
        session.go()
    text = "".join(traceback.format_exception(said.value))
    assert f"checkpoints at {shown} cannot be used" in str(said.value) and "go on with resume" in str(said.value)
    assert not [part for part in (wrong, PASSWORD, "%2F", "%40") if part != "port" and part in text]


def test_what_is_no_address_or_no_variable_or_holds_a_password_is_refused(
    tiny_task: TinyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(tiny_task(), SETTINGS, tmp_path / "runs")
    broken = f"postgresql://night:{PASSWORD}@127.0.0.1/x"  # the slash of the password ends the host
    for value, fault in {"": "is not set", broken: "no address of a Postgres server"}.items():
        monkeypatch.setenv(NAME, value)
        with pytest.raises(BadInput, match=fault) as said, open_session(run) as session:
            session.go()
        assert PASSWORD not in str(said.value) and "cret" not in str(said.value)
        run = new_run(tiny_task(), SETTINGS, tmp_path / "runs")
    with pytest.raises(BadInput, match="a password must not stand in a file"):
        new_run(tiny_task(), [f"checkpoints={broken}"], tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
    with pytest.raises(BadInput, match="checkpoints"):
        new_run(tiny_task(), ["checkpoints=mysql://127.0.0.1/x"], tmp_path / "runs")


class At(Silent):
    """Does something once a training begins; or once anything takes a while."""

    def __init__(self, do: Callable[[], object], whatever: bool = False) -> None:
        self._do: Callable[[], object] | None = do
        self._whatever = whatever

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        if self._do and (self._whatever or what == "training LoRA"):
            do, self._do = self._do, None
            do()


def test_a_server_that_goes_away_is_named_and_one_that_comes_back_is_waited_for(
    tiny_task: TinyTask, tmp_path: Path, server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = tiny_task(**LEARNABLE)
    whole = new_run(task, SETTINGS, tmp_path / "whole")
    with open_session(whole) as session:
        session.go()
    run = new_run(task, SETTINGS, tmp_path / "runs")
    monkeypatch.setattr("graphs.postgres.PATIENCE", 1.0)
    with (
        pytest.raises(NesyLoraError, match=rf"127\.0\.0\.1:{server.port}/postgres cannot be used") as said,
        open_session(run, listener=At(server.stop)) as session,
    ):
        session.go()
    assert PASSWORD not in str(said.value)
    server.start()

    def restart() -> None:
        server.stop()
        threading.Timer(1.0, server.start).start()

    monkeypatch.setattr("graphs.postgres.PATIENCE", 60.0)
    before = len(run.events().of(Note))
    with open_session(run, listener=At(restart, whatever=True)) as session:  # the training was over
        waits, waiting = list[str](), session.services.waiting
        monkeypatch.setattr(
            session.services, "waiting", lambda text: (waiting(text), waits.append(session.services.waits))
        )
        session.go()
    assert outline(run) == outline(whole) and run.outcome() is not None
    notes = [note.text for note in run.events().of(Note)[before:] if note.text.startswith("Waiting for")]
    assert len(notes) == 1 and notes[0].startswith("Waiting for night@127.0.0.1")
    assert waits == [notes[0], ""], "a status shows it as long as it waits"


@pytest.fixture
def saver(server: PostgresServer, address: dict[str, str]) -> Iterator[PostgresCheckpoints]:
    made = PostgresCheckpoints(address[NAME], "thread", lambda said: None)
    yield made
    made.close()


def test_a_connection_that_hangs_is_given_up_for_another(
    saver: PostgresCheckpoints, server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memory.shared.connection.ANSWERS", 0.3)
    before = saver.conn
    with server.frozen():
        assert saver.newest() is None
    assert before.closed and not saver.conn.closed


def test_a_server_that_hangs_is_named_once_patience_ends(
    saver: PostgresCheckpoints, server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphs.postgres.PATIENCE", 1.0)
    named = pytest.raises(NesyLoraError, match=rf"127\.0\.0\.1:{server.port}/postgres cannot be used")
    with server.frozen(everything=True), named as said:
        saver.newest()
    assert PASSWORD not in str(said.value)
    monkeypatch.undo()
    monkeypatch.setattr("memory.shared.connection.ANSWERS", 0.3)
    monkeypatch.setattr("memory.shared.postgres.PATIENCE", 1.0)
    database = Database(server.address())
    with server.frozen(everything=True), pytest.raises(NesyLoraError, match=f"{server.port}/postgres does not answer"):
        database.rows("SELECT 1")
    assert saver.newest() is None and database.rows("SELECT 1") == [(1,)]


def test_a_lock_that_another_session_keeps_matters_only_before_the_tables_are_made(
    server: PostgresServer, address: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for patience in ("graphs.postgres.PATIENCE", "memory.shared.postgres.PATIENCE"):
        monkeypatch.setattr(patience, 1.0)
    makers: list[Callable[[], object]] = [
        lambda: PostgresCheckpoints(address[NAME], "thread", lambda said: None).close(),
        lambda: Database(address[NAME]),
    ]
    tables = "checkpoints, checkpoint_writes, checkpoint_blobs, checkpoint_migrations, nesylora_replies"
    with connect(address[NAME]) as other:
        for make in makers:
            make()
        for lock in (SETTING_UP, LOCK):
            other.execute("SELECT pg_advisory_lock(%s)", [lock])
        for make in makers:
            make()
        server.ask(f"DROP TABLE {tables}")
        for make in makers:
            with pytest.raises(
                NesyLoraError, match=rf"127\.0\.0\.1:{server.port}/postgres .*advisory lock \d+"
            ) as said:
                make()
            assert PASSWORD not in str(said.value)
    for make in makers:
        make()

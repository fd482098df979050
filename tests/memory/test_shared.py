"""Several writers on one Chroma server and one Postgres, which are killed and started again: nothing lost or twice."""

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from agent.errors import BadInput, NesyLoraError
from agent.policy.experience import Experience
from eval.tasks.task import load_task
from graphs.services.run_memory import open_memory
from memory.prompts import PromptMemory, rebuild
from memory.shared import chroma_server, postgres
from memory.shared.origin import origin_of, server_of
from memory.shared.postgres import Database, PostgresExperience, PostgresReplies
from tests.agent.test_experience import a_line
from tests.memory.test_prompts import ROOT, count_words, entry, words

WRITE = """
import sys
from pathlib import Path
from tests.memory.test_prompts import count_words, entry, words
from memory.prompts import PromptMemory
address, root = sys.argv[1], Path(sys.argv[2])
for number in range(40):
    with PromptMemory.open(root / "memory", count_words, server=address) as memory:
        memory.remember(entry(prompt=words(f"Be brief, {number}."), run="demo"))
    print(number, flush=True)
"""


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


class Server:
    """Chroma's own server on a port of its own; it may be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.port, self.address = free_port(), ""
        self.folder = folder
        self.address = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        chroma = Path(sys.executable).with_name("chroma")
        command = [chroma, "run", "--path", self.folder, "--host", "127.0.0.1", "--port", str(self.port)]
        with self.folder.with_suffix(".log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        while True:
            assert self._process.poll() is None, self.folder.with_suffix(".log").read_text()
            try:
                httpx.get(f"{self.address}/api/v2/heartbeat")
                return
            except httpx.TransportError:
                time.sleep(0.05)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("server") / "chroma")
    made.start()
    yield made
    made.kill()


def test_two_writers_lose_nothing_while_the_server_is_killed_and_started_again(server: Server, tmp_path: Path) -> None:
    """Both have runs of one name, in folders of their own."""
    roots = [tmp_path / "one", tmp_path / "two"]
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITE, server.address, root], stdout=subprocess.PIPE, cwd=ROOT)
        for root in roots
    ]
    for writer in writers:
        assert writer.stdout and writer.stdout.readline()  # both are at it
    server.kill()
    time.sleep(1)
    server.start()
    assert [writer.wait() for writer in writers] == [0, 0]
    with PromptMemory.open(roots[0] / "memory", count_words, server=server.address) as memory:
        assert memory.count() == 80
        found = [recalled.entry.prompt.system for recalled in memory.search("answer valley bees", 100)]
        assert sorted(found) == sorted(f"Be brief, {number}." for number in range(40) for _ in roots)
        memory.remember(entry(prompt=words("Be brief, 7."), run="demo"))  # as after a kill
        assert memory.count() == 80


def test_a_server_gets_the_prompts_of_earlier_runs_once_and_again_after_it_lost_them(tmp_path: Path) -> None:
    root, notes = tmp_path / "runs", list[str]()
    for number in (1, 2):
        fresh = Server(tmp_path / f"chroma-{number}")
        fresh.start()
        try:
            with PromptMemory.open(root / "memory", count_words, server=fresh.address) as memory:
                assert memory.rebuilt and memory.count() == 0
                rebuild(memory, [entry()])
            with open_memory(root, count_words, notes.append, server=fresh.address) as memory:
                assert not memory.rebuilt and memory.count() == 1
            assert server_of(root) == fresh.address and not notes
        finally:
            fresh.kill()


def test_a_server_that_does_not_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chroma_server, "WAITS", (0.01,))
    address = f"http://127.0.0.1:{free_port()}"
    gone = pytest.raises(NesyLoraError, match=f"server at {address} does not answer .*chroma run --path")
    with gone, PromptMemory.open(tmp_path / "memory", count_words, server=address):
        pass


# --- Postgres ----------------------------------------------------------------------------------------


class Postgres:
    """A server of its own, on a socket in its folder."""

    def __init__(self, folder: Path, user: str | None) -> None:
        self.address = f"postgresql://nesylora@/postgres?host={folder}"
        self._folder, self._user = folder, user
        self._run("initdb", "-D", folder / "data", "-U", "nesylora", "-A", "trust", "--no-sync")

    def start(self) -> None:
        options = f"-c listen_addresses='' -k {self._folder}"
        self._run("pg_ctl", "-D", self._folder / "data", "-l", self._folder / "log", "-o", options, "-w", "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", self._folder / "data", "-m", "immediate", "-w", "stop")

    def _run(self, *command: str | Path) -> None:
        subprocess.run(command, check=True, user=self._user, stdout=subprocess.DEVNULL, cwd=self._folder)


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    pytest.importorskip("psycopg", reason="pip install 'nesylora[postgres]'")
    if shutil.which("initdb") is None:
        pytest.skip("no Postgres server here")
    user = "postgres" if os.getuid() == 0 else None  # which it must not run as
    if user and user not in {known.pw_name for known in pwd.getpwall()}:
        pytest.skip("Postgres does not run as root")
    with tempfile.TemporaryDirectory(prefix="pg") as place:
        if user:
            shutil.chown(place, user)
        made = Postgres(Path(place), user)
        made.start()
        yield made
        made.stop()


def a_round(run: str, number: int) -> Experience:
    return a_line().model_copy(update={"run": run, "number": number})


def test_replies_and_rounds_stand_once_in_postgres_through_a_crash(database: Postgres) -> None:
    one, two = Database(database.address), Database(database.address)
    replies, others = PostgresReplies(one), PostgresReplies(two)
    replies.put("key", "an answer\x00with a NUL, and 'quotes'")
    others.put("key", "a later one")
    assert replies.get("key") == others.get("key") == "an answer\x00with a NUL, and 'quotes'"
    assert others.get("other") is None
    earlier = [a_round("demo", 1)]
    here, there = (PostgresExperience(base, name, lambda: earlier) for base, name in ((one, "a"), (two, "b")))
    database.stop()  # at once, as by a power cut
    database.start()
    for store in (here, here, there):
        store.append(a_round("demo", 2))
    again = PostgresExperience(one, "a", lambda: pytest.fail("the ledgers are read once"))
    assert [line.number for line in again.read()] == [1, 1, 2, 2] and replies.get("key") is not None


def test_postgres_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    monkeypatch.setattr(postgres, "WAITS", ())
    with pytest.raises(NesyLoraError, match=r"Postgres at .* does not answer: .*start it, then resume"):
        Database(f"postgresql://nobody@/none?host={tmp_path}")


# --- settings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("memory.chroma=10.0.0.5:8000", "http://HOST:PORT"),
        ("memory.postgres=postgresql://me:secret@db/nesylora", "PGPASSWORD"),
        ("memory.postgres=postgresql://me:se/cret@db/nesylora", "PGPASSWORD"),
        ("memory.postgres=postgresql://me:se cret@db/nesylora", "PGPASSWORD"),
        ("memory.postgres=postgresql://db/nesylora?pass%77ord=secret", "PGPASSWORD"),
        ("memory.chroma=http://me:secret@db:8000", "http://HOST:PORT"),
        ("memory.chroma=http://db:8000?token=secret", "http://HOST:PORT"),
        ("memory.postgres=mysql://db/nesylora", "postgresql://USER@HOST/DATABASE"),
    ],
)
def test_addresses_are_checked_before_anything_begins(setting: str, message: str) -> None:
    with pytest.raises(BadInput, match=message) as said:
        load_task(ROOT / "tasks" / "valley" / "task.yaml", [setting])
    assert "cret" not in str(said.value)


def test_a_folder_of_runs_keeps_its_name(tmp_path: Path) -> None:
    first = origin_of(tmp_path)
    assert origin_of(tmp_path) == first and origin_of(tmp_path / "other").name != first.name
    (tmp_path / "shared.json").write_text("{")
    with pytest.raises(BadInput, match=r"shared\.json cannot be read. Remove it"):
        origin_of(tmp_path)

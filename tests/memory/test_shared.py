"""Several writers on one Chroma server and one Postgres, which are killed and started again: nothing lost or twice."""

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from agent.errors import BadInput, NesyLoraError
from agent.policy.experience import Experience, distinct
from eval.tasks.task import load_task
from graphs.context import Context, new_run
from graphs.services.run import RunServices
from graphs.services.run_memory import open_memory
from graphs.workers import ray_cluster
from memory.prompts import PromptMemory, rebuild
from memory.run.folder import RunFolder, runs
from memory.shared import chroma_server, postgres, waiting
from memory.shared.origin import origin_of, server_of
from memory.shared.postgres import Database, PostgresExperience, PostgresReplies
from tests.fixtures.outlooks import a_line
from tests.fixtures.rounds import EDIT
from tests.fixtures.rounds import a_round as a_row
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


@pytest.mark.parametrize("shared", [False, True])
def test_a_memory_is_given_what_runs_left_in_their_folders_that_used_another(
    shared: bool, server: Server, tmp_path: Path
) -> None:
    """Also what it had, and lost with its folder put back from a copy."""
    root, address, notes = tmp_path / "runs", server.address if shared else "", list[str]()
    run = RunFolder.create(root, "valley", "", tmp_path, "0" * 12, name="valley-1")

    def held(compare: bool = True) -> int:
        with open_memory(root, count_words, notes.append, server=address, compare=compare) as memory:
            return len(memory.search("answer valley bees", 1000, model="left behind"))

    here, there = (
        entry(prompt=words(f"Be brief, {place}."), model="left behind", run=run.name) for place in ("here", "there")
    )
    run.keep(here)
    assert held() == 1
    run.keep(there)  # as with another memory
    assert held(compare=False) == 1
    assert (held(), held(), len(notes)) == (2, 2, 2)
    with open_memory(root, count_words, notes.append, server=address) as memory:
        memory._shelf._collection.delete(where={"run": run.name})
        memory.remember(here.model_copy(update={"model": "another", "prompt": words("Be long.")}))
    assert held() == 2


def test_nobody_waits_for_the_memory_while_another_reads_the_run_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, counted = tmp_path / "runs", list[int]()

    def read(root: Path) -> list[RunFolder]:
        with PromptMemory.open(root / "memory", count_words) as memory:  # would raise Busy
            counted.append(memory.count())
        return runs(root)

    monkeypatch.setattr("graphs.services.run_memory.runs", read)
    run = RunFolder.create(root, "valley", "", tmp_path, "0" * 12, name="valley-1")
    run.keep(entry(run=run.name))
    with open_memory(root, count_words, print, compare=True) as memory:
        assert memory.count() == 1 and counted == [0]


def test_a_run_compares_once_what_the_memory_has(tiny_task: Callable[..., Path], tmp_path: Path) -> None:
    first, second = (RunServices(Context(run=str(new_run(tiny_task(), runs=tmp_path / "runs").path))) for _ in range(2))
    first.memory.remember(entry(run=first.folder.name))
    for number, service, wanted in ((1, first, 1), (2, second, 3), (3, second, 3)):
        first.folder.keep(entry(prompt=words(f"Be brief, {number}."), run=first.folder.name))  # as with a server
        with service.memory.open() as memory:
            assert memory.count() == wanted


@contextmanager
def proxy(behind: str, fails: dict[str, int]) -> Iterator[str]:
    """The address of a proxy that answers each path so many times with 503 before it passes it on; `*`: of any."""

    class Proxy(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if fails.setdefault(self.path, fails["*"]):
                fails[self.path] -= 1
                self._answer(503, b"<html>no server is available</html>")
                return
            got = httpx.request(
                self.command, behind + self.path, content=body, headers={"Content-Type": "application/json"}
            )
            self._answer(got.status_code, got.content)

        do_GET = do_POST

        def _answer(self, code: int, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_proxy_whose_server_is_down_is_asked_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chroma_server, "WAITS", (0.01,) * 12)
    kept = entry(run="behind a proxy", model="behind a proxy")
    with proxy(server.address, {"*": 1}) as address:
        with PromptMemory.open(tmp_path / "memory", count_words, server=address) as memory:
            memory.remember(kept)
            [found] = memory.search(kept.meaning, 1000, model=kept.model)
        assert found.entry == kept
    with proxy(server.address, {"*": 1000}) as address:
        down = pytest.raises(NesyLoraError, match=r"does not answer \(.*503")
        with down, PromptMemory.open(tmp_path / "memory", count_words, server=address):
            pass


def test_a_server_that_hangs_has_a_minute_in_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chroma_server, "PATIENCE", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and never answers
        hangs = pytest.raises(NesyLoraError, match=r"does not answer \(.*timed out")
        with (
            hangs,
            PromptMemory.open(tmp_path / "memory", count_words, server=f"http://127.0.0.1:{silent.getsockname()[1]}"),
        ):
            pass


@pytest.mark.parametrize("kind", ["Chroma", "Postgres", "Ray"])
def test_a_wait_is_told_of_once_and_a_server_that_answers_soon_is_not_waited_for(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and never answers
        place = f"127.0.0.1:{silent.getsockname()[1]}"

        def slow(**_: object) -> None:
            time.sleep(0.5)
            raise ConnectionError("nobody there")

        def ask() -> None:
            with pytest.raises(NesyLoraError):
                match kind:
                    case "Chroma":
                        with PromptMemory.open(tmp_path / "memory", count_words, server=f"http://{place}"):
                            pass
                    case "Postgres":
                        Database(f"postgresql://night@{place}/runs")
                    case "Ray":
                        ray_cluster.RayCrew(f"ray://{place}", None, None)

        monkeypatch.setattr(ray_cluster, "_ray", lambda: SimpleNamespace(init=slow))
        for part in (chroma_server, postgres):
            monkeypatch.setattr(part, "PATIENCE", 0.5)
        monkeypatch.setattr(waiting, "SOON", 1000)
        ask()
        assert capsys.readouterr().err == ""
        monkeypatch.setattr(waiting, "SOON", 0.05)
        ask()
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and said.startswith("nesylora: waiting for ") and kind in said and place in said
        ask()
        assert capsys.readouterr().err == ""


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


def demos(store: PostgresExperience) -> list[tuple[str, str, int]]:
    return [line.key for line in store.read() if line.run == "demo"]


def test_replies_and_rounds_stand_once_in_postgres_through_a_crash(database: Postgres) -> None:
    one, two = Database(database.address), Database(database.address)
    replies, others = PostgresReplies(one), PostgresReplies(two)
    replies.put("key", "an answer\x00with a NUL, and 'quotes'")
    others.put("key", "a later one")
    assert replies.get("key") == others.get("key") == "an answer\x00with a NUL, and 'quotes'"
    assert others.get("other") is None
    here, there = (PostgresExperience(base, name) for base, name in ((one, "a"), (two, "b")))
    for store in (here, there, here):
        store.complete([a_round("demo", 1)])
    database.stop()  # at once, as by a power cut
    database.start()
    for store in (here, here, there):
        store.append(a_round("demo", 2))
    assert replies.get("key") is not None
    known = [("a", "demo", 1), ("b", "demo", 1), ("a", "demo", 2), ("b", "demo", 2)]
    assert demos(here) == known
    here.complete([a_round("demo", number) for number in (1, 2, 3)])  # the third: of a run without it
    assert demos(here) == [*known, ("a", "demo", 3)]
    assert len({line.key for line in distinct(here.read())} & set(demos(here))) == 5


def test_runs_of_one_name_on_two_machines_learn_from_each_other(
    database: Postgres, tiny_task: Callable[..., Path], tmp_path: Path
) -> None:
    settings = [f"memory.postgres={database.address}", "policy=learned"]
    nights = [
        RunServices(Context(run=str(new_run(tiny_task(), settings, tmp_path / machine, "night").path)))
        for machine in ("one", "two")
    ]
    for number, night in enumerate(nights, 1):
        night.memory.note(a_row(EDIT, number=number, gain=0.1))
    for number, night in enumerate(reversed(nights), 1):
        assert [line.number for line in night.memory.experience if line.run == "night"] == [number]


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
        ("memory.chroma=http://127.0.0.1:1x", "http://HOST:PORT"),
        ("memory.chroma=http://127.0.0.1:99999", "http://HOST:PORT"),
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

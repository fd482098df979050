"""The LLM's answers on disk: SQLite, shared by threads and processes, and begun anew when damaged."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.errors import NesyLoraError
from memory.replies import ReplyStore

ROOT = Path(__file__).resolve().parents[2]

WRITER = """
import sys
from pathlib import Path
from memory.replies import ReplyStore
print("ready", flush=True)
sys.stdin.readline()
store = ReplyStore(Path(sys.argv[1]))
for number in range(50):
    store.put(f"shared {number}", sys.argv[2])
    store.put(f"{sys.argv[2]} {number}", "own")
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "deeper" / "replies.sqlite"


def test_an_answer_is_there_for_the_next_run_under_its_own_key_alone(file: Path) -> None:
    reply = "line\u2028 é\n\0" + "long " * 100_000
    ReplyStore(file).put("a", reply)
    store = ReplyStore(file)
    assert (store.get("a"), store.get("b"), store.get("A"), store.corrupt) == (reply, None, None, None)


def test_the_first_answer_under_a_key_stays(file: Path) -> None:
    first, second = ReplyStore(file), ReplyStore(file)
    first.put("a", "one")
    second.put("a", "two")
    assert first.get("a") == second.get("a") == "one"


def test_threads_and_processes_write_at_once_and_nothing_is_lost(file: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(file)]
    writers = [
        subprocess.Popen([*command, name], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for name in ("b", "c")
    ]
    for writer in writers:
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.close()
    store = ReplyStore(file)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: store.put(f"shared {number % 50}", "a"), range(200)))
    assert [writer.wait() for writer in writers] == [0, 0]
    assert {store.get(f"shared {number}") for number in range(50)} <= {"a", "b", "c"}
    assert {store.get(f"{name} {number}") for name in ("b", "c") for number in range(50)} == {"own"}


def test_a_file_that_is_no_database_is_moved_aside_whole(file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(b"not a database" * 1000)
    store = ReplyStore(file)
    assert store.corrupt is not None and store.corrupt.read_bytes() == b"not a database" * 1000
    store.put("a", "one")
    assert ReplyStore(file).get("a") == "one"


def test_damage_that_shows_only_in_use_is_met_where_it_shows(file: Path) -> None:
    store = ReplyStore(file)
    for number in range(2000):
        store.put(f"{number}", "x" * 100)
    store._database.close()  # so that all stands in the one file
    data = bytearray(file.read_bytes())
    data[8192:] = bytes(len(data) - 8192)
    file.write_bytes(data)

    store = ReplyStore(file)
    assert store.corrupt is None
    assert store.get("1500") is None
    assert store.corrupt is not None and store.corrupt.exists()
    store.put("1500", "again")
    assert ReplyStore(file).get("1500") == "again"


def test_a_file_that_cannot_be_used_is_named_and_left_alone(file: Path) -> None:
    file.mkdir(parents=True)
    with pytest.raises(NesyLoraError, match=r"replies\.sqlite cannot be used"):
        ReplyStore(file)
    assert file.is_dir()

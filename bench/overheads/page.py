"""What the page costs: the first answer for a long run, events on their way, memory over many of them.

Run: python -m bench.overheads.page [RUN]: a run folder whose rounds are taken again and again, to make a long one.
"""

import json
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from shutil import copytree, ignore_patterns

import anyio
import psutil
from fastapi.testclient import TestClient

from agent.records.events import Note
from graphs.control.anybody import Workers
from memory.run.folder import RunFolder
from ui.page.app import make_app
from ui.page.gate import Keys
from ui.page.place import Place
from ui.page.run.stream import Position, Reader

ROUNDS = 500
EVENTS = 20_000
HERE = "http://127.0.0.1:8765"


def long_run(source: Path, root: Path, rounds: int) -> RunFolder:
    """A run of so many rounds, of a real one's records; one in 25 is kept."""
    copytree(source, root / "long", ignore=ignore_patterns("adapters", "*.sqlite*"))
    run = root / "long"
    rows = [json.loads(line) for line in (run / "ledger.jsonl").read_text().splitlines()]
    told = [row for row in rows if row["kind"] == "round"]
    with (run / "ledger.jsonl").open("w") as ledger:
        ledger.write(json.dumps(rows[0]) + "\n")
        for number in range(1, rounds + 1):
            row = told[(number - 1) % len(told)]
            verdict = row["verdict"] | {"kept": number % 25 == 0}
            ledger.write(json.dumps(row | {"number": number, "verdict": verdict}) + "\n")
    return RunFolder.open(run)


def first_answers(root: Path, path: str, times: int = 15) -> list[float]:
    """Milliseconds until the page is there, the first of them with nothing read yet."""
    keys = Keys(root)
    client = TestClient(make_app(root, Workers(), keys), base_url=HERE)
    client.get(keys.link())
    return [_milliseconds(lambda: client.get(path).raise_for_status()) for _ in range(times)]


def events(root: Path, run: RunFolder, count: int) -> tuple[list[float], int, int]:
    """Milliseconds from an event to its message; then bytes that Python and the process hold more after so many."""
    reader = Reader(run, Place(root, Workers(), Keys(root)), Position(0, len(run.rounds())))

    async def follow() -> tuple[list[float], int, int]:
        late = []
        await reader.next()
        for number in range(20):
            began = time.perf_counter()
            run.event(Note(text=f"now {number}"))
            while not await reader.next():
                pass
            late.append((time.perf_counter() - began) * 1000)
        await pour(1000)  # caches fill
        tracemalloc.start()
        held, resident = tracemalloc.get_traced_memory()[0], psutil.Process().memory_info().rss
        await pour(count)
        more = tracemalloc.get_traced_memory()[0] - held
        return late, more, psutil.Process().memory_info().rss - resident

    async def pour(number: int) -> None:
        for start in range(0, number, 200):
            for place in range(start, start + 200):
                run.event(Note(text=f"note {place}"))
            await reader.next()

    return anyio.run(follow)


def _milliseconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def main(source: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        run = long_run(source, root, ROUNDS)
        answers = first_answers(root, "/runs/long")
        print(
            f"a run of {ROUNDS} rounds: first {answers[0]:.0f} ms, then median {statistics.median(answers[1:]):.0f} ms"
        )
        late, more, resident = events(root, run, EVENTS)
        print(f"an event to its message: median {statistics.median(late):.0f} ms, most {max(late):.0f} ms")
        print(f"after {EVENTS:,} events: Python holds {more:+,} bytes, the process {resident:+,}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""A prompt memory of a million entries: how many of the nearest ten a search finds, its time, memory and disk.

    python -m bench.studies.million_prompts FOLDER --count 1000000     # goes on where it was stopped

The vectors are synthetic: 384 numbers, of a mixture of 200 tasks in 32 dimensions, projected, with a little noise in
all others. A table row is printed at 10,000, 30,000, 100,000 … entries.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

import memory.chroma as chroma
from agent.records.examples import Prompt
from memory.prompts import Entry

SIZE, LATENT, TASKS = 384, 32, 200
STEP = 5000  # entries of one call
ASKED = 200
STOPS = (10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000)
Vectors = NDArray[np.float32]


def vectors_of(numbers: Sequence[int]) -> Vectors:
    """[N, D] of length 1; each the same whenever it is made."""
    base = np.random.default_rng(0)
    centres, projection = base.normal(size=(TASKS, LATENT)), base.normal(size=(LATENT, SIZE)) / np.sqrt(LATENT)
    made = np.empty((len(numbers), SIZE), np.float32)
    for place, number in enumerate(numbers):
        drawn = np.random.default_rng([1, number])
        latent = centres[number % TASKS] + 0.5 * drawn.normal(size=LATENT)
        made[place] = latent @ projection + 0.05 * drawn.normal(size=SIZE)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made


def entries(start: int, end: int) -> Iterator[Entry]:
    for number in range(start, end):
        yield Entry(
            prompt=Prompt(system=f"{number}: answer in the wanted form, and briefly."), task=f"task-{number % TASKS}",
            profile=str(number), model="smollm2-135m", reward=number % 100 / 100, gain=0.1, kept=True, round=1,
            run=f"run-{number}",
        )  # fmt: skip


def embed(texts: Sequence[str]) -> list[list[float]]:
    found: list[list[float]] = vectors_of([int(text.split()[0]) for text in texts]).tolist()
    return found


def fill(shelf: chroma.Shelf, file: Path, count: int) -> float:
    """Until there are so many. The vectors also go into `file`, for an exact search. Returns seconds."""
    chroma.BATCH = STEP
    began = time.perf_counter()
    for start in range(shelf.count(), count, STEP):
        shelf.put(entries(start, min(count, start + STEP)))
    with file.open("ab") as out:
        for start in range(file.stat().st_size // (4 * SIZE), count, STEP):
            out.write(vectors_of(range(start, min(count, start + STEP))).tobytes())
    return time.perf_counter() - began


def measure(shelf: chroma.Shelf, file: Path, count: int) -> tuple[float, float, float]:
    """Share of the ten nearest that are found; and median and p95 of a search, in milliseconds."""
    known = np.memmap(file, np.float32, "r", shape=(count, SIZE))
    asked = vectors_of(range(10**9, 10**9 + ASKED))
    likeness = np.concatenate([asked @ known[start : start + 100_000].T for start in range(0, count, 100_000)], axis=1)
    nearest = np.argpartition(-likeness, 10, axis=1)[:, :10]
    shelf.nearest(asked[0].tolist(), 10)  # the index is read at the first
    hits, times = 0, []
    for vector, exact in zip(asked.tolist(), nearest, strict=True):
        began = time.perf_counter()
        found = shelf.nearest(vector, 10)
        times.append(1000 * (time.perf_counter() - began))
        hits += len({str(row["run"]) for row, _ in found} & {f"run-{number}" for number in exact})
    return hits / (10 * ASKED), float(np.median(times)), float(np.percentile(times, 95))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=1_000_000)
    options = parser.parse_args()
    folder, file = options.folder / "memory", options.folder / "vectors.f32"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    print("| entries | recall at 10 | median, ms | p95, ms | memory, GB | disk, GB | filling, s |")
    print("|---|---|---|---|---|---|---|")
    for count in [stop for stop in STOPS if stop < options.count] + [options.count]:
        with chroma.ChromaFolder.open(folder) as opened:
            shelf = opened.shelf("prompts", embed)
            if shelf.count() > count:
                continue
            seconds = fill(shelf, file, count)
            recall, middle, late = measure(shelf, file, count)
            held = psutil.Process().memory_info().rss / 1e9
        disk = sum(part.stat().st_size for part in folder.rglob("*") if part.is_file()) / 1e9
        row = f"| {count:,} | {recall:.3f} | {middle:.1f} | {late:.1f} | {held:.2f} | {disk:.2f} | {seconds:.0f} |"
        print(row, flush=True)


if __name__ == "__main__":
    main()

"""A prompt memory of many entries: how long it takes to open it and to recall from it."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import numpy as np

from agent.records.base import Record
from agent.records.examples import Prompt
from memory.embedder import MiniLm
from memory.prompts import Entry, PromptMemory, rebuild

TASKS = 200  # clusters that the vectors fall into
SIZE = 384  # of the real embedder's vectors
ASKED = 20


class RecallCost(Record):
    """Milliseconds of the first opening (Chroma is imported) and of a later one, and medians of single requests.

    `recall`: of prompts for the common model, which two in seven entries match; `rare_recall`: for the other model,
    which one in 21 matches, so that Chroma has to filter. `embedding`: of the text to look for.
    """

    opening: float
    reopening: float
    recall: float
    rare_recall: float
    embedding: float


def many_prompts(folder: Path, count: int) -> RecallCost:
    """The times with a memory of `count` prompts, which is filled first unless `folder` holds one."""
    folder = filled(folder, count)
    opening = _opening(folder)
    reopening = _opening(folder)
    with PromptMemory.open(folder, _embed) as memory:
        memory.recall("0", model=None, limit=1, similarity=0)  # the index is read at the first
        recall, rare = (
            median(_seconds(memory, f"{asked}", model) for asked in range(ASKED)) for model in ("smollm2-135m", "other")
        )
    embedding = _embedding()
    return RecallCost(
        opening=1000 * opening,
        reopening=1000 * reopening,
        recall=1000 * recall,
        rare_recall=1000 * rare,
        embedding=1000 * embedding,
    )


def filled(folder: Path, count: int) -> Path:
    """A memory of `count` prompts in `folder`, filled unless it is complete already (a minute for 40,000)."""
    memory_folder = folder / str(count)
    whole = folder / f"{count}.whole"
    if not whole.exists():
        with PromptMemory.open(memory_folder, _embed) as memory:
            rebuild(memory, _entries(count))
        whole.touch()
    return memory_folder


def _opening(folder: Path) -> float:
    began = time.perf_counter()
    with PromptMemory.open(folder, _embed):
        return time.perf_counter() - began


def _seconds(memory: PromptMemory, profile: str, model: str) -> float:
    began = time.perf_counter()
    found = memory.recall(profile, model=model, limit=6, similarity=0.5)
    assert found, "prompts of the same cluster are near"
    return time.perf_counter() - began


def _embedding() -> float:
    embed, times = MiniLm(), []
    embed([""])
    for asked in range(ASKED):
        began = time.perf_counter()
        embed([f"Begin with ANSWER. Who keeps gate {asked}? Where is the mill? Who owns the inn? What is sown?"])
        times.append(time.perf_counter() - began)
    return median(times)


def _entries(count: int) -> Iterator[Entry]:
    for number in range(count):
        yield Entry(
            prompt=Prompt(system=f"{number}: answer in the wanted form, and briefly."), task=f"task-{number % TASKS}",
            profile=str(number), model="other" if number % 7 == 0 else "smollm2-135m", reward=number % 100 / 100,
            gain=0.1, kept=number % 3 == 0, round=1 + number % 20, run=f"run-{number // 50}",
        )  # fmt: skip


def _embed(texts: Sequence[str]) -> list[list[float]]:
    """A unit vector near the centre of the task that the text's first number names."""
    return [_vector(int(text.split()[0])) for text in texts]


def _vector(number: int) -> list[float]:
    centre = np.random.default_rng(number % TASKS).normal(size=SIZE)
    vector = centre + 0.7 * np.random.default_rng(TASKS + number).normal(size=SIZE)
    return list((vector / np.linalg.norm(vector)).tolist())

"""The prompt memory: Chroma on disk, with an embedder that counts words, and once with the real one."""

import math
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from agent.errors import Busy, NesyLoraError
from agent.records.examples import Demo, Prompt
from memory.embedder import MiniLm
from memory.prompts import WINDOW, Entry, PromptMemory, rebuild
from memory.rewrites import KeptRewrite

ROOT = Path(__file__).resolve().parents[2]
WORDS = ["answer", "valley", "bees", "number", "apples", "cost"]

HOLD = """
import sys, time
from pathlib import Path
from tests.memory.test_prompts import count_words, entry
from memory.prompts import PromptMemory
with PromptMemory.open(Path(sys.argv[1]), count_words) as memory:
    memory.remember(entry())
    print("held", flush=True)
    time.sleep(60)
"""


def count_words(texts: Sequence[str]) -> list[list[float]]:
    """How often each known word occurs, as a unit vector; one more dimension keeps it from being zero."""
    return [_unit([float(text.lower().split().count(word)) for word in WORDS] + [0.1]) for text in texts]


def _unit(vector: list[float]) -> list[float]:
    length = math.hypot(*vector)
    return [value / length for value in vector]


def entry(profile: str = "answer valley bees", **changes: object) -> Entry:
    usual = {
        "prompt": Prompt(system="Be brief.", demos=(Demo(question="q", answer="a"),)),
        "task": "valley",
        "profile": profile,
        "model": "tiny",
        "reward": 0.5,
        "gain": 0.25,
        "kept": True,
        "round": 1,
        "run": "valley-1",
    }
    return Entry.model_validate(usual | changes)


def words(system: str) -> Prompt:
    return Prompt(system=system)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "memory"


def garble(file: Path) -> None:
    file.write_bytes(b"not a database" * 1000)


def halve(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def overwrite(file: Path, place: float, share: float) -> None:
    """Zeroes the pages of a share of the file, from a place (of 1) on."""
    data = bytearray(file.read_bytes())
    start, end = (int(part * len(data)) // 4096 * 4096 for part in (place, place + share))
    data[start:end] = bytes(end - start)
    file.write_bytes(data)


def empty(file: Path) -> None:
    file.write_bytes(b"")


# --- what it remembers -----------------------------------------------------------------------------


def test_an_entry_comes_back_whole_in_a_later_session(folder: Path) -> None:
    with PromptMemory.open(folder, count_words) as memory:
        memory.remember(entry())
    with PromptMemory.open(folder, count_words) as memory:
        [found] = memory.recall("answer valley bees", model="tiny", limit=2, similarity=0.9)
        assert found.entry == entry()
        assert found.similarity == pytest.approx(1)
        assert not memory.rebuilt


def test_the_same_prompt_of_the_same_run_stands_once_with_its_last_scores(folder: Path) -> None:
    with PromptMemory.open(folder, count_words) as memory:
        memory.remember(entry(reward=0.5))
        memory.remember(entry(reward=0.75))
        assert memory.count() == 1
        assert memory.search("answer")[0].entry.reward == 0.75
        memory.remember(entry(run="valley-2"))
        assert memory.count() == 2


def test_recall_leaves_out_what_was_taken_back_what_is_far_and_other_models(folder: Path) -> None:
    with PromptMemory.open(folder, count_words) as memory:
        memory.remember(entry(prompt=words("kept"), reward=0.4))
        memory.remember(entry(prompt=words("taken back"), reward=0.9, kept=False))
        memory.remember(entry("number apples cost", prompt=words("far"), reward=0.9))
        memory.remember(entry(prompt=words("elsewhere"), reward=0.8, model="big"))

        def systems(model: str | None, similarity: float) -> list[str]:
            found = memory.recall("answer valley bees", model=model, limit=9, similarity=similarity)
            return [recalled.entry.prompt.system for recalled in found]

        assert systems("tiny", 0.8) == ["kept"]
        assert systems(None, 0.8) == ["elsewhere", "kept"]
        assert systems("tiny", 0.0) == ["far", "kept"]
        assert systems("none such", 0.0) == []


def test_recall_gives_each_prompt_once_at_its_best_by_reward_then_gain_then_similarity(folder: Path) -> None:
    with PromptMemory.open(folder, count_words) as memory:
        for run, reward in (("valley-1", 0.6), ("valley-2", 0.7)):
            memory.remember(entry(prompt=words("twice"), run=run, reward=reward))
        memory.remember(entry(prompt=words("gains more"), reward=0.6, gain=0.5))
        memory.remember(entry(prompt=words("nearer"), reward=0.6, gain=0.1))
        memory.remember(entry("answer valley bees bees", prompt=words("farther"), reward=0.6, gain=0.1))
        found = memory.recall("answer valley bees", model=None, limit=9, similarity=0.5)
        assert [recalled.entry.prompt.system for recalled in found] == ["twice", "gains more", "nearer", "farther"]
        assert found[0].entry.run == "valley-2"
        assert memory.recall("answer valley bees", model=None, limit=2, similarity=0.5) == found[:2]
        assert memory.recall("answer valley bees", model=None, limit=0, similarity=0.5) == []


def test_recall_finds_what_stands_behind_many_that_do_not_fit(folder: Path) -> None:
    near = [entry(prompt=words(str(number)), model="big", kept=number % 2 == 0) for number in range(WINDOW + 50)]
    with PromptMemory.open(folder, count_words) as memory:
        rebuild(memory, near)
        memory.remember(entry("answer valley bees bees", prompt=words("rare")))

        def systems(similarity: float) -> list[str]:
            found = memory.recall("answer valley bees", model="tiny", limit=3, similarity=similarity)
            return [recalled.entry.prompt.system for recalled in found]

        assert systems(0.5) == ["rare"]
        assert systems(0.999) == []


def test_recall_prefers_a_better_prompt_to_a_nearer_one_behind_many_that_were_taken_back(folder: Path) -> None:
    near = [
        entry(f"{'answer ' * (40 + number % 20)} {'valley ' * (40 + number // 20)} {'bees ' * 40}", **changes)
        for number in range(WINDOW)
        for changes in [{"prompt": words(f"near {number}"), "reward": 0.1, "kept": number < 6}]
    ]
    far = [entry("answer valley bees bees", prompt=words(f"far {number}"), reward=1.0) for number in range(6)]
    with PromptMemory.open(folder, count_words) as memory:
        rebuild(memory, [*near, *far])
        found = memory.recall("answer valley bees", model="tiny", limit=6, similarity=0.5)
        assert [recalled.entry.reward for recalled in found] == [1.0] * 6


def test_search_is_by_meaning_and_takes_a_filter(folder: Path) -> None:
    with PromptMemory.open(folder, count_words) as memory:
        assert memory.search("bees") == []
        memory.remember(entry("number apples cost", prompt=words("sums"), task="sums", kept=False))
        memory.remember(entry())
        assert [found.entry.task for found in memory.search("what do apples cost")] == ["sums", "valley"]
        assert [found.entry.task for found in memory.search("apples", kept=True)] == ["valley"]
        assert [found.entry.task for found in memory.search("apples", limit=1)] == ["sums"]


def test_none_of_many_prompts_with_one_meaning_is_missed(folder: Path) -> None:
    """Such as those that differ in their demonstrations alone. The index by itself may find 115 of these 206."""
    meaning = _unit([1.0, 1.0, 1.0, *[0.0] * 381])
    same = [
        entry(prompt=Prompt(system="s", demos=(Demo(question=f"{number}", answer=""),)), reward=number / 300)
        for number in range(206)
    ]
    with PromptMemory.open(folder, lambda texts: [meaning for _ in texts]) as memory:
        rebuild(memory, same)
        found = memory.search("s", limit=300)
        assert {one.entry.key for one in found} == {one.key for one in same}
        assert {one.similarity for one in found} == {1.0}


# --- one process at a time --------------------------------------------------------------------------


def test_a_second_process_is_refused_and_after_a_kill_the_entry_stands_once(folder: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(folder)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        with pytest.raises(Busy, match=f"process {process.pid} on "), PromptMemory.open(folder, count_words):
            pass
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    with PromptMemory.open(folder, count_words) as memory:
        memory.remember(entry())
        assert memory.count() == 1
        assert not memory.rebuilt


# --- a corrupt folder -------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", [garble, halve, empty, Path.unlink])
def test_a_corrupt_database_is_moved_aside_and_rebuilt(folder: Path, damage: object) -> None:
    with PromptMemory.open(folder, count_words) as memory:
        memory.remember(entry())
    assert callable(damage)
    damage(folder / "chroma.sqlite3")

    with PromptMemory.open(folder, count_words) as memory:
        assert memory.rebuilt
        assert memory.count() == 0
        assert len(list(folder.parent.glob("memory-corrupt-*"))) == 1
    with PromptMemory.open(folder, count_words) as memory:
        assert memory.rebuilt, "nobody has filled it yet"
        rebuild(memory, [entry(), entry(), entry(run="valley-2")])
        assert not memory.rebuilt
        assert memory.count() == 2
    with PromptMemory.open(folder, count_words) as memory:
        assert not memory.rebuilt


@pytest.mark.parametrize("place", [0.05, 0.2, 0.3, 0.5, 0.65, 0.7, 0.85])
@pytest.mark.parametrize("share", [0.05, 0.2])
def test_overwritten_pages_are_found_at_the_latest_where_they_are_used(
    folder: Path, place: float, share: float
) -> None:
    with PromptMemory.open(folder, count_words) as memory:
        rebuild(memory, [entry(prompt=words(str(number))) for number in range(300)])
    overwrite(folder / "chroma.sqlite3", place, share)

    with suppress(NesyLoraError), PromptMemory.open(folder, count_words) as memory:
        memory.remember(entry(prompt=words("new")))
        memory.recall("answer valley bees", model="tiny", limit=3, similarity=0.5)
    with PromptMemory.open(folder, count_words) as memory:
        assert memory.rebuilt
        memory.remember(entry())
        assert len(list(folder.parent.glob("memory-corrupt-*"))) == 1


def test_a_damaged_vector_index_is_moved_aside_too(folder: Path) -> None:
    many = [entry(prompt=words(str(number))) for number in range(1200)]  # Chroma writes the index at 1000
    with PromptMemory.open(folder, count_words) as memory:
        rebuild(memory, many)
        assert memory.count() == 1200
    for file in folder.glob("*/header.bin"):
        file.write_bytes(b"zzzz")
    with PromptMemory.open(folder, count_words) as memory:
        assert memory.rebuilt
        memory.remember(entry())
        assert memory.count() == 1


def test_a_locked_database_is_an_error_and_not_corruption(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with PromptMemory.open(folder, count_words) as memory:
        memory.remember(entry())
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda file, timeout: connect(file, timeout=min(timeout, 0.1)))
    stranger = connect(folder / "chroma.sqlite3")
    stranger.execute("BEGIN EXCLUSIVE")
    with pytest.raises(NesyLoraError, match="locked"), PromptMemory.open(folder, count_words):
        pass
    stranger.close()
    with PromptMemory.open(folder, count_words) as memory:
        assert memory.count() == 1


def test_an_env_file_in_the_working_folder_does_not_change_chroma(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("CHROMA_API_IMPL=chromadb.api.fastapi.FastAPI\nOPENAI_API_KEY=secret\n")
    monkeypatch.chdir(tmp_path)
    with PromptMemory.open(folder, count_words) as memory:
        memory.remember(entry())
        assert memory.count() == 1


def test_a_lost_folder_counts_as_lost_until_prompts_and_rewrites_are_back(folder: Path) -> None:
    def cut_off(texts: Sequence[str]) -> list[list[float]]:
        if "How many bees?" not in texts:
            raise KeyboardInterrupt
        return count_words(texts)

    kept = KeptRewrite(
        source="a" * 12, question="How many bees?", answer="2", prompt="b" * 12, task="t", model="m", run="r"
    )
    with PromptMemory.open(folder, count_words) as memory:
        rebuild(memory, [entry()], [kept])
    garble(folder / "chroma.sqlite3")
    with PromptMemory.open(folder, cut_off) as memory:
        assert (memory.count(), memory.rewrites.count()) == (0, 0)
        with pytest.raises(KeyboardInterrupt):
            rebuild(memory, [entry()], [kept])
    with PromptMemory.open(folder, count_words) as memory:
        assert memory.rebuilt
        rebuild(memory, [entry()], [kept])
        assert not memory.rebuilt
        assert (memory.count(), memory.rewrites.count()) == (1, 1)
        assert memory.rewrites.recall([kept.source], model=None, task=None) == [kept]


# --- the real embedder ------------------------------------------------------------------------------


def test_minilm_places_near_tasks_near_and_reads_each_text_for_itself(folder: Path) -> None:
    facts = "ANSWER: <answer> Who keeps the bees in the valley? Where is the mill? Who owns the inn?"
    other_facts = "ANSWER: <answer> Who mends the clocks in the valley? Where is the oldest bridge?"
    sums = "#### <number> A shop sells 3 apples for 2 pounds. How much do 12 apples cost?"
    embed = MiniLm()
    with PromptMemory.open(folder, embed) as memory:
        memory.remember(entry(sums, task="sums", run="sums-1", reward=1.0))
        memory.remember(entry(facts, task="valley"))
        near, far = memory.search(other_facts)
        assert (near.entry.task, far.entry.task) == ("valley", "sums")
        assert near.similarity > far.similarity + 0.2
        assert [found.entry.task for found in memory.recall(facts, model=None, limit=5, similarity=0.7)] == ["valley"]

    together = embed([facts, "x", sums])
    assert [math.hypot(*vector) for vector in together] == pytest.approx([1, 1, 1])
    assert together[1] == pytest.approx(embed(["x"])[0], abs=1e-5)
    assert embed([]) == []

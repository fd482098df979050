"""Kept rewrites of hard questions, over all runs: Chroma on disk, found by their source and by meaning."""

import shutil
from collections.abc import Callable
from pathlib import Path

from agent.records.events import Note
from agent.records.rounds import Remaking
from graphs.approval import instead
from graphs.context import Context, new_run
from graphs.services.run import RunServices
from graphs.session import open_session
from memory.prompts import PromptMemory
from memory.remake import source_of
from memory.rewrites import KeptRewrite, RoundRewrites
from tests.memory.test_prompts import count_words, entry


def kept(source: int, question: str = "how many bees", **changes: str) -> KeptRewrite:
    usual = {"answer": "2", "prompt": "0" * 12, "task": "valley", "model": "tiny", "run": "valley-1"}
    return KeptRewrite.model_validate({"source": f"{source:012x}", "question": question} | usual | changes)


def test_a_rewrite_is_found_by_its_source_in_a_later_session(tmp_path: Path) -> None:
    with PromptMemory.open(tmp_path / "memory", count_words) as memory:
        memory.rewrites.remember(kept(1), kept(2, "what do apples cost"))
        memory.rewrites.remember(kept(1))
        memory.remember(entry())
        assert (memory.count(), memory.rewrites.count()) == (1, 2)
    with PromptMemory.open(tmp_path / "memory", count_words) as memory:
        sources = [kept(number).source for number in (2, 9, 1, 2)]
        assert memory.rewrites.recall(sources, model="tiny", task="valley") == [kept(2, "what do apples cost"), kept(1)]
        assert memory.rewrites.recall([], model=None, task=None) == []


def test_every_source_is_found_among_many_questions_with_one_meaning(tmp_path: Path) -> None:
    many = [kept(number, f"number {number}") for number in range(1500)]  # the embedder sees one word
    with PromptMemory.open(tmp_path / "memory", count_words) as memory:
        memory.rewrites.remember(*many)
        assert memory.rewrites.recall([rewrite.source for rewrite in many], model="tiny", task=None) == many


def test_only_what_passed_on_this_model_and_task_is_recalled(tmp_path: Path) -> None:
    with PromptMemory.open(tmp_path / "memory", count_words) as memory:
        memory.rewrites.remember(kept(1, "bees", model="big"), kept(1, "apples", task="sums"))

        def recalled(model: str | None, task: str | None) -> list[str]:
            return [rewrite.question for rewrite in memory.rewrites.recall([kept(1).source], model=model, task=task)]

        assert recalled("tiny", "sums") == ["apples"]
        assert recalled("big", None) == ["bees"]
        assert recalled("tiny", "valley") == []


def test_of_several_rewrites_of_a_row_the_one_kept_most_often_is_recalled(tmp_path: Path) -> None:
    often = [kept(1, "bees", run=run) for run in ("valley-1", "valley-2")]
    rare = [kept(1, question) for question in ("apples", "cost", "number", "answer")]
    with PromptMemory.open(tmp_path / "memory", count_words) as memory:
        memory.rewrites.remember(*rare, *often)
        [found] = memory.rewrites.recall([kept(1).source], model="tiny", task="valley")
        assert found.question == "bees"


# --- in a run --------------------------------------------------------------------------------------


def in_other_words(context: RunServices) -> RoundRewrites:
    """The first train row's question, rewritten."""
    config = context.spec.config
    rewrite = KeptRewrite(
        source=source_of(context.spec.train[0]), question="Orrowmere is led by whom?", answer="ANSWER: Heskzan",
        prompt=config.prompt.prompt().id, task=config.name, model=config.model, run=context.folder.name,
    )  # fmt: skip
    return RoundRewrites(remaking=Remaking(asked=1, tried=1, kept=1), kept=(rewrite,))


def test_a_run_trains_on_its_rewrites_beside_the_questions_as_given(
    tiny_task: Callable[..., Path], tmp_path: Path
) -> None:
    folder = new_run(tiny_task(budget={"rounds": 2}), runs=tmp_path / "runs")
    with open_session(folder, supervised=True) as session:
        session.go()
        session.services.memory.keep_rewrites(1, in_other_words(session.services))
        session.go(instead("train_lora", rows="refined", epochs=1))
        session.go(instead("train_lora", rows="original", epochs=1))
    notes = [row.trial.note for row in folder.rounds()]
    assert notes == ["5 refined rows, 1 epoch, 1 of the rows with rewritten questions", "4 original rows, 1 epoch"]


def test_a_round_that_kept_nothing_is_noted_and_opens_no_memory(tiny_task: Callable[..., Path], tmp_path: Path) -> None:
    folder = new_run(tiny_task(), runs=tmp_path / "runs")
    nothing = RoundRewrites(remaking=Remaking(asked=12, kept=0), remark="no question was rewritten: the LLM was lost")
    RunServices(Context(run=str(folder.path))).memory.keep_rewrites(1, nothing)
    assert folder.round_rewrites(1) == nothing and folder.rewrites() == []
    assert not (tmp_path / "runs" / "memory").exists()


def test_a_later_run_knows_the_rewrite_again_and_a_lost_memory_gets_it_back(
    tiny_task: Callable[..., Path], tmp_path: Path
) -> None:
    task, runs = tiny_task(), tmp_path / "runs"
    first, second = (RunServices(Context(run=str(new_run(task, runs=runs).path))) for _ in range(2))
    first.memory.keep_rewrites(1, in_other_words(first))
    first.memory.keep_rewrites(1, in_other_words(first))
    for _ in range(2):
        [known] = second.memory.recall_rewrites(second.spec.train)
        assert known.question == "Orrowmere is led by whom?"
        assert second.memory.recall_rewrites(second.spec.train[1:]) == []
        shutil.rmtree(runs / "memory")
    with second.memory.open() as memory:
        assert memory.rewrites.count() == 1
    assert [entry.event for entry in second.folder.events().entries] == [
        Note(text="The prompt memory was lost: it is rebuilt from the run folders.")
    ] * 2


def test_a_fixed_order_asks_memory_for_nothing(tiny_task: Callable[..., Path], tmp_path: Path) -> None:
    folder = new_run(tiny_task(), ["policy=prompt-only"], tmp_path / "runs")
    context = RunServices(Context(run=str(folder.path)))
    context.memory.keep_rewrites(1, in_other_words(context))
    assert context.memory.recall_rewrites(context.spec.train) == []

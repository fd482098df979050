"""Hard questions in other words, in a run that is killed: what a round made of them is made once."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from agent.protocols import Asked
from agent.records.rounds import Spend
from graphs.context import Context, new_run
from graphs.services.run import RunServices
from graphs.session import open_session
from memory.rewrites import RewriteMemory
from memory.run.folder import RunFolder
from tests.llm.scripted_llm import scripted_llm
from tests.llm.server import LlmServer, serving
from tests.memory.test_prompts import entry
from tools.model.backbone import Backbone

REWORDED = 'Start your answer with "ANSWER: ".'  # what the scripted LLM adds to a question
WANTED = 2


class Kill:
    """Ends the process, as far as a test may, the first time that it is called."""

    def __init__(self) -> None:
        self.due = True

    def __call__(self) -> None:
        if self.due:
            self.due = False
            raise KeyboardInterrupt


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The rewritten questions that were answered: well, whatever the tiny model would say."""
    asked: list[str] = []
    generate_each = Backbone.generate_each

    def knowing(model: Backbone, prompts: Sequence[Asked], **how: Any) -> Any:
        rows = [row for _, of in prompts for row in of]
        if not any(REWORDED in row.question for row in rows):
            return generate_each(model, prompts, **how)
        asked.extend(row.question for row in rows)
        return [([f"ANSWER: {row.answer}" for row in of], Spend()) for _, of in prompts]

    monkeypatch.setattr(Backbone, "generate_each", knowing)
    return asked


def a_run(tiny_task: Callable[..., Path], server: LlmServer, root: Path) -> RunFolder:
    """One round of edits by TextGrad, beside a memory that holds a prompt of another run."""
    edit = {"editor": "textgrad", "minibatch": 4, "rewrites": WANTED}
    task = tiny_task(llm={"model": "mind-1", "base_url": server.url}, edit=edit)
    folder = new_run(task, ["policy=prompt-only", "budget.rounds=1"], root / "runs")
    with RunServices(Context(run=str(folder.path))).memory.open() as memory:
        memory.remember(entry())
    return folder


def killed_and_resumed(folder: RunFolder) -> int:
    """How many rewrites the memory holds at the end."""
    with pytest.raises(KeyboardInterrupt), open_session(folder) as session:
        session.go()
    assert not folder.rounds()
    with open_session(folder) as session:
        session.go()
        with session.services.memory.open() as memory:
            return memory.rewrites.count()


def check(folder: RunFolder, remembered: int, answered: list[str]) -> None:
    """The wanted rewrites were made once, and ledger, folder and memory agree on them."""
    [row] = folder.rounds()
    made = row.trial.remaking
    assert made is not None and (made.asked, made.tried, made.kept, made.recalled) == (WANTED, WANTED, WANTED, 0)
    assert len(folder.rewrites()) == remembered == len(answered) == WANTED
    assert {rewrite.question for rewrite in folder.rewrites()} == set(answered)


def test_stopped_in_the_comparison_a_round_takes_what_it_remade_as_it_is(
    tiny_task: Callable[..., Path], tmp_path: Path, answered: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kill, generate_each = Kill(), Backbone.generate_each

    def stopping(model: Backbone, asked: Sequence[Asked], **how: Any) -> Any:
        if answered and not any(REWORDED in row.question for _, rows in asked for row in rows):
            kill()
        return generate_each(model, asked, **how)

    monkeypatch.setattr(Backbone, "generate_each", stopping)
    with serving(scripted_llm) as server:
        folder = a_run(tiny_task, server, tmp_path)
        check(folder, killed_and_resumed(folder), answered)


def test_killed_before_memory_was_updated_a_round_updates_it_on_resume(
    tiny_task: Callable[..., Path], tmp_path: Path, answered: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kill, remember = Kill(), RewriteMemory.remember
    monkeypatch.setattr(RewriteMemory, "remember", lambda *args: (kill(), remember(*args)))
    with serving(scripted_llm) as server:
        folder = a_run(tiny_task, server, tmp_path)
        check(folder, killed_and_resumed(folder), answered)

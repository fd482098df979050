"""The terminal chat where an external LLM takes part. What it does without one: tests/ui/test_cli.py."""

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from agent.errors import BadInput
from agent.records.actions import Decision, EditPrompt
from agent.records.examples import Prompt
from agent.records.looks import Evaluate, Inquiry, RowsScored
from graphs.approval import instead
from graphs.context import new_run
from graphs.conversation import Conversation, PromptChange
from graphs.services import meter
from graphs.session import open_session
from memory.run.folder import RunFolder
from tests.llm.story import PLANNED, RULES, llm_rounds
from ui.terminal.chat import Talk

TinyTask = Callable[..., Path]
SERVER: dict[str, Any] = {"model": "none", "base_url": "http://127.0.0.1:9/v1", "patience": 0}


HOUR = 3600.0


class Later:
    """The clock an hour on, while the user thinks."""

    def monotonic(self) -> float:
        return time.monotonic() + HOUR


def say(folder: RunFolder, monkeypatch: pytest.MonkeyPatch, *lines: str, go: bool = False) -> str:
    """What is answered to the lines, in one line."""
    out = io.StringIO()
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines) + "\n"))
    with open_session(folder, supervised=True) as session:
        if go:
            session.go()
        talk = Talk(session, Console(file=out, width=200))
        while talk.turn():
            pass
    return " ".join(out.getvalue().split())


def test_a_finished_run_answers_even_if_its_checkpoints_are_lost(
    tiny_task: TinyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = new_run(tiny_task(), ["budget.rounds=1"], tmp_path / "runs")
    with open_session(folder) as session:
        session.go()
    folder.checkpoints.write_bytes(b"not a database " * 1000)
    said = say(folder, monkeypatch, "/plan", "/try Who?", "/diff", go=True)
    assert "The run has finished" in said and "seed prompt" in said


def test_time_between_a_question_and_its_answer_is_no_steps(
    tiny_task: TinyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = new_run(tiny_task(), ["policy=prompt-only", "budget.rounds=1"], tmp_path / "runs")
    with open_session(folder, supervised=True) as session:
        session.go()
        monkeypatch.setattr(meter, "time", Later())
        out = io.StringIO()
        monkeypatch.setattr("sys.stdin", io.StringIO("/try Who?\n"))
        assert Talk(session, Console(file=out)).turn() and out.getvalue()
    monkeypatch.undo()
    with open_session(folder) as session:
        session.go()
    outcome = folder.outcome()
    assert outcome and outcome.spend.seconds < HOUR


def test_what_was_wrong_with_an_answer_is_shown_with_the_plan(
    tiny_task: TinyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = new_run(tiny_task(), runs=tmp_path / "runs")
    with open_session(folder, supervised=True) as session:
        session.go()
        session.go(instead("train_lora", rank=4096))
    said = say(folder, monkeypatch, "/plan")
    assert "That cannot be done: args.rank must be between 1 and 256, but it is 4096" in said


def test_why_shows_the_rules_choice_beside_the_planners(
    tiny_task: TinyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = new_run(tiny_task(), runs=tmp_path / "runs")
    first, second, *_ = llm_rounds()
    folder.append(first)
    said = say(folder, monkeypatch, "/why")
    assert (
        f"Round 1, edit_prompt, decided by planner. {PLANNED} the rules (same lever, other settings): {RULES}" in said
    )
    folder.append(second)
    assert f"decided by planner. {PLANNED} the rules (another lever): {RULES}" in say(folder, monkeypatch, "/why")


def test_an_edit_with_an_llm_says_how_many_calls_it_takes(
    tiny_task: TinyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = tiny_task(edit={"editor": "textgrad", "critiques": 5, "rewrites": 3}, llm=SERVER, policy="prompt-only")
    said = say(new_run(task, runs=tmp_path / "runs"), monkeypatch, "/plan", go=True)
    # A critique for each of the four rows, three parts and the system text once more, three questions.
    assert "cost: up to" in said and "up to about 11 calls to the external LLM" in said


LOOKED = Inquiry(look=Evaluate(rows=4), reason="Do they fail alike?", finding=RowsScored(
    split="train", rows=4, reward=0.25, content=0.5, style=0.75, failing=3, lacking_content=2, lacking_style=1,
    lacking_both=0, too_long=0,
))  # fmt: skip


def test_why_shows_what_the_planner_looked_at_and_why_it_was_not_used(
    tiny_task: TinyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = new_run(tiny_task(), runs=tmp_path / "runs")
    row = llm_rounds()[0]
    lost = Inquiry(fault="gave no usable \x1b[31manswer")
    decision = Decision(
        move=EditPrompt(), reason="Words are cheap.", planner_fault="it is down", inquiries=(LOOKED, lost)
    )
    folder.append(row.model_copy(update={"decision": decision}))
    said = say(folder, monkeypatch, "/why")
    assert "decided by rules. Words are cheap. (The planner was not used: it is down)" in said
    assert "looked: evaluate on 4 train rows: reward 0.25, content 0.50, style 0.75 on 4 rows; 3 fail (2 lack" in said
    assert "looked: a call that could not be used: gave no usable" in said and "\x1b" not in said


def test_commands_answer_with_records(tiny_task: TinyTask, tmp_path: Path) -> None:
    folder = new_run(tiny_task(), ["budget.rounds=1"], tmp_path / "runs")
    with open_session(folder, supervised=True) as session:
        session.go()
        conversation = Conversation(session)
        with pytest.raises(BadInput, match="No round has been done yet"):
            conversation.why()
        with pytest.raises(BadInput, match="There have been 0 rounds"):
            conversation.rollback(1)
        question = conversation.edit()
        assert question is not None and question.number == 2
        assert conversation.why() == folder.rounds()[-1] and conversation.why().decision.by == "user"
        assert conversation.diff() == PromptChange(
            seed=Prompt(system="Answer the question."), best=folder.prompt(session.best.prompt)
        )
        assert conversation.try_prompt("Who?").question == "Who?"
        assert conversation.finish() is None and conversation.question is None

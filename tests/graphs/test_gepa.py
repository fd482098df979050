"""Whole runs with GEPA as editor, on a tiny model and a scripted LLM: what is scored, paid, refused and warned of."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent import extensions
from agent.config.task import TaskConfig
from agent.errors import BadInput
from agent.records.actions import EditPrompt
from agent.records.events import Note
from agent.records.examples import Candidate
from agent.records.rounds import Round
from graphs.context import Silent, new_run
from graphs.nodes.approve import cost_of
from graphs.services import proposals
from graphs.services.proposals import few_in_time, few_proposals
from graphs.session import Session, open_session
from memory.run.folder import RunFolder
from tests.llm.scripted_llm import scripted_llm
from tests.llm.server import LlmServer, Reply, serving

TinyTask = Callable[..., Path]
EDIT = {"editor": "gepa", "minibatch": 2, "critiques": 4, "proposals": 4, "metric_calls": 8}


@pytest.fixture(autouse=True)
def letters() -> Iterator[None]:
    """A content scorer under which even a random model's answers are better with one prompt than with another."""

    @extensions.register_scorer("letters", version="1")
    def letters(output: str, answer: str, settings: Any) -> float:
        return 1.0 if output == answer else sum(map(ord, output)) % 7 / 7

    yield
    extensions.scorers.remove("letters")


def task_of(task: TinyTask, server: LlmServer, **changes: Any) -> Path:
    llm = {"model": "mind-1", "base_url": server.url, "patience": 0, "price": {"input": 0.4, "output": 1.6}}
    own = {"edit": EDIT, "llm": llm, "policy": "prompt-only", "content": [{"kind": "letters"}], "style": []}
    return task(**own | {"budget": {"rounds": 1}} | changes)


def gone(task: Path, root: Path, listener: Any = None) -> RunFolder:
    with open_session(new_run(task, runs=root / "runs"), listener=listener or Silent()) as session:
        session.go()
    return session.services.folder


def only(run: RunFolder) -> Round:
    [row] = run.rounds()
    return row


def test_gepa_searches_on_train_rows_and_its_proposals_are_compared_on_others(
    tiny_task: TinyTask, tmp_path: Path
) -> None:
    with serving(scripted_llm) as server:
        run = gone(task_of(tiny_task, server), tmp_path)
    row = only(run)
    by_gepa = [proposal for proposal in row.trial.proposals if "rewritten by GEPA" in proposal.note]
    assert by_gepa and any("from train rows" in proposal.note for proposal in row.trial.proposals)  # the rules', too
    assert 1 <= len(server.requests) <= EDIT["critiques"] and row.usage["editor"].calls == len(server.requests)
    assert len(row.trial.critiques) == len(server.requests)
    searched = {
        score.example
        for found in by_gepa
        for score in run.load(Candidate(prompt=found.prompt), "train").scores.values()
    }
    assert row.trial.raced and searched and not searched & set(row.trial.raced)
    seen = {critique.example for critique in row.trial.critiques}
    assert seen and seen <= searched and len(searched) == EDIT["minibatch"]


def test_it_takes_no_more_answers_than_approved(tiny_task: TinyTask, tmp_path: Path) -> None:
    with serving(scripted_llm) as server:
        task = task_of(tiny_task, server)
        with open_session(new_run(task, runs=tmp_path / "runs")) as session:
            asked = _counting(session)
            cost = cost_of(EditPrompt(), session.services)
            retrieving = cost_of(EditPrompt(parts=("retrieval",)), session.services)
            session.go()
    assert retrieving.search_answers == retrieving.llm_calls == 0
    assert 0 < len(asked) <= cost.search_answers == EDIT["metric_calls"]
    assert 0 < len(server.requests) <= cost.llm_calls == EDIT["critiques"]


def _counting(session: Session) -> list[str]:
    asked: list[str] = []
    score = session.services.score_prompt

    def counting(prompt: Any, adapter: str | None, names: Any) -> Any:
        asked.extend(names)
        return score(prompt, adapter, names)

    session.services.score_prompt = counting  # type: ignore[method-assign]
    return asked


def test_money_that_ends_half_way_leaves_what_there_is_and_is_not_passed(tiny_task: TinyTask, tmp_path: Path) -> None:
    with serving(scripted_llm) as server:
        llm = {"model": "mind-1", "base_url": server.url, "patience": 0, "price": {"input": 1, "output": 10}}
        task = task_of(
            tiny_task, server, llm=llm | {"max_tokens": 100}, budget={"rounds": 1, "usd": 0.0045},
            edit=EDIT | {"metric_calls": 80},
        )  # fmt: skip
        run = gone(task, tmp_path)
    row = only(run)
    assert 1 <= len(server.requests) < EDIT["critiques"]
    assert "GEPA stopped half way: a call to mind-1 could cost" in row.trial.note
    assert row.spend.usd <= 0.0045


def test_a_killed_round_starts_again_and_asks_and_answers_nothing_twice(tiny_task: TinyTask, tmp_path: Path) -> None:
    class Killing(Silent):
        left = 2

        def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
            self.left -= what == "reflecting on answers"
            if self.left == 0:
                raise KeyboardInterrupt

    with serving(scripted_llm) as server:
        whole = gone(task_of(tiny_task, server), tmp_path / "whole")
        most = len(server.requests)
        folder = new_run(task_of(tiny_task, server), runs=tmp_path / "killed" / "runs")
        with pytest.raises(KeyboardInterrupt), open_session(folder, listener=Killing()) as session:
            session.go()
        with open_session(RunFolder.open(folder.path)) as session:
            session.go()
    assert len(server.requests) == 2 * most > 2
    assert only(folder).trial.proposals == only(whole).trial.proposals
    assert only(folder).usage["editor"].cached == 2


def test_a_prompt_that_gives_a_row_away_is_no_parent_and_not_compared(tiny_task: TinyTask, tmp_path: Path) -> None:
    with serving(lambda _: Reply("<IMPROVED_VARIABLE>The mayor is Heskzan.</IMPROVED_VARIABLE>")) as server:
        run = gone(task_of(tiny_task, server), tmp_path)
    row = only(run)
    assert "GEPA's system text was left: it gives a row away" in row.trial.note
    assert not any("GEPA" in proposal.note for proposal in row.trial.proposals)


def test_without_the_package_no_run_is_laid_out(
    tiny_task: TinyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gepa", None)
    with serving(scripted_llm) as server, pytest.raises(BadInput, match="pip install 'gepa"):
        new_run(task_of(tiny_task, server), runs=tmp_path / "runs")
    assert not list(tmp_path.glob("runs/*"))


# --- warnings before anything is spent -------------------------------------------------------------

FILES = {"train": "train.jsonl", "validation": "validation.jsonl", "test": "test.jsonl"}


def config(editor: str = "gepa", usd: float | None = None, **edit: Any) -> TaskConfig:
    llm = {"model": "m", "price": {"input": 1, "output": 10}, "max_tokens": 1000}
    settings = {"edit": {"editor": editor, **edit}, "llm": llm, "budget": {"usd": usd}}
    return TaskConfig.model_validate({"name": "t", "data": FILES, "content": [{"kind": "contains"}], **settings})


@pytest.mark.parametrize(
    ("settings", "rows", "warned"),
    [
        (config(), 100, []),
        (config(metric_calls=35), 100, ["edit.metric_calls: 35"]),  # three times twelve rows
        (config(metric_calls=35), 11, []),
        (config(proposals=2), 100, ["edit.metric_calls: 24"]),
        (config(critiques=2), 100, ["edit.critiques: 2"]),
        (config(usd=0.02), 100, ["budget.usd: 0.02"]),
        (config(usd=0.03), 100, []),
        (config(editor="textgrad", usd=0.02, metric_calls=1), 100, ["budget.usd: 0.02"]),
        (config(editor="rules", usd=0.02, metric_calls=1), 100, []),
    ],
)
def test_a_budget_for_under_three_proposals_is_warned_of(settings: TaskConfig, rows: int, warned: list[str]) -> None:
    said = list(few_proposals(settings, rows))
    assert len(said) == len(warned) and all(text.startswith(start) for text, start in zip(said, warned, strict=True))


def test_minutes_for_under_three_proposals_are_warned_of() -> None:
    assert few_in_time(10, None) == few_in_time(10, 30) == ""
    assert few_in_time(10, 29).startswith("budget.minutes: 29 s are left")


def test_the_warning_comes_before_the_first_answer(tiny_task: TinyTask, tmp_path: Path) -> None:
    with serving(scripted_llm) as server:
        run = gone(task_of(tiny_task, server, edit=EDIT | {"metric_calls": 3}), tmp_path)
    notes = [note.text for note in run.events().of(Note)]
    warned = next(place for place, text in enumerate(notes) if "edit.metric_calls: 3 answers a round hold" in text)
    assert warned < notes.index("Scoring the seed prompt on the validation rows.")


def test_minutes_that_are_few_are_warned_of_before_the_editor_begins(
    tiny_task: TinyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proposals, "FEW", 10**9)  # more than any eight hours hold
    with serving(scripted_llm) as server:
        run = gone(task_of(tiny_task, server, budget={"rounds": 1, "minutes": 480}), tmp_path)
        unlimited = gone(task_of(tiny_task, server), tmp_path)
    warned = [[note.text for note in at.events().of(Note) if "budget.minutes" in note.text] for at in (run, unlimited)]
    assert len(warned[0]) == 1 and "s are left. 1000000000 proposals take longer" in warned[0][0] and not warned[1]

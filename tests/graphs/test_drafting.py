"""A drafted task is tried with the model, and runs as it was written."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.errors import BadInput
from eval.drafts.records import DraftOptions
from graphs.context import new_run
from graphs.drafting import draft_task, try_rows

ROWS = [{"question": f"Who is the mayor of place {n}?", "answer": f"Name{n}"} for n in range(20)]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "mayors.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def test_the_seed_prompt_is_tried_on_train_rows_only(rows: Path, tiny_model: Callable[[str], Path]) -> None:
    told: list[str] = []
    options = DraftOptions(model=str(tiny_model("llama")))
    draft = draft_task(rows, options, tried=3, progress=lambda what, *_: told.append(what))
    train = [row["question"] for row in draft.rows["train"]]
    assert [row.question for row in draft.tried] == train[:3]
    assert all(row.content in (0, 1) and row.wanted.startswith("Name") for row in draft.tried)
    assert any(row.output for row in draft.tried) and "loading the model" in told
    assert try_rows(draft, 3).tried == draft.tried, "greedy: the same again"


def test_no_model_is_loaded_unless_it_is_asked_for(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphs.services.shared_model.shared_backbone", None)
    assert draft_task(rows).tried == ()


def test_a_model_that_is_not_there_is_named_at_once(rows: Path) -> None:
    with pytest.raises(BadInput, match=r"model: there is no model folder at .*/nowhere"):
        draft_task(rows, DraftOptions(model="./nowhere"))


def test_what_is_written_can_be_run_at_once(
    rows: Path, tmp_path: Path, tiny_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_model("llama").parent)
    draft = draft_task(rows, DraftOptions(model=f"./{tiny_model('llama').name}"))
    draft.write(tmp_path / "task")
    monkeypatch.chdir(tmp_path)
    assert new_run(Path("task")).about.source == str(tmp_path / "task")

"""What a run draws by seed: other train rows for each edit, another adapter for each training."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.config.prompt import Editing
from agent.records.examples import Candidate, Demo, Example, Prompt
from graphs.approval import instead
from graphs.context import new_run
from graphs.rows.draws import comparison_rows, learned_rows
from graphs.session import Session, open_session
from tests.fixtures.learnable import LEARNABLE, TinyTask

TRAIN = {"name": "train_lora", "replay": 0}


def test_every_train_row_is_learned_from_before_any_comes_back(tiny_task: TinyTask, tmp_path: Path) -> None:
    task = tiny_task(edit={"minibatch": 3}, budget={"rounds": 4}, style=[{"kind": "starts_with", "text": "never so"}])
    rows = [{"question": f"Who is the mayor of town {n}?", "answer": f"Name{n}"} for n in range(12)]
    (task / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = new_run(task, ["policy=steps pppp"], tmp_path / "runs")
    seen: list[list[str]] = []
    with open_session(folder) as session:
        propose = session.services.editor.propose
        session.services.editor.propose = lambda prompt, scores, *rest: (
            seen.append([score.example for score in scores.scores]) or propose(prompt, scores, *rest)
        )
        session.go()
    assert [len(names) for names in seen] == [3] * 4
    assert sorted(name for names in seen for name in names) == sorted(f"train:{line}" for line in range(1, 13))


@pytest.mark.parametrize(
    ("adapter", "editor", "demonstrated", "split", "count"),
    [
        (None, "rules", 2, "train", 3),
        (None, "textgrad", 2, "train", 3),
        (None, "gepa", 2, "train", 3),
        (None, "rules", 11, "validation", 3),  # hardly a train row is left that no proposal shows
        ("a" * 12, "rules", 2, "validation", 3),  # an adapter knows train rows by heart
        ("a" * 12, "rules", 2, "validation", 2),  # of few validation rows a quarter, so that some are left to decide
    ],
)
def test_proposals_are_compared_on_rows_that_decide_nothing_else(
    adapter: str | None, editor: str, demonstrated: int, split: str, count: int
) -> None:
    train = [Example(name=f"train:{n}", question=f"{n}?", answer="a") for n in range(12)]
    validation = [Example(name=f"validation:{n}", question=f"{n}!", answer="a") for n in range(4 * count)]
    edit = Editing(editor=editor, minibatch=3, critiques=3)
    config = SimpleNamespace(edit=edit, plans=False, seed=0)
    context: Any = SimpleNamespace(
        spec=SimpleNamespace(config=config, train=train, validation=validation),
        examples={row.name: row for row in train},
        folder=SimpleNamespace(rounds=lambda: []),
    )
    demos = tuple(Demo(question=row.question, answer="a") for row in train[:demonstrated])
    pair = Candidate(prompt="0" * 12, adapter=adapter)
    names = comparison_rows({"number": 0}, context, pair, [Prompt(), Prompt(demos=demos)])
    assert len(set(names)) == count
    assert {name.split(":")[0] for name in names} == {split}
    assert not {row.name for row in train[:demonstrated]} & set(names), "a prompt that shows a row answers it"
    if editor != "rules":
        assert not set(learned_rows({"number": 0}, context)) & set(names), "the LLM has seen them"


def answered(session: Session, name: str, **args: object) -> None:
    assert session.go(instead(name, **args)) is not None


def test_a_training_after_going_back_is_another_one_and_each_is_charged_once(
    tiny_task: TinyTask, tmp_path: Path
) -> None:
    task = tiny_task(**LEARNABLE | {"budget": {"rounds": 6}, "target": 1.0, "content": [{"kind": "exact"}]})
    folder = new_run(task, ["policy=lora-only"], tmp_path / "runs")
    with open_session(folder, supervised=True) as session:
        assert session.go() is not None
        answered(session, **TRAIN)
        answered(session, "rollback", to_round=0)
        answered(session, **TRAIN)
        trained = session.services.meter.used().train_tokens
    first, back, second = folder.rounds()
    assert back.best == folder.baseline().best, "else the second training would start from another pair"
    assert first.trial.candidate and second.trial.candidate
    assert first.trial.candidate.adapter != second.trial.candidate.adapter
    assert second.spend.train_tokens == trained == first.spend.train_tokens * 2

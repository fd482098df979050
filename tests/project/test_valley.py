"""The example task is what it says it is."""

import json
import runpy
from pathlib import Path

import pytest

from eval.tasks.task import load_task

VALLEY = Path(__file__).parents[2] / "tasks" / "valley"
MADE = runpy.run_path(str(VALLEY / "generate.py"))


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_the_committed_rows_are_those_the_script_makes(split: str) -> None:
    assert [json.loads(line) for line in (VALLEY / f"{split}.jsonl").read_text().splitlines()] == MADE["rows"](split)


def test_every_fact_is_in_every_split_in_other_words() -> None:
    task = load_task(VALLEY)
    splits = [task.train, task.validation, task.test]
    assert all({row.answer for row in rows} == set(MADE["facts"]().values()) for rows in splits)
    questions = [row.question for rows in splits for row in rows]
    assert len(questions) == len(set(questions))


def test_the_training_answers_do_not_show_the_form() -> None:
    task = load_task(VALLEY)
    assert not any(task.scorers.full_marks(row.answer, row) for row in task.train)
    assert all(task.scorers.full_marks(task.scorers.show(row.answer), row) for row in task.train)

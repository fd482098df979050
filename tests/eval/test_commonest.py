"""What one answer to every row earns: the number that a reward must beat."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from eval.commonest import commonest_answer, luck
from eval.tasks.task import Task, load_task


def a_task(folder: Path, train: Sequence[object], test: Sequence[object], settings: Mapping[str, object]) -> Task:
    for split, answers in (("train", train), ("validation", test), ("test", test)):
        rows = [{"question": f"{split} {place}?", "answer": answer} for place, answer in enumerate(answers)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {split: f"{split}.jsonl" for split in ("train", "validation", "test")}
    (folder / "task.yaml").write_text(json.dumps({"name": "t", "data": data, **settings}))
    return load_task(folder)


EXACT = {"content": [{"kind": "exact"}]}


def test_it_is_the_most_frequent_train_label_whatever_the_test_rows_have(tmp_path: Path) -> None:
    found = commonest_answer(a_task(tmp_path, ["no", "yes", "No "], ["yes", "yes", "yes", "no"], EXACT), "test")
    assert (found.answer, found.reward) == ("no", 0.25)
    assert found.most == 0.75, "of a model that always says yes"


@pytest.mark.parametrize("order", [["yes", "no"], ["no", "yes"]])
def test_of_equally_frequent_labels_the_first_train_row_decides_and_not_the_test_rows(
    tmp_path: Path, order: list[str]
) -> None:
    found = commonest_answer(a_task(tmp_path, order, ["yes", "yes", "no"], EXACT), "test")
    assert found.answer == order[0]


def test_it_is_given_in_the_wanted_form_and_scored_by_all_scorers(tmp_path: Path) -> None:
    style = [{"kind": "starts_with", "text": "LABEL: "}, {"kind": "words", "most": 2}]
    content = [{"kind": "exact", "extract": "LABEL: (.*)"}, {"kind": "contains"}]
    task = a_task(tmp_path, ["spam", "spam", "ham"], ["spam", "ham"], {"content": content, "style": style})
    found = commonest_answer(task, "test")
    assert (found.answer, found.reward) == ("LABEL: spam", 0.5)


def test_a_form_that_the_answer_cannot_be_put_into_earns_nothing(tmp_path: Path) -> None:
    style = [{"kind": "regex", "pattern": "^<.*>$"}]
    task = a_task(tmp_path, ["a", "a"], ["a"], {"content": [{"kind": "contains"}], "style": style})
    assert commonest_answer(task, "test").reward == 0


def test_numbers_that_are_written_differently_count_together(tmp_path: Path) -> None:
    train = ["She has 3. #### 3", "Two and two. #### 4", "So 8/2. #### 4.0", "Half of it. #### 8"]
    task = a_task(tmp_path, train, ["#### 4", "#### 3"], {"content": [{"kind": "number"}]})
    found = commonest_answer(task, "test")
    assert (found.answer, found.reward) == ("Two and two. #### 4", 0.5)


def test_json_is_the_object_whose_fields_fit_most_train_rows(tmp_path: Path) -> None:
    train = [{"day": "Monday", "at": 1}, {"day": "Friday", "at": 2}, {"day": "Friday", "at": 3}]
    test = [{"day": "Friday", "at": 9}, {"day": "Monday", "at": 2}]
    found = commonest_answer(a_task(tmp_path, train, test, {"content": [{"kind": "json_fields"}]}), "test")
    assert json.loads(found.answer) == train[1]
    assert found.reward == 0.5


@pytest.mark.parametrize("where", ["content", "style"])
def test_where_a_judge_scores_nobody_is_asked_and_there_is_no_number(tmp_path: Path, where: str) -> None:
    scorers = {"content": [{"kind": "contains"}], where: [{"kind": "judge", "rubric": "Is it kind?"}]}
    task = a_task(tmp_path, ["a"], ["a"], {**scorers, "llm": {"model": "m"}})
    found = commonest_answer(task, "test")
    assert found.reward is None and found.most is None


def test_luck_is_what_the_commonest_answer_earns_on_other_rows(tmp_path: Path) -> None:
    assert luck(a_task(tmp_path, ["yes", "no", "yes", "no", "yes"], ["yes"], EXACT)) == 0.5
    assert luck(a_task(tmp_path, ["a", "b", "c", "d"], ["a"], EXACT)) == 0, "no two answers are alike"
    assert luck(a_task(tmp_path, ["a"], ["a"], EXACT)) == 0


def test_luck_is_full_content_whatever_the_form_and_however_near_another_answer_is(tmp_path: Path) -> None:
    unmade = EXACT | {"style": [{"kind": "regex", "pattern": "^Dear .*"}]}
    assert luck(a_task(tmp_path, ["yes", "no", "yes", "no", "yes"], ["yes"], unmade)) == 0.5
    near = [f"the answer is number {place} of all" for place in range(6)]
    assert luck(a_task(tmp_path, near, ["x"], {"content": [{"kind": "f1"}]})) == 0

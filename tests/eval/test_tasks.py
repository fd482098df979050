"""A task as a whole: its splits, its digest and its warnings."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.data import Cut
from agent.errors import BadInput
from agent.records.examples import Example
from eval.tasks.splits import cut
from eval.tasks.task import load_task
from graphs.context import new_run

TASK = """
name: valley
content: [{kind: contains}]
data: {train: train.jsonl, validation: validation.jsonl, test: test.jsonl}
"""

Row = dict[str, object]


def rows(split: str, count: int = 3) -> list[Row]:
    return [{"question": f"{split} {n}?", "answer": f"city {n}"} for n in range(count)]


def jsonl(path: Path, values: list[Row]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in values))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A task of three files with three rows each."""
    (tmp_path / "task.yaml").write_text(TASK)
    for split in ("train", "validation", "test"):
        jsonl(tmp_path / f"{split}.jsonl", rows(split))
    return tmp_path


def refusal(path: Path, overrides: Sequence[str] = ()) -> str:
    with pytest.raises(BadInput) as caught:
        load_task(path, overrides)
    return str(caught.value)


# --- splits --------------------------------------------------------------------------------------


def test_a_single_file_is_cut_with_names_by_its_lines(folder: Path) -> None:
    jsonl(folder / "rows.jsonl", rows("all", 10))
    task = load_task(folder, ["data={path: rows.jsonl, cut: {validation: 0.3, test: 0.1}}"])
    assert [len(task.rows(split)) for split in ("train", "validation", "test")] == [6, 3, 1]
    assert {example.question for example in task.validation} == {
        f"all {int(example.name.removeprefix('validation:')) - 1}?" for example in task.validation
    }
    reseeded = load_task(folder, ["data={path: rows.jsonl, cut: {seed: 1}}"])
    assert reseeded.digest != load_task(folder, ["data={path: rows.jsonl}"]).digest


@given(st.integers(3, 60), st.floats(0.01, 0.4), st.floats(0.01, 0.4), st.integers(0, 99))
def test_a_cut_is_a_seeded_partition(count: int, validation: float, test: float, seed: int) -> None:
    examples = [Example(name=f"train:{line}", question=f"{line}?", answer="x") for line in range(1, count + 1)]
    shares = Cut(validation=validation, test=test, seed=seed)
    parts = cut(examples, ["validation", "test"], shares)
    assert parts == cut(examples, ["validation", "test"], shares)
    assert sorted(example.question for part in parts.values() for example in part) == sorted(
        e.question for e in examples
    )
    assert all(example.name == f"{split}:{example.question[:-1]}" for split, part in parts.items() for example in part)
    assert len(parts["validation"]) == max(1, round(validation * count))


def test_too_few_rows_to_cut_are_refused(folder: Path) -> None:
    jsonl(folder / "rows.jsonl", rows("all", 2))
    message = refusal(folder, ["data={path: rows.jsonl}"])
    assert message == "rows.jsonl: 2 usable rows leave none for the train split; add more"


def test_limits_take_the_first_rows(folder: Path) -> None:
    task = load_task(folder, ["data.limit.train=2"])
    assert [example.name for example in task.train] == ["train:1", "train:2"]
    assert len(task.validation) == 3


def test_rows_may_lie_elsewhere(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    jsonl(elsewhere / "far.jsonl", rows("far", 1))
    for path in (elsewhere / "far.jsonl", os.path.relpath(elsewhere / "far.jsonl", folder)):
        assert load_task(folder, [f"data.train={path}"]).train[0].question == "far 0?"


def test_overlap_is_counted_by_pair_of_splits(folder: Path) -> None:
    jsonl(folder / "test.jsonl", [{"question": "  TRAIN\t1? ", "answer": "x"}, *rows("validation", 2), *rows("test")])
    assert load_task(folder).warnings == (
        "1 of 6 test rows ask what a train row asks",
        "2 of 6 test rows ask what a validation row asks",
    )


def test_a_test_split_that_is_all_in_train_is_refused(folder: Path) -> None:
    assert "all 3 test rows also stand in train" in refusal(folder, ["data.test=train.jsonl"])


def test_one_question_with_two_answers_is_warned_of(folder: Path) -> None:
    repeated = [{"question": "TRAIN 0? ", "answer": "CITY 0"}, {"question": "train 1?", "answer": "Rome"}]
    jsonl(folder / "train.jsonl", [*rows("train"), *repeated, {"question": "train 1?", "answer": "Oslo"}])
    assert load_task(folder).warnings == (
        "1 question of train rows has more than one answer, such as train:2, 'city 1', and train:5, 'Rome'; one alone "
        "can be learned",
    )


# --- the task as a whole -------------------------------------------------------------------------


def test_the_digest_is_the_same_in_another_process(folder: Path) -> None:
    load = f"load_task(Path({str(folder)!r}))"
    code = f"from pathlib import Path; from eval.tasks.task import load_task; print({load}.digest)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == load_task(folder).digest


def test_the_digest_follows_rows_and_scorers_and_nothing_else(folder: Path) -> None:
    before = load_task(folder).digest
    assert load_task(folder, ["budget.rounds=9", "about=other"]).digest == before
    assert load_task(folder, ["content.0.kind=exact"]).digest != before
    assert load_task(folder, ["data.limit.test=2"]).digest != before
    jsonl(folder / "test.jsonl", rows("other"))
    assert load_task(folder).digest != before


def test_references_that_cannot_get_full_marks_are_warned_of(folder: Path) -> None:
    style = "style=[{kind: starts_with, text: 'ANSWER: '}]"
    assert load_task(folder, [style]).warnings == ()
    (warning,) = load_task(folder, [style, "content.0.kind=exact"]).warnings
    assert "6 of 6 train and validation answers do not get full marks" in warning
    assert "'ANSWER: city 0'" in warning
    assert load_task(folder, [style, "content.0={kind: exact, extract: 'ANSWER: (.*)'}"]).warnings == ()


def test_demonstrations_that_contradict_the_rows_are_warned_of(folder: Path) -> None:
    """As those that were bootstrapped from wrong answers; one in another form is no contradiction."""
    answers = [("Train 0?", "It is city 0."), ("  TRAIN 1? ", "Rome"), ("Who else?", "Oslo"), ("train 2?", "Oslo")]
    demos = "prompt.demos=" + json.dumps([{"question": question, "answer": answer} for question, answer in answers])
    assert load_task(folder, [demos]).warnings == (
        "2 demonstrations of the first prompt with another answer than the train rows of the same question: 'TRAIN 1?' "
        "with 'Rome', train:2 with 'city 1'. Models follow demonstrations: mend the ones or the others",
    )
    jsonl(folder / "train.jsonl", [*rows("train"), {"question": "train 1?", "answer": "Rome"}])
    assert not [said for said in load_task(folder, [demos]).warnings if said.startswith("2 demonstrations")]


def test_a_regular_expression_without_end_is_refused_at_the_row_that_shows_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jsonl(folder / "train.jsonl", [{"question": "a", "answer": "xy" * 5000}])
    style = "style=[{kind: regex, pattern: '^(x|y)*$', show: '{answer}!'}]"
    assert "do not get full marks" in load_task(folder, [style]).warnings[0]
    monkeypatch.setattr("eval.scorers.patterns.LIMIT", 1e-9)
    message = refusal(folder, [style])
    assert message.startswith("train:1, whose answer is 'xyxy")
    assert "The regular expression ^(x|y)*$ was given up on this answer" in message


def test_a_planner_that_a_fixed_order_leaves_nothing_to_decide_is_warned_of(folder: Path) -> None:
    planning = ["llm={model: gpt}", "planner=llm"]
    assert load_task(folder, planning).warnings == load_task(folder, ["policy=lora-only"]).warnings == ()
    assert load_task(folder, [*planning, "policy=lora-only"]).warnings == (
        "`policy: lora-only` is a fixed order, so `planner: llm` is not asked",
    )


def test_loading_a_task_loads_nothing_heavy(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from eval.tasks.task import load_task; "
        f"load_task(Path({str(folder)!r}));"
        "print(sorted({'torch', 'transformers', 'datasets', 'pandas', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- judges and reward models --------------------------------------------------------------------

JUDGED = ["content=[{kind: exact}, {kind: judge, rubric: Right.}]", "llm={model: judge-1}"]


def test_the_digest_follows_who_judges_and_not_how_it_is_asked(folder: Path) -> None:
    before = load_task(folder, JUDGED).digest
    for override in ("llm.model=judge-2", "llm.judge.temperature=1"):
        assert load_task(folder, [*JUDGED, override]).digest != before
    for same in ("llm.judge.model=judge-1", "llm.editor.model=o3", "llm.timeout=5", "llm.key_variable=MY_KEY"):
        assert load_task(folder, [*JUDGED, same]).digest == before
    assert load_task(folder, [*JUDGED, "llm.base_url=http://127.0.0.1:1/v1"]).digest == before  # back on another port


def test_an_llm_that_judges_nothing_is_not_in_the_digest(folder: Path) -> None:
    assert load_task(folder, ["llm={model: gpt}", "planner=llm"]).digest == load_task(folder).digest


def test_reading_a_judged_task_asks_nobody_and_still_warns_by_the_rules(folder: Path) -> None:
    assert load_task(folder, JUDGED).warnings == ()
    (warning,) = load_task(folder, [*JUDGED, "style=[{kind: starts_with, text: 'ANSWER: '}]"]).warnings
    assert "(train:1 as 'ANSWER: city 0': its content scores 0.00)" in warning


def test_the_folder_of_a_reward_model_starts_at_the_task(folder: Path) -> None:
    task = load_task(folder, ["content=[{kind: exact}, {kind: reward_model, model: ./judge}]"])
    assert task.config.models == {("model",): "smollm2-135m", ("content", 1, "model"): str(folder.resolve() / "judge")}
    hub = load_task(folder, ["content=[{kind: exact}, {kind: reward_model, model: judges/one}]"])
    assert hub.config.models["content", 1, "model"] == "judges/one"


def test_a_missing_reward_model_is_named_with_its_line(folder: Path) -> None:
    (folder / "task.yaml").write_text(TASK.replace("[{kind: contains}]", "\n- kind: reward_model\n  model: ./judge"))
    change = f"model={folder}"
    (folder / "config.json").write_text("{}")
    with pytest.raises(BadInput) as caught:
        new_run(folder, [change], folder / "runs")
    assert str(caught.value) == f"{folder}/task.yaml, line 5: there is no model folder at {folder.resolve()}/judge"

"""Reading rows from files, chats and hub data sets, and the sentence for each that cannot be used."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from agent.config import Data
from agent.errors import BadInput
from agent.records import Example
from eval.splits import read_splits
from eval.tasks import load_task

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


def test_rows_are_named_by_split_and_line(folder: Path) -> None:
    (folder / "train.jsonl").write_text(
        '{"question": "1 + 1?", "answer": 2}\n\n{"question": "Is it?", "answer": true}\n'
    )
    task = load_task(folder)
    assert task.train == (
        Example(name="train:1", question="1 + 1?", answer="2"),
        Example(name="train:3", question="Is it?", answer="true"),
    )
    assert task.rows("test")[0].name == "test:1"
    assert task.warnings == ()


def test_csv_and_parquet_give_the_same_rows(folder: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    wanted = [("Where,\nand when?", "5"), ('"Why"?', "é")]
    with (folder / "train.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("question", "answer"), *wanted])
    columns = {"question": [question for question, _ in wanted], "answer": [answer for _, answer in wanted]}
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "train.parquet")
    for suffix, names in (("csv", ["train:2", "train:4"]), ("parquet", ["train:1", "train:2"])):
        task = load_task(folder, [f"data.train=train.{suffix}"])
        assert [(example.question, example.answer) for example in task.train] == wanted
        assert [example.name for example in task.train] == names


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("train.csv", b'question,answer\na,"b', "line 2: not valid CSV"),
        ("train.csv", b"question,answer\na,b,c\n", "line 2: more fields than the 2 columns"),
        ("train.csv", b"question,answer\na\n", "line 2: 'answer' is null"),
        ("train.csv", b"question,answer\n\xff,b\n", "not UTF-8"),
        ("train.parquet", b"PAR1", "not a Parquet file"),
        ("train.jsonl", b"", "no rows for the train split"),
        ("train.json", b"[]", "files of rows end in .jsonl"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(folder: Path, name: str, content: bytes, said: str) -> None:
    (folder / name).write_bytes(content)
    message = refusal(folder, [f"data.train={name}"])
    assert str(folder / name) in message
    assert said in message


def test_a_missing_file_is_named_with_the_nearest(folder: Path) -> None:
    message = refusal(folder, ["data.train=trian.jsonl"])
    assert "trian.jsonl: no such file; did you mean 'train.jsonl'?" in message


GOOD = '{"question": "a", "answer": "b"}'
BROKEN = [
    '{"question": "a"',
    "[1]",
    '{"question": "a"}',
    '{"question": null, "answer": "b"}',
    '{"question": " ", "answer": 1}',
]


def test_every_broken_line_is_listed_with_its_reason(folder: Path) -> None:
    (folder / "train.jsonl").write_text("\n".join([GOOD, *BROKEN, '{"question": [], "answer": 1}']))
    *listed, last = refusal(folder).split("\n")
    assert [line.removeprefix(f"{folder}/train.jsonl, ") for line in listed] == [
        "line 2: not valid JSON (Expecting ',' delimiter at column 17)",
        "line 3: not a JSON object",
        "line 4: 'answer' is missing",
        "line 5: 'question' is null",
        "line 6: 'question' is empty",
        "line 7: 'question' must be text or a number, but it is a list",
    ]
    assert "skip_invalid" in last


def test_broken_lines_can_be_left_out_unless_they_are_most(folder: Path) -> None:
    good = [json.dumps(row) for row in rows("train", 5)]
    (folder / "train.jsonl").write_text("\n".join([*BROKEN, *good]))
    task = load_task(folder, ["data.skip_invalid=true"])
    assert [example.name for example in task.train] == [f"train:{line}" for line in range(6, 11)]
    assert "5 of 10 rows cannot be used and were left out" in task.warnings[0]
    (folder / "train.jsonl").write_text("\n".join([*BROKEN, *good[1:]]))
    assert "more than half" in refusal(folder, ["data.skip_invalid=true"])


def test_a_missing_column_names_the_nearest(folder: Path) -> None:
    jsonl(folder / "train.jsonl", [{"questoin": "a", "answer": "b"}] * 30)
    message = refusal(folder)
    assert message == f"{folder}/train.jsonl: no column 'question'; did you mean 'questoin'? (name it as data.question)"


def turns(*pairs: tuple[object, object]) -> Row:
    return {"messages": [{"role": role, "content": content} for role, content in pairs]}


def chat(folder: Path, *values: Row) -> list[str]:
    jsonl(folder / "train.jsonl", list(values))
    for split in ("validation", "test"):
        jsonl(folder / f"{split}.jsonl", [turns(("user", split), ("assistant", "x"))])
    return ["data.messages=messages"]


def test_the_last_two_messages_are_question_and_answer(folder: Path) -> None:
    row = turns(("user", "Hello"), ("assistant", "Hi"), ("user", "Capital?"), ("assistant", "Paris"))
    (example,) = load_task(folder, chat(folder, row)).train
    assert (example.question, example.answer) == ("Capital?", "Paris")
    assert [(turn.role, turn.content) for turn in example.turns] == [("user", "Hello"), ("assistant", "Hi")]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (turns(("system", "Be brief"), ("user", "a"), ("assistant", "b")), "put its text in prompt.system"),
        (turns(("user", "a"), ("tool", "b")), "turn 2 has the role 'tool'"),
        (turns(("user", "a"), ("user", "b")), "turn 2 is the user's, but user and assistant must alternate"),
        (turns(("assistant", "b")), "turn 1 is the assistant's"),
        (turns(("user", "a")), "the last turn is the user's"),
        (turns(("user", "a"), ("assistant", None)), "turn 2: 'content' is null"),
        (turns(("user", "a"), ("assistant", "")), "turn 2: 'content' is empty"),
        ({"messages": []}, "must be a list of turns"),
        ({"messages": ["a"]}, "turn 1 must have a role and a content"),
    ],
)
def test_a_chat_that_cannot_be_used_says_why(folder: Path, row: Row, said: str) -> None:
    message = refusal(folder, chat(folder, row))
    assert f"{folder}/train.jsonl, line 1: " in message
    assert said in message


def test_a_local_folder_serves_as_a_hub_data_set(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(folder / "cache"))
    hub = folder / "hub"
    hub.mkdir()
    for split in ("train", "test"):
        jsonl(hub / f"{split}.jsonl", rows(split, 10))
    task = load_task(folder, [f"data={{hub: {hub}, train: train, test: test}}"])
    assert [len(task.rows(split)) for split in ("train", "validation", "test")] == [8, 2, 10]
    message = refusal(folder, [f"data={{hub: {hub}, train: trian}}"])
    assert f"hub data set '{hub}', split 'trian': Unknown split" in message
    assert "data.validation" in message
    assert "'not a name!'" in refusal(folder, ["data={hub: not a name!, train: train}"])


def test_half_a_character_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"question": "a", "answer": "b"}\n{"question": "\\ud800", "answer": "b"}\n')
    with pytest.raises(BadInput, match=r"line 2: 'question' holds half a character"):
        read_splits(Data(path="rows.jsonl"), tmp_path)

"""Hub data sets, stood in for by local folders: the task's rows have the answers that the files have."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from agent.errors import BadInput
from eval.tasks.hub import read_hub


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", str(tmp_path / "downloads"))


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    (tmp_path / "hub").mkdir()
    return tmp_path / "hub"


def answers(hub: Path, split: str = "train") -> list[object]:
    columns = ("question", "answer")
    return [row.values and row.values["answer"] for row in read_hub(str(hub), None, split, columns).rows]


def jsonl(path: Path, written: Sequence[str]) -> None:
    path.write_text("".join(f'{{"question": "?", "answer": {answer}}}\n' for answer in written))


TEXTS = ["2024-01-01", "007", "1e5", "NA", "null", "None", "1.50", "true", "x"]


@pytest.mark.parametrize("texts", [TEXTS, TEXTS[:1], TEXTS[1:3], TEXTS[3:5]], ids=str)
def test_answers_keep_their_text(texts: list[str], hub: Path) -> None:
    (hub / "train.csv").write_text("question,answer\n" + "".join(f"?,{text}\n" for text in texts))
    assert answers(hub) == texts
    (hub / "train.csv").unlink()
    jsonl(hub / "train.jsonl", list(map(json.dumps, texts)))
    assert answers(hub) == texts


def test_numbers_stay_as_they_are_written(hub: Path) -> None:
    jsonl(hub / "train.jsonl", ["1.50", "1e5", "7"])
    assert list(map(str, answers(hub))) == ["1.50", "1e5", "7"]


def test_lists_packed_files_and_other_separators_are_read(hub: Path) -> None:
    (hub / "train.json").write_text(json.dumps([{"question": "?", "answer": "2024-01-01"}, 5], indent=1))
    assert answers(hub) == ["2024-01-01", None]
    (hub / "train.json").unlink()
    (hub / "train.csv.gz").write_bytes(gzip.compress(b"question;answer\n?;007\n"))
    assert answers(hub) == ["007"]


def test_splits_and_their_slices_are_numbered_from_one(hub: Path) -> None:
    jsonl(hub / "train.jsonl", [f'"a{n}"' for n in range(10)])
    jsonl(hub / "test.jsonl", ['"b"'])
    table = read_hub(str(hub), None, "train[20%:40%]+test")
    assert [(row.number, row.values and row.values["answer"]) for row in table.rows] == [(1, "a2"), (2, "a3"), (3, "b")]
    with pytest.raises(BadInput, match="split 'trian': Unknown split"):
        read_hub(str(hub), None, "trian")


def test_tables_with_types_of_their_own_are_read_as_such(hub: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"question": ["?"], "answer": ["007"]}), hub / "train.parquet")
    assert answers(hub) == ["007"]


def test_files_whose_texts_could_come_out_changed_are_refused(hub: Path) -> None:
    (hub / "train.csv").write_text("question,answer\n?,007\n")
    (hub / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files: train.csv\n  skiprows: 1\n---\n"
    )
    with pytest.raises(BadInput, match="it sets `skiprows` for its files, and their texts could come out changed"):
        answers(hub)
    (hub / "README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files: train.csv\n  sep: ','\n---\n")
    assert answers(hub) == ["007"]


def test_a_data_set_serves_as_a_task(hub: Path, tmp_path: Path) -> None:
    from eval.tasks.task import load_task

    for split in ("train", "test"):
        rows = [json.dumps({"question": f"{split} {n}?", "answer": f"2024-01-{n}"}) for n in range(10, 20)]
        (hub / f"{split}.jsonl").write_text("\n".join(rows))
    (tmp_path / "task.yaml").write_text("name: t\ncontent: [{kind: contains}]\ndata: {}\n")
    task = load_task(tmp_path, [f"data={{hub: {hub}, train: train, test: test}}"])
    assert [len(task.rows(split)) for split in ("train", "validation", "test")] == [8, 2, 10]
    assert task.test[0].answer == "2024-01-10"
    with pytest.raises(BadInput, match=r"data\.validation"):
        load_task(tmp_path, [f"data={{hub: {hub}, train: trian}}"])
    with pytest.raises(BadInput, match=r"'not a name!'"):
        load_task(tmp_path, ["data={hub: not a name!, train: train}"])

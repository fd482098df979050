"""What leaves this machine in a bundle's settings and ledger: no address, no folder of its user."""

from pathlib import Path

import pytest

from agent.config.task import TaskConfig
from export.portable import portable_settings, without_folders


def test_settings_hold_no_address_and_no_folder(tmp_path: Path) -> None:
    (tmp_path / "rater").mkdir()
    rows = {split: f"/home/somebody/my rows/{split}.jsonl" for split in ("train", "validation", "test")}
    config = TaskConfig.model_validate({
        "name": "capitals",
        "data": rows,
        "content": [{"kind": "exact"}, {"kind": "reward_model", "model": str(tmp_path / "rater")}],
        "keep": ["~/tasks/skill", "../other"],
        "experience": "/home/somebody/rounds.jsonl",
        "llm": {
            "model": "m", "base_url": "http://10.0.0.7/v1", "editor": {"base_url": "http://10.0.0.8/v1", "model": "n"},
        },
        "notify": {"url": "http://10.0.0.9/hook"},
    })  # fmt: skip
    values = portable_settings(config, hub=None)
    assert not any(place in str(values) for place in ("somebody", "10.0.0.", str(tmp_path)))
    assert values["data"]["train"] == "train.jsonl" and values["keep"] == ["skill", "../other"]
    assert values["content"][1]["model"] == "./rater" and values["llm"]["editor"] == {"model": "n"}
    assert values["model"] == "smollm2-135m"
    assert TaskConfig.model_validate(values).experience == "rounds.jsonl"


def test_a_base_from_a_folder_gets_its_name_on_the_hub(tmp_path: Path) -> None:
    given = {"name": "t", "data": {"path": "rows.csv"}, "content": [{"kind": "exact"}], "model": str(tmp_path)}
    config = TaskConfig.model_validate(given)
    assert portable_settings(config, "somebody/tiny")["model"] == "somebody/tiny"
    assert portable_settings(config, None)["model"] == f"./{tmp_path.name}"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("LoRA failed: /home/somebody/runs/r/a.safetensors is missing.", "LoRA failed: a.safetensors is missing."),
        ("no such file: '/tmp/x/y.json'", "no such file: 'y.json'"),
        ("~/rows/a.csv", "a.csv"),
        ("content and/or style, 3/4 rows, https://example.org/a/b, </answer>", None),
    ],
)  # fmt: skip
def test_a_text_keeps_the_names_of_files_alone(text: str, kept: str | None) -> None:
    assert without_folders(text) == (text if kept is None else kept)

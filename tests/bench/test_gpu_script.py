"""The script for a card, on whatever is here, in a tiny size: every table, and peers that fail."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.cost.gpu import __main__ as script
from bench.cost.gpu import answers, race, train


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cell of each table."""
    monkeypatch.setattr(train, "CELLS", ((80, 3),))
    monkeypatch.setattr(train, "STEPS", 5)
    monkeypatch.setattr(answers, "PREFIXES", (80,))
    monkeypatch.setattr(answers, "ROWS", 3)
    monkeypatch.setattr(race, "ROWS", (2,))
    monkeypatch.setattr(race, "KINDS", ((1, 4),))


Measured = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def measured(tiny: None, tiny_model: Callable[[str], Path], tmp_path: Path) -> Measured:
    """Runs the script, and returns its lines."""

    def run(tables: str, *more: str) -> list[dict[str, Any]]:
        into = tmp_path / "lines.jsonl"
        options = ["--tokenizer", str(tiny_model("llama")), "--size", "tiny", "--laps", "1", "--into", str(into)]
        script.main([*options, "--tables", tables, *more])
        return [json.loads(line) for line in into.read_text().splitlines()]

    return run


def test_answers_and_races_and_training_and_texts(measured: Measured, capsys: pytest.CaptureFixture[str]) -> None:
    lines = measured("answers,race,profile,training,losses,fp32")
    assert {(line["who"], line["adapter"]) for line in lines if line["table"] == "answers"} == {
        (who, adapter) for who in ("ours", "generate", "generate_batch") for adapter in (True, False)
    }
    [raced] = [line for line in lines if line["table"] == "race"]
    assert (raced["prompts"], raced["rows"]) == (5, 2) and raced["together"] > 0 < raced["apart"]
    trained = {line["who"]: line for line in lines if line["table"] == "training"}
    assert {"ours", "plain"} <= trained.keys()
    assert all(line["loss"] == pytest.approx(trained["plain"]["loss"], rel=1e-2) for line in trained.values())
    assert [line["same"] for line in lines if line["table"] == "fp32"] == ["16 of 16"]
    assert max(line["off"] for line in lines if line["table"] == "losses") < 1e-2
    assert [line["table"] for line in lines].count("profile") == 1
    assert "left out: TRL" in capsys.readouterr().out


def test_a_run_of_the_example_task(measured: Measured, tiny_task: Callable[..., Path]) -> None:
    [line] = measured("demo", "--task", str(tiny_task(budget={"rounds": 1})))
    assert line["rounds"] == 1 and line["seconds"] > 0 and 0 <= line["reward"] <= 1


def test_a_peer_that_fails_is_left_out_by_name_and_the_others_go_on(
    measured: Measured, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(answers, "careful_generate", broken)
    monkeypatch.setattr(answers, "continuous_batching", broken)
    assert [line["who"] for line in measured("answers")] == ["ours"] * 2
    output = capsys.readouterr().out
    assert "left out: answers by generate, " in output and "RuntimeError: no kernel image is available" in output


def test_nothing_is_begun_once_the_time_is_up(measured: Measured, capsys: pytest.CaptureFixture[str]) -> None:
    assert measured("race,losses", "--minutes", "0") == []
    assert capsys.readouterr().out.count("seconds are over") == 2

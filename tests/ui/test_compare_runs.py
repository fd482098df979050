"""Two runs side by side."""

from pathlib import Path

import pytest

from tests.fixtures.command_line import run as command
from tests.fixtures.story import make_run


def test_two_runs_are_compared_on_the_test_rows_that_both_answered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    first = make_run(tmp_path / "a")
    second = make_run(tmp_path / "b")
    assert command(["compare", str(first.path), str(second.path)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "0.92 [0.75, 1.00]" in said and "◆ edit ◆ edit ● LoRA" in said and "they earn the same" in said


def test_a_run_that_has_not_ended_is_refused_and_so_is_one_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done, going_on = make_run(tmp_path / "a"), make_run(tmp_path / "b", finished=False)
    assert command(["compare", str(done.path), str(going_on.path)]) == 2
    assert "has not ended" in capsys.readouterr().err
    assert command(["compare", done.name, "--runs", str(done.path.parent)]) == 2
    assert "name another one" in capsys.readouterr().err


def test_a_report_is_opened_in_the_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr(
        "eval.tasks.task.build_task", lambda config, folder: type("Task", (), {"validation": (), "test": ()})
    )
    run = make_run(tmp_path)
    assert command(["report", str(run.path), "--open"]) == 0
    assert opened == [run.report_html.as_uri()]

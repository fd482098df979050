"""`nesylora run A B --jobs 2` and `compare --jobs 2`: each run in a process of its own, and the same as one by one."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.decisions.results import read
from memory.run.folder import RunFolder, runs
from tests.fixtures.command_line import run

TinyTask = Callable[..., Path]
SMALL = {"budget": {"rounds": 1}, "lora": {"epochs": 1, "rank": 4, "batch_size": 2, "replay": 0}}


pytestmark = pytest.mark.usefixtures("forked_workers")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_two_tasks_at_once_end_as_runs_and_go_on_by_their_folders(
    tiny_task: TinyTask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task, root = str(tiny_task(**SMALL)), tmp_path / "runs"
    code = run(["run", task, task, "--jobs", "2", "--policy", "lora-only", "--runs", str(root)])
    printed = capsys.readouterr().out
    found = runs(root)
    assert code in (0, 4, 5) and len(found) == 2 and "2 runs, 2 at a time." in printed
    for made in found:
        assert made.outcome() and made.reported and f"{made.name}  round 1: " in printed
        assert f"{made.name}: " in printed and str(made.report_html) in printed
    again = run(["run", *(str(made.path) for made in found), "--jobs", "2", "--runs", str(root)])
    assert again == code and len(runs(root)) == 2 and "round 1" not in capsys.readouterr().out


def test_a_comparison_at_once_has_the_rows_of_one_run_by_run(
    tiny_task: TinyTask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = str(tiny_task(**SMALL))
    rows = []
    for name, jobs in (("one", []), ("two", ["--jobs", "2"])):
        root = tmp_path / name
        arguments = ["compare", task, "--policies", "lora-only", "prompt-only", "--runs", str(root)]
        assert run([*arguments, *jobs]) == 0
        [file] = root.glob("compare-*/results.jsonl")
        rows.append({row.policy: (row.rewards, row.levers, row.spend.forward_tokens) for row in read(file)})
        assert len(read(file)) == 2
    assert rows[0] == rows[1]
    printed = capsys.readouterr().out
    assert "1/2  " in printed and "2/2  " in printed and printed.count("Rows:") == 2
    assert run([*arguments, "--jobs", "2"]) == 0 and len(read(file)) == 2


def test_what_does_not_go_together_is_refused_before_anything_begins(
    tiny_task: TinyTask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task, root = str(tiny_task()), tmp_path / "runs"
    for options, message in [
        (["--jobs", "2", "--until", "07:00"], "--until does not go with --on or --jobs"),
        (["--jobs", "2", "--name", "x"], "--name does not go"),
        (["--on", "slurm"], "--on slurm: take `ray`"),
        (["--jobs", "2", "--gpus-each", "1"], "--gpus-each is for --on ray"),
        (["--jobs", "2", "--set", "lora.rnak=3"], "did you mean 'rank'"),
    ]:
        assert run(["run", task, task, *options, "--runs", str(root)]) == 2
        assert message in capsys.readouterr().err
    assert not root.exists() and not [made for made in runs(root) if isinstance(made, RunFolder)]

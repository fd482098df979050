"""A run that has ended is extended by the command line, and goes on under the same ledger."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.config.task import Budget, TaskConfig
from agent.errors import BadInput
from agent.records.limits import Limits
from eval.tasks.task import load_config
from graphs.context import new_run
from graphs.control.extension import as_changes, extended
from graphs.session import open_session
from memory.run.folder import RunFolder
from tests.fixtures.command_line import run as command
from tests.fixtures.learnable import LEARNABLE, TinyTask
from tools import toolbox
from ui.mcp.calls import Extend, Waiting
from ui.report.write import write_report


@pytest.fixture
def done(tiny_task: TinyTask, tmp_path: Path) -> Iterator[RunFolder]:
    """A run of one edit, which has ended."""
    folder = new_run(tiny_task(), ["policy=prompt-only", "budget.rounds=1"], tmp_path / "runs")
    with open_session(folder, report=write_report) as session:
        session.go()
    yield folder


def resume(folder: RunFolder, *options: str) -> int:
    return command(["resume", folder.name, "--runs", str(folder.path.parent), *options])


def test_a_finished_run_says_how_to_extend_it_and_goes_on_when_it_is(
    done: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    before, report = (done.path / "ledger.jsonl").read_text(), done.report_md.read_text()
    assert "The test rows were opened once, at the end." in report
    assert resume(done) == 5
    assert f"nesylora resume {done.path} --set budget.rounds=N" in capsys.readouterr().out
    assert resume(done, "--set", "budget.rounds=2") == 5
    said = capsys.readouterr().out
    assert "2 rounds" in said and "no blind one" in said
    after = (done.path / "ledger.jsonl").read_text()
    assert after.startswith(before), "what stood in the ledger stays"
    kinds = [json.loads(line)["kind"] for line in after.splitlines()]
    assert kinds == ["baseline", "round", "outcome", "extension", "round", "outcome"]
    first, second = done.outcomes()
    assert (first.seen, second.seen) == (0, 1) and done.outcome() == second
    assert first.spend.forward_tokens < second.spend.forward_tokens and first.spend.seconds < second.spend.seconds
    text = done.report_md.read_text()
    assert f"earned {first.best_test.reward:.2f}. The run was extended after that" in text
    assert "no blind one" in done.report_html.read_text()


def test_it_goes_on_without_its_checkpoints_and_after_a_kill_right_behind_the_extension(done: RunFolder) -> None:
    assert command(["ctl", "extend", done.name, "--rounds", "2", "--runs", str(done.path.parent)]) == 0
    reopened = RunFolder.open(done.path)
    assert reopened.outcome() is None and reopened.limits() and len(reopened.outcomes()) == 1
    done.checkpoints.unlink()
    assert resume(done) == 5
    assert [row.number for row in done.rounds()] == [1, 2]


@pytest.mark.parametrize(
    ("setting", "fault"),
    [
        ("lora.rank=8", "only its limits can be set (budget.rounds"),
        ("rounds=9", "only its limits can be set"),
        ("budget.ruonds=9", "only its limits can be set"),
        ("budget.target=0.5", "only its limits can be set"),
        ("budget.rounds=many", "is no number"),
        ("target=2", "target"),
        ("budget.rounds=1", "Nothing is changed"),
    ],
)
def test_only_limits_can_be_set(done: RunFolder, capsys: pytest.CaptureFixture[str], setting: str, fault: str) -> None:
    before = (done.path / "ledger.jsonl").read_text()
    assert resume(done, "--set", setting) == 2
    assert fault in " ".join(capsys.readouterr().err.split())
    assert (done.path / "ledger.jsonl").read_text() == before


def test_exit_codes_tell_reached_from_improved_from_nothing(tiny_task: TinyTask, tmp_path: Path) -> None:
    runs = ["--runs", str(tmp_path / "runs"), "--set", "policy=p -> w", "--set", "seed=1"]
    task = str(tiny_task(**LEARNABLE))
    assert command(["run", task, "--name", "reached", *runs, "--set", "target=0.9"]) == 0
    assert command(["run", task, "--name", "improved", *runs, "--set", "budget.rounds=1"]) == 4
    assert command(["run", str(tiny_task()), "--name", "nothing", *runs, "--set", "budget.rounds=0"]) == 5


def test_events_come_as_lines_of_json(done: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert resume(done, "--set", "budget.rounds=2", "--json") == 5
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    kinds = [event["kind"] for event in printed]
    assert {"run", "round-start", "decision", "verdict", "finish", "progress"} <= set(kinds)
    assert "baseline" not in kinds, "it was told before the run was extended"
    assert all(event["time"] for event in printed)


def test_runs_are_listed_with_their_state_and_curve(
    done: RunFolder, tiny_task: TinyTask, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "150")
    root = done.path.parent
    stopped = new_run(tiny_task(), name="stopped", runs=root)
    from graphs.control import process

    failed = new_run(tiny_task(), name="failed", runs=root)
    process.note(failed, process.Process(pid=1, trouble="The disk is full."))
    assert command(["runs", "--runs", str(root)]) == 0
    output = capsys.readouterr().out
    assert "finished" in output and "to be resumed" in output and "failed: The disk is full." in output
    assert "▁▁" in output
    assert command(["runs", "--json", "--runs", str(root)]) == 0
    records = {record["run"]: record for record in map(json.loads, capsys.readouterr().out.splitlines())}
    assert {name: record["state"] for name, record in records.items()} == {
        done.name: "finished", stopped.name: "to be resumed", "failed": "failed",
    }  # fmt: skip
    assert command(["ctl", "list", "--runs", str(root)]) == 0
    assert command(["ctl", "status", "failed", "--json", "--runs", str(root)]) == 0
    assert json.loads(capsys.readouterr().out)["condition"] == "stopped"


def test_every_face_sets_every_limit_and_says_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    tool = toolbox.schema_of(Extend)["properties"]
    with pytest.raises(SystemExit):
        command(["ctl", "extend", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert set(tool) - set(Waiting.model_fields) == {"target", *Budget.model_fields}
    for name, limit in {"target": TaskConfig.model_fields["target"], **Budget.model_fields}.items():
        assert limit.description and f"--{name.replace('_', '-')} N {limit.description}" in told
        assert tool[name]["description"] == limit.description


def test_a_limit_is_set_by_the_option_of_its_name(done: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    folder = [done.name, "--runs", str(done.path.parent)]
    assert command(["ctl", "extend", *folder, "--rounds", "3", "--train-tokens", "900", "--target", "1"]) == 0
    assert command(["ctl", "extend", *folder, "--minutes", "7", "--train-tokens", "none"]) == 0
    assert done.limits() == Limits(rounds=3, minutes=7, target=1)
    capsys.readouterr()
    assert command(["ctl", "extend", *folder, "--rounds", "many"]) == 2
    assert "'many' is no number" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("setting", "fault"),
    [
        ("budget.rounds=none", "rounds cannot be lifted"),
        ("target=90%", "'90%' is no number; none lifts a limit"),
        ("budget.rounds=+1", "it is the sum that is wanted"),
    ],
)
def test_what_is_no_limit_is_refused_in_the_words_of_the_command(tiny_task: TinyTask, setting: str, fault: str) -> None:
    config = load_config(tiny_task())
    with pytest.raises(BadInput, match=fault):
        extended(config, config.limits, as_changes([setting]))

"""`nesylora run A B --jobs 2` and `compare --jobs 2`: each run in a process of its own, and the same as one by one."""

import importlib.util
import shlex
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.signal.run_costs import Tried
from bench.decisions.results import read
from eval.tasks.task import load_task
from graphs.context import new_run
from graphs.workers.executors import Crew, Place
from memory.run.folder import RunFolder, runs
from tests.fixtures.command_line import run

TinyTask = Callable[..., Path]
SMALL = {"budget": {"rounds": 1}, "lora": {"epochs": 1, "rank": 4, "batch_size": 2, "replay": 0}}


pytestmark = pytest.mark.usefixtures("forked_workers")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("graphs.queue.estimate.probe", lambda tasks: [Tried()] * len(tasks))  # it would load a model


def printed_command(said: str, before: str) -> list[str]:
    """What a user copies behind these words."""
    [line] = [line for line in said.splitlines() if line.startswith(before)]
    name, *arguments = shlex.split(line.removeprefix(before))
    assert name == "nesylora"
    return arguments


def test_two_tasks_at_once_end_as_runs_and_go_on_by_the_command_that_is_printed(
    tiny_task: TinyTask, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    task, root = str(tiny_task(**SMALL)), tmp_path / "the runs"
    with monkeypatch.context() as patch:
        patch.setattr("ui.queue.spread.spread", interrupted)
        monkeypatch.chdir(tmp_path)
        assert run(["run", task, task, "--jobs", "2", "--policy", "lora-only", "--runs", root.name]) == 130
    said = capsys.readouterr()
    go_on = printed_command(said.out, "Stopped. Go on with: ")
    assert go_on == printed_command(said.out, "After a kill, go on with: ") and "nesylora resume" not in said.err
    monkeypatch.chdir("/")
    code = run(go_on)
    printed = capsys.readouterr().out
    found = runs(root)
    assert code in (0, 4, 5) and len(found) == 2 and "2 runs, 2 at a time." in printed
    for made in found:
        assert made.outcome() and made.reported and f"{made.name}  round 1: " in printed
        assert f"{made.name}: " in printed and str(made.report_html) in printed
    ledger = found[0].path / "ledger.jsonl"
    before = ledger.read_text()
    ledger.write_text("what a disk has lost\n" + before.partition("\n")[2])
    assert run(go_on) == code and len(runs(root)) == 2 and "round 1" not in capsys.readouterr().out
    assert ledger.read_text() == before, "the run's own process mends it"


class Failing(Crew):
    def command(self, arguments: list[str], log: str) -> "Future[str]":
        done: Future[str] = Future()
        done.set_result("out of order")
        return done


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> list[Place]:
    """Where commands would have run that fail instead."""
    asked = []

    @contextmanager
    def failing(place: Place) -> Iterator[Crew]:
        asked.append(place)
        yield Failing()

    monkeypatch.setattr("ui.queue.spread.crew", failing)
    return asked


LIMITS = ["--until", "2099-12-31 07:00", "--minutes", "90.5", "--usd", "2.5", "--train-tokens", "12345678"]


@pytest.mark.parametrize(
    ("on", "options"),
    [
        ("ray", ["--gpus-each", "0.5"]),
        ("ray://head:10001", LIMITS),
        ("ray", ["--jobs", "3"]),
        ("here", ["--jobs", "3", *LIMITS]),
    ],
)
def test_what_has_failed_goes_on_at_the_same_place_also_runs_of_one_name(
    tiny_task: TinyTask, tmp_path: Path, capsys: pytest.CaptureFixture[str], places: list[Place],
    on: str, options: list[str],
) -> None:  # fmt: skip
    task = tiny_task()
    made = [str(new_run(task, (), tmp_path / root, "night").path) for root in ("a", "b")]
    assert run(["run", *made, "--on", on, *options]) == 1
    said = capsys.readouterr().out
    assert all(f"{path}: out of order" in said for path in made), said
    again = printed_command(said, "What has failed goes on with: ")
    assert all(option in again for option in options) and run(again) == 1
    assert capsys.readouterr().out == said and places[0] == places[1]


@pytest.mark.usefixtures("places")
def test_within_a_common_budget_a_damaged_ledger_ends_no_run_and_runs_of_one_name_have_a_part_each(
    tiny_task: TinyTask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = tiny_task()
    made = [new_run(task, (), tmp_path / root, "night") for root in ("a", "b")]
    (made[0].path / "ledger.jsonl").write_text("what a disk has lost\n")
    assert run(["run", *(str(one.path) for one in made), "--jobs", "2", "--train-tokens", "800"]) == 1
    said = capsys.readouterr().out
    assert all(f"{one.path}: out of order" in said for one in made) and "The run goes on after nothing" in said
    parts = [limits.train_tokens if (limits := one.limits()) else None for one in made]
    assert parts == [400, 800], "the first has failed, and leaves its part to the second"


def test_two_tasks_at_once_keep_to_one_budget(tiny_task: TinyTask, tmp_path: Path) -> None:
    task, root = str(tiny_task()), tmp_path / "runs"
    long = ["budget.rounds=9", "lora.epochs=4", "lora.batch_size=1", "lora.enough=0", "lora.replay=0"]
    settings = [part for setting in long for part in ("--set", setting)]
    common = ["--jobs", "2", "--train-tokens", "800", "--policy", "lora-only", "--runs", str(root)]
    assert run(["run", task, task, *common, *settings]) in (0, 4, 5)
    made = runs(root)
    outcomes = [outcome for each in made if (outcome := each.outcome())]
    assert [outcome.stopped for outcome in outcomes] == ["The budget of 400 training tokens is used up."] * 2
    step = max(len(row.question + row.answer) for row in load_task(Path(task)).train)
    assert 800 <= sum(outcome.spend.train_tokens for outcome in outcomes) <= 800 + 2 * step
    assert [[row.by for row in each.extensions()] for each in made] == [["queue"]] * 2


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
    tiny_task: TinyTask, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    task, root = str(tiny_task()), tmp_path / "runs"
    for options, message in [
        (["--jobs", "2", "--overnight"], "--overnight does not go with --on or --jobs"),
        (["--jobs", "0"], "--jobs must be at least 1"),
        (["--gpus-each", "1"], "--gpus-each is for --on ray"),
        (["--jobs", "2", "--name", "x"], "--name does not go"),
        (["--on", "slurm"], "--on slurm: take `ray`"),
        (["--jobs", "2", "--gpus-each", "1"], "--gpus-each is for --on ray"),
        (["--jobs", "2", "--set", "lora.rnak=3"], "did you mean 'rank'"),
    ]:
        assert run(["run", task, task, *options, "--runs", str(root)]) == 2
        assert message in capsys.readouterr().err
    other = str(new_run(Path(task), (), tmp_path / "other").path)
    assert run(["run", other, f"{other}/", task, "--jobs", "2", "--runs", str(root)]) == 2
    assert f"{other} is named twice" in capsys.readouterr().err
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *of: None if name == "ray" else find(name, *of))
    assert run(["run", task, task, "--on", "ray", "--runs", str(root)]) == 2
    assert "pip install 'nesylora[ray]'" in capsys.readouterr().err
    assert not root.exists() and not [made for made in runs(root) if isinstance(made, RunFolder)]

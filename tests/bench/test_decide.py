"""`nesylora bench decide` as a user meets it: killed, interrupted, gone on with, and read."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pytest

from bench.decisions.decide import plan
from bench.decisions.folder import begin, save_group
from bench.decisions.results import Result, described, named, read
from bench.decisions.run_variant import best_run
from memory.run.folder import RunFolder
from tests.fixtures.command_line import run
from tests.fixtures.pages import Visible, outside_fences

ROOT = Path(__file__).parents[2]
TinyTask = Callable[..., Path]
POLICIES = ("rules without gate", "lora-only", "oracle")
pytestmark = pytest.mark.usefixtures("forked_workers")


@pytest.fixture
def two_tasks(tiny_task: TinyTask, tmp_path: Path) -> list[str]:
    """One that asks for a form, and one that does not; two rounds each."""
    plain = tmp_path / "other"
    small = {"budget": {"rounds": 2}, "lora": {"epochs": 1, "rank": 4, "batch_size": 2, "replay": 0}}
    shutil.copytree(tiny_task(name="plain", style=[], content=[{"kind": "f1"}], **small), plain)
    return [str(tiny_task(**small)), str(plain)]


def command(tasks: list[str], root: Path, *options: str) -> list[str]:
    arguments = ["bench", "decide", *tasks, "--policies", *POLICIES, "--seeds", "0", "--jobs", "2"]
    return [*arguments, "--runs", str(root), *options]


def finished_groups(
    tasks: list[str], root: Path, policies: Sequence[str], seeds: Sequence[int], *overrides: str
) -> list[Path]:
    """The folders of these groups, run to their end in this process, which has loaded the libraries already."""
    variants = [described(policy) if ":" in policy else named(policy) for policy in policies]
    folders = [
        save_group(group, root / "decide") for group in plan([Path(task) for task in tasks], variants, seeds, overrides)
    ]
    for folder in folders:
        assert run(["bench", "group", str(folder)]) == 0
    return folders


def rows(root: Path) -> list[Result]:
    return [row for file in sorted(root.glob("decide/*/results.jsonl")) for row in read(file)]


def measured(root: Path) -> dict[tuple[str, int, str], tuple[object, ...]]:
    """All of the rows that another run of the same must have, too."""
    facts = {(row.task, row.seed, row.policy): (row.rewards, row.levers, row.best, row.stopped) for row in rows(root)}
    assert len(facts) == len(rows(root))
    return facts


def ended(line: list[str], root: Path, by: signal.Signals, after: int) -> tuple[int, str]:
    """Exit code and output of a command that gets this signal once there are so many rows; its children end, too."""
    shell = subprocess.Popen(
        [sys.executable, "nesylora.py", *line],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a job in the background ignores
    )  # fmt: skip
    while len(rows(root)) < after:
        assert shell.poll() is None, "it ended before the signal"
        time.sleep(0.02)
    children = psutil.Process(shell.pid).children()
    assert children
    shell.send_signal(by)
    output = shell.communicate()[0]
    assert not psutil.wait_procs(children, timeout=20)[1], "children work on unseen"
    return shell.returncode, output


def test_stopped_and_killed_it_goes_on_to_the_rows_of_an_undisturbed_one(
    two_tasks: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    finished_groups(two_tasks, straight, POLICIES, [0])
    ended(command(two_tasks, broken), broken, signal.SIGKILL, after=1)
    code, output = ended(command(two_tasks, broken), broken, signal.SIGINT, after=len(rows(broken)) + 1)
    assert code == 130 and "the same command goes on" in output and "Traceback" not in output
    torn = next(broken.glob("decide/*/results.jsonl"))
    torn.write_text(torn.read_text()[:-40])
    left = 6 - len(rows(broken))
    capsys.readouterr()
    assert run(command(two_tasks, broken)) == 0
    printed = capsys.readouterr().out
    assert f"6 runs in 2 groups, {6 - left} of them done before" in printed and printed.count("6/6") == 1
    assert measured(broken) == measured(straight) and len(measured(straight)) == 6
    compares_them_on_page_and_terminal(broken / "decide", capsys)


def compares_them_on_page_and_terminal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    twin, page = folder / "table.md", folder / "decide.html"
    before = twin.read_text(), page.read_text()
    twin.unlink(), page.unlink()
    assert run(["bench", "decide", "--only-write", "--runs", str(folder.parent)]) == 0
    assert (twin.read_text(), page.read_text()) == before
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("rules without gate", "plain", "regret"))
    seen = Visible()
    seen.feed(page.read_text())
    for words in (" ".join(seen.words), outside_fences(twin.read_text())):
        assert all(text in words for text in ("Every run", "bench decide", "torch", "1 thread each", "lora-only"))
    assert page.read_text().count("<svg") == 5  # cost, share, regret and a reward chart a task
    assert "http" not in page.read_text().replace("http-equiv", "")


def test_a_failed_group_is_reported_and_the_others_go_on(
    two_tasks: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished_groups(two_tasks[:1], tmp_path, ["lora-only"], [0], "budget.rounds=1")
    broken = Path(two_tasks[1]) / "task.yaml"
    broken.write_text(broken.read_text().replace("model: ", "model: /gone"))
    few = ["--policies", "lora-only", "--seeds", "0", "--set", "budget.rounds=1"]
    assert run([*command([two_tasks[1], two_tasks[0]], tmp_path), *few]) == 1
    output = capsys.readouterr().out
    assert "Failed: plain-seed0: " in output and "/gone" in output and "log.txt" in output
    assert [row.task for row in rows(tmp_path)] == ["mayors"] and (tmp_path / "decide" / "table.md").is_file()


def test_damaged_files_and_missing_rows_are_named(
    two_tasks: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [group] = finished_groups(two_tasks[:1], tmp_path, ["lora-only", "prompt-only"], [0], "budget.rounds=1")
    begin(tmp_path / "decide", "nesylora bench decide", 1, 1)
    results, again = group / "results.jsonl", ["bench", "decide", "--only-write", "--runs", str(tmp_path)]
    results.write_text("{" + results.read_text())
    capsys.readouterr()
    assert run(again) == 0 and "1 row still to come, or damaged" in capsys.readouterr().out
    for file in (tmp_path / "decide" / "bench.json", group / "group.json"):
        whole = file.read_text()
        file.write_text("{")
        assert run(again) == 2
        output = capsys.readouterr().err
        assert f"{file} cannot be read" in output and "Traceback" not in output
        file.write_text(whole)


def test_what_would_not_compare_is_refused_before_anything_is_run(
    two_tasks: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["bench", "decide", two_tasks[0], "--runs", str(tmp_path), "--seeds", "0", "--set", "budget.rounds=1"]
    finished_groups(two_tasks[:1], tmp_path, ["lora-only"], [0], "budget.rounds=1")
    for options, message in [
        (["--policies", "lora-only", "--set", "target=0.5"], "another --name"),
        (["--policies", "--variant", "lora-only: policy=lora-only lora.epochs=2"], "has a row of 'lora-only'"),
        (["--policies", "ruels"], "there is no policy 'ruels'"),
        (["--policies", "rules", "rules"], "two named rules"),
        (["--policies", "rules without gates"], "without"),
        (["--policies"], "one policy or variant"),
        (["--seeds", "-1"], "no seed below 0"),
        (["--variant", "easy: 'content=[{kind: exact}]'"], "other rows or scorers"),
        (["--variant", "lost: policy=learned experience=nowhere.jsonl"], "nowhere.jsonl"),
    ]:
        capsys.readouterr()
        assert run([*arguments, *options]) == 2
        assert message in capsys.readouterr().err
    assert len(rows(tmp_path)) == 1
    assert run(["bench", "decide", "--only-write", "--runs", str(tmp_path / "none")]) == 2


def test_runs_of_a_group_have_answers_and_adapters_in_common(two_tasks: list[str], tmp_path: Path) -> None:
    policies = ["lora-only", "w -> p", "hot: policy=lora-only lora.rank=2"]
    # An adapter that was taken over costs what it took, the base's reading of general rows included.
    [group] = finished_groups(two_tasks[1:], tmp_path, policies, [0], "budget.rounds=1", "lora.replay=0.5")
    first, second, third = read(group / "results.jsonl")
    assert first.spend.forward_tokens == second.spend.forward_tokens > 0 and first.rewards == second.rewards
    assert third.policy == "hot" and third.settings == ("policy=lora-only", "lora.rank=2")
    trained = [next((group / row.run / "adapters").glob("*/training.json")) for row in (first, second, third)]
    assert os.path.samefile(trained[0], trained[1])
    assert json.loads(trained[2].read_text())["rank"] == 2


def test_the_oracle_keeps_the_lever_that_leads_highest(two_tasks: list[str], tmp_path: Path) -> None:
    """Its run is as good as any that it could have made, and of those as cheap."""
    [group] = finished_groups(two_tasks[1:], tmp_path, ["oracle"], [0], "gate.alpha=0.99")
    [row] = read(group / "results.jsonl")
    tried = {path.name: RunFolder.open(path) for path in group.glob("steps-*")}
    rewards = {name: max([row.reward for row in folder.rounds()], default=0.0) for name, folder in tried.items()}
    assert set(tried) >= {"steps-p", "steps-o", "steps-r"}
    firsts = {name: reward for name, reward in rewards.items() if len(name) == len("steps-p")}
    assert rewards[row.run] >= max(firsts.values())
    again = best_run(2, 2.0, lambda steps: tried[f"steps-{steps}"])  # a target that nobody reaches
    assert again.name == row.run

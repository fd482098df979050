"""A queue from the command line and from Python: begun, told of, looked at, taken up after a signal."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

import nesylora
from agent.records.queue import TaskSpent, TaskStopped
from agent.records.rounds import Spend
from agent.signal.run_costs import Tried
from graphs.control.steering import Step
from graphs.control.watching import status_of_folder
from memory.queue import QueueFolder, now, queues
from memory.run.folder import RunFolder
from tests.fixtures.command_line import run as command
from tests.fixtures.learnable import TinyTask
from tests.fixtures.story import make_run
from tests.graphs.queue.test_shares import a_queue
from tests.ui.telling.test_notify import webhook
from ui.queue.view import QueueView, notice_of

ROOT = Path(__file__).parents[3]
SHORT = ["--set", "policy=lora-only", "--set", "budget.rounds=1", "--set", "lora.epochs=1"]
PATIENCE = 300.0  # seconds; a test that waits so long fails


pytestmark = pytest.mark.usefixtures("forked_workers")


@pytest.fixture(autouse=True)
def no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would load a model in a process of its own."""
    monkeypatch.setattr("graphs.queue.estimate.probe", lambda tasks: [Tried()] * len(tasks))


def test_two_tasks_of_which_one_fails_are_worked_on_told_of_and_shown(
    tiny_task: TinyTask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = tiny_task(), tmp_path / "bad"
    bad.mkdir()
    config = yaml.safe_load((good / "task.yaml").read_text())
    data = {split: str(good / name) for split, name in config["data"].items()}
    data["validation"] = "own.jsonl"
    (bad / "task.yaml").write_text(yaml.safe_dump(config | {"name": "bad", "data": data}))
    (bad / "own.jsonl").write_text(
        (good / "validation.jsonl").read_text().splitlines()[0].replace("Name", "Say") + "\n"
    )
    runs = ["--runs", str(tmp_path / "runs")]
    # Too long for the window: found by the tokenizer, after the checks of the start.
    (bad / "own.jsonl").write_text(json.dumps({"question": "mayor " * 3000, "answer": "Heskzan"}) + "\n")
    with webhook() as (url, told):
        code = command(["run", str(good), str(bad), *SHORT, *runs, "--minutes", "600", "--notify", url])
    said = " ".join(capsys.readouterr().out.split())
    assert code == 1
    assert "likely" in said and "at most" in said and "k tokens" in said
    assert "2 tasks, 600 minutes of work" in said and "task 1 of 2: run mayors-" in said
    [queue] = queues(tmp_path / "runs")
    ends = [item.ended.state for item in queue.read().items if item.ended]
    assert ends == ["finished", "failed"]
    # On a busy machine the run may be gone before it has said why: then it is tried once more.
    assert list(dict.fromkeys((record["of"], record["event"]) for record in told)) == [
        ("task", "end"),
        ("task", "trouble"),
        ("queue", "end"),
    ]
    assert "window" in told[-2]["text"] and told[-1]["page"] == str(queue.page)
    assert all(Path(record["page"]).is_file() for record in told) and "1 of 2 done; failed: bad." in told[-1]["text"]
    page = queue.page.read_text()
    assert "0 of 2 tasks reached their target" in page and "report.html" in page and "window" in page
    assert command(["queue", "status", *runs]) == 0
    assert "1 mayors: below its target" in capsys.readouterr().out
    assert command(["queue", "list", *runs]) == 0 and "1 of 2 tasks done, 1 failed" in capsys.readouterr().out


def test_a_signal_ends_the_run_under_way_cleanly_and_resume_goes_on(tiny_task: TinyTask, tmp_path: Path) -> None:
    long = ["policy=lora-only", "budget.rounds=1", "lora.epochs=20", "lora.batch_size=1", "lora.enough=0"]
    settings = [part for setting in long for part in ("--set", setting)]
    line = [sys.executable, "nesylora.py", "run", tiny_task(), "--overnight", "--runs", tmp_path / "runs", *settings]
    worker = subprocess.Popen(
        [*map(str, line), "--json"], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert worker.stdout
    kinds = []
    while not kinds or kinds[-1] != "decision":
        kinds.append(json.loads(worker.stdout.readline())["kind"])
    worker.send_signal(signal.SIGHUP)  # the terminal is closed
    worker.send_signal(signal.SIGTERM)
    _, error = worker.communicate(timeout=PATIENCE)
    assert worker.returncode == 143, error
    [queue] = queues(tmp_path / "runs")
    assert "ending after the batch under way" in error and f"go on with: nesylora queue resume {queue.path}" in error
    [item] = queue.read().items
    run = RunFolder.open(queue.root / item.run)
    assert item.ended is None and run.outcome() is None
    with run.locked(), queue.locked():
        pass
    assert command(["resume", queue.name, "--runs", str(tmp_path / "runs"), "--json"]) in (4, 5)
    assert run.outcome() and QueueFolder.open(queue.path).read().items[0].ended
    assert command(["resume", queue.name, "--runs", str(tmp_path / "runs")]) == 0


def test_from_python_several_tasks_come_back_with_what_became_of_them(tiny_task: TinyTask, tmp_path: Path) -> None:
    overrides = ["policy=lora-only", "budget.rounds=1", "lora.epochs=1"]
    [done] = nesylora.adapt_all([tiny_task()], overrides=overrides, runs=tmp_path / "runs", minutes=500)
    assert done.state == "finished" and done.adapted
    assert done.adapted.outcome.stopped in done.reason and done.adapted.run.parent == tmp_path / "runs"


def test_the_commands_that_a_detached_queue_names_find_it_from_where_they_are_typed(
    tiny_task: TinyTask, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = tiny_task()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ui.queue.work.subprocess.Popen", lambda *_, **__: SimpleNamespace(pid=7))
    for root, shown in (("q2", "q2/"), ("runs", "")):
        assert command(["run", task.as_posix(), "--minutes", "900", "--runs", root, "--detach"]) == 0
        [queue] = queues(tmp_path / root)
        said = capsys.readouterr().out
        assert f"queue status {shown}{queue.name} " in said and f"queue add TASK --queue {shown}{queue.name}" in said
        named = shown + queue.name
        assert command(["queue", "add", str(task), "--queue", named]) == 0
        said = capsys.readouterr().out
        assert "is task 2" in said and "It waits there as task 1 already" in said
        assert f"Nobody works on the queue now: nesylora queue resume {named}" in said
        assert command(["queue", "remove", "2", "--queue", named]) == 0
        assert command(["queue", "extend", named, "--minutes", "800", "--until", "none"]) == 0
        assert f"{queue.name}: 800 minutes of work" in capsys.readouterr().out
        assert command(["queue", "extend", named, "--minutes", "many"]) == 2
        assert "none lifts a limit" in capsys.readouterr().err
        assert command(["queue", "resume", named, "--detach", "--until", "2099-01-01 07:00"]) == 0
        assert "1 task to be worked on, until 07:00 on January 1, 800 minutes of work" in capsys.readouterr().out


def test_work_of_no_known_length_is_not_shown_as_none_of_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ui.terminal.live.EVERY", 0.0)
    run = make_run(tmp_path, finished=False)
    status = status_of_folder(run, "working")
    with QueueView(QueueFolder(tmp_path), json=False, stopping=lambda: None) as view:
        view.run(run, status.model_copy(update={"step": Step(what="judging")}))
        view.run(run, status.model_copy(update={"step": Step(what="training LoRA", done=1, total=9)}))
    said = capsys.readouterr().out
    assert "judging" not in said and "training LoRA 1/9" in said


def test_others_hear_what_a_task_that_has_stopped_has_used(tmp_path: Path) -> None:
    run = make_run(tmp_path, finished=False)
    queue, used = a_queue(tmp_path, run), Spend(seconds=70.0, train_tokens=30)
    stopped = TaskStopped(time=now(), number=1, reason="It broke.", then="again")
    for row in (TaskSpent(time=now(), number=1, run=run.name, spend=used), stopped):
        queue.append(lambda _, row=row: row)  # type: ignore[misc]
    notice = notice_of(stopped, queue.read(), queue)
    assert notice and notice.event == "trouble" and notice.spend == used

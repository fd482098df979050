"""The command line as a user meets it."""

import json
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from graphs.context import new_run
from memory.run.folder import RunFolder, runs
from tests.fixtures.command_line import run
from tests.fixtures.forks import run_forked

ROOT = Path(__file__).parents[2]
TinyTask = Callable[..., Path]
ENDED = (0, 4, 5)  # whatever a random model gains


def finished(task: Path, root: Path) -> RunFolder:
    assert run(["run", str(task), "--runs", str(root), "--set", "budget.rounds=1"]) in ENDED
    return runs(root)[0]


@pytest.mark.parametrize("command", [[], ["run"], ["chat"], ["compare"], ["bench", "decide"]])
def test_help_answers_at_once(command: list[str]) -> None:
    """Under half a second of the processor's time, whatever else it does; the best of three."""
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        line = [sys.executable, "nesylora.py", *command, "--help"]
        answer = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert answer.returncode == 0 and "usage: nesylora" in answer.stdout
    assert min(times) < 0.5


def test_a_ctrl_c_while_the_interpreter_ends_shows_no_traceback() -> None:
    """As in the clean-up that torch registers, after a server that was told to stop."""
    ending = "atexit.register(lambda: (os.kill(os.getpid(), signal.SIGINT), time.sleep(1)))"
    code = f"import atexit, os, signal, sys, time, nesylora; {ending}; nesylora.main()"
    done = subprocess.run([sys.executable, "-c", code, "--version"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "") and "nesylora" in done.stdout


# --- bad input: a sentence with the place, exit code 2, and nothing begun -----------------------------


def break_line(task: Path) -> dict[str, Any]:
    lines = (task / "train.jsonl").read_text().splitlines()
    lines[2] = '{"question": "cut off'
    (task / "train.jsonl").write_text("\n".join(lines))
    return {}


def lose_file(task: Path) -> dict[str, Any]:
    (task / "test.jsonl").unlink()
    return {}


def empty_split(task: Path) -> dict[str, Any]:
    (task / "validation.jsonl").write_text("\n")
    return {}


@pytest.mark.parametrize(
    ("damage", "flags", "messages"),
    [
        (break_line, [], ["train.jsonl", "line 3"]),
        (lose_file, [], ["test.jsonl"]),
        (empty_split, [], ["validation.jsonl"]),
        (lambda _: {"budjet": {"rounds": 1}}, [], ["task.yaml, line 25", "budjet", "did you mean 'budget'"]),
        (lambda _: {"model": "/no/such/model"}, [], ["task.yaml, line 2", "/no/such/model"]),
        (lambda _: {}, ["--set", "budget.ruonds=2"], ["override 'budget.ruonds=2'", "rounds"]),
        (lambda _: {}, ["--set", "lora.rank=4096"], ["lora.rank", "256"]),
        (lambda _: {}, ["--name", "../out"], ["../out"]),
    ],
)
def test_bad_input_is_a_sentence_with_the_place(
    damage: Callable[[Path], dict[str, Any]], flags: list[str], messages: list[str],
    tiny_task: TinyTask, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    task = tiny_task()
    tiny_task_changes = damage(task)
    if tiny_task_changes:
        tiny_task(**tiny_task_changes)
    assert run(["run", str(task), "--runs", str(tmp_path / "runs"), *flags]) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in messages), error
    assert "Traceback" not in error
    assert not list((tmp_path / "runs").glob("*/ledger.jsonl"))


def test_no_model_is_loaded_for_bad_input(tiny_task: TinyTask) -> None:
    task = tiny_task()
    break_line(task)
    code = (
        "import sys; from ui.cli import run; code = run(['run', sys.argv[1]]); "
        "print(code, [name for name in ('torch', 'transformers', 'peft') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code, str(task)], cwd=ROOT, capture_output=True, text=True)
    assert answer.stdout.strip() == "2 []"


# --- the commands -------------------------------------------------------------------------------------


def test_run_report_runs_and_resume(tiny_task: TinyTask, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "runs"
    done = finished(tiny_task(), root)
    assert run(["runs", "--runs", str(root)]) == 0
    assert done.name in capsys.readouterr().out
    older = RunFolder.create(root, "mayors", "", root, "0" * 12, name="older")
    about = older.about.model_copy(update={"created": "2020-01-01T00:00:00+00:00"})
    (older.path / "run.json").write_text(about.model_dump_json())
    assert run(["report", "--runs", str(root)]) == 0
    newest = capsys.readouterr()
    assert newest.out.strip() == str(done.report_html) and f"the newest run, {done.name}" in newest.err
    assert run(["resume", done.name, "--runs", str(root)]) in ENDED
    output = capsys.readouterr().out
    assert done.name in output and "has finished" in output
    assert (done.path / "report.md").is_file()


@pytest.mark.parametrize(("file", "text"), [("ledger.jsonl", "{}\n"), ("run.json", "{")])
def test_a_damaged_run_is_listed_beside_the_others_and_none_is_taken_in_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, file: str, text: str
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    for name in ("sound", "torn"):
        RunFolder.create(tmp_path, "mayors", "", tmp_path, "0" * 12, name=name)
    (tmp_path / "torn" / file).write_text(text)
    assert run(["runs", "--runs", str(tmp_path)]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "sound" in output and "damaged: nesylora resume" in output and "mends it, or says where" in output
    assert run(["report", "--runs", str(tmp_path)]) == 2
    assert "the newest run, torn" in capsys.readouterr().err


def test_an_unknown_run_names_the_nearest(
    tiny_task: TinyTask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = finished(tiny_task(), tmp_path / "runs")
    assert run(["resume", done.name + "x", "--runs", str(tmp_path / "runs")]) == 2
    assert done.name in capsys.readouterr().err


def test_eval_scores_a_prompt_and_an_adapter(
    tiny_task: TinyTask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task, root = tiny_task(), tmp_path / "runs"
    assert run(["run", str(task), "--runs", str(root), "--policy", "lora-only", "--set", "budget.rounds=1"]) in ENDED
    [done] = runs(root)
    prompt = next((done.path / "prompts").glob("*.json"))
    adapter = next((done.path / "adapters").iterdir())
    assert run(["eval", str(task), "--prompt", str(prompt), "--adapter", str(adapter)]) == 0
    assert "joint reward" in capsys.readouterr().out
    assert run(["eval", str(task), "--adapter", str(tmp_path)]) == 2


def test_doctor_says_what_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-marked")
    monkeypatch.setenv("SOME_API_KEY", "sk-marked-too")
    assert run(["doctor", "--runs", str(tmp_path)]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert all(word in output for word in ("torch", "device", "embedded model", "free space", "external LLM"))
    assert "OPENAI_API_KEY, " in output and "SOME_API_KEY" in output and "sk-marked" not in output
    assert "make check-llm BASE_URL=… MODEL=…" in output


def test_compare_runs_each_policy_once(tiny_task: TinyTask, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task, root = tiny_task(budget={"rounds": 1}), tmp_path / "runs"
    command = ["compare", str(task), "--policies", "rules", "lora-only", "--runs", str(root)]
    assert run(command) == 0
    [rows] = root.glob("compare-mayors-*/results.jsonl")
    first = [json.loads(line) for line in rows.read_text().splitlines()]
    assert [row["policy"] for row in first] == ["rules", "lora-only"]
    assert "commonest answer" in capsys.readouterr().out
    assert run(command) == 0
    assert len(rows.read_text().splitlines()) == 2 and "lora-only" in capsys.readouterr().out


# --- chat ---------------------------------------------------------------------------------------------


def talk(task: Path, root: Path, *lines: str) -> str:
    code, said = "import nesylora; nesylora.main()", "\n".join(lines) + "\n"
    answer = run_forked(code, "chat", str(task), "--runs", str(root), stdin=said)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_chat_shows_a_plan_and_does_only_what_is_approved(tiny_task: TinyTask, tmp_path: Path) -> None:
    output = talk(tiny_task(), tmp_path / "runs", "/plan", "/nonsense", "/why", "/quit")
    assert "Round 1: train 2 epochs on 4 rows" in output and "cost:" in output
    assert "no command /nonsense" in output and "The plan of round 1 is to train 2 epochs" in output
    assert not runs(tmp_path / "runs")[0].rounds()


def test_chat_steers_a_run_to_its_end(tiny_task: TinyTask, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    output = talk(
        tiny_task(), root, "/edit", "/train", "/why", "/diff", "/rollback 9", "/rollback 0", "/try Who?", "/finish"
    )
    [folder] = runs(root)
    assert [row.decision.move.action for row in folder.rounds()] == ["edit_prompt", "train_lora", "rollback"]
    assert "There have been 2 rounds; /rollback takes 0 to 1" in output
    assert folder.outcome() is not None


@pytest.mark.parametrize(("answer", "trained"), [("n", 0), ("y", 1)])
def test_chat_asks_before_it_trains(tiny_task: TinyTask, tmp_path: Path, answer: str, trained: int) -> None:
    root = tmp_path / "runs"
    output = talk(tiny_task(style=[], content=[{"kind": "exact"}]), root, "/run 1", answer, "/quit")
    assert "train 2 epochs" in output and "do it? (yes/no)" in output
    done = [row.decision.move.action for row in runs(root)[0].rounds()]
    assert done == ["train_lora"] * trained


def test_a_mistyped_run_is_answered_with_the_nearest(
    tiny_task: TinyTask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new_run(tiny_task(), runs=tmp_path / "runs", name="mayors-one")
    assert run(["chat", "mayor-one", "--runs", str(tmp_path / "runs")]) == 2
    answer = capsys.readouterr().err
    assert "mayor-one is no task.yaml and no folder of one" in answer and "The nearest are: mayors-one." in answer


def test_a_finished_run_still_answers_in_chat(tiny_task: TinyTask, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    done = finished(tiny_task(), root)
    output = talk(done.path, root, "/why", "/diff", "/quit")
    assert "The run has finished" in output and "Round 1, train_lora, decided by rules." in output


def test_a_chat_goes_on_where_it_was_left(tiny_task: TinyTask, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    talk(tiny_task(), root, "/approve", "/quit")
    [folder] = runs(root)
    output = talk(Path(folder.name), root, "/quit")
    assert "Round 2" in output and len(runs(root)) == 1

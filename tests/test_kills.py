"""Whole runs that are killed, and gone on with; and others that want the same run."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import nesylora
from agent.errors import BadInput, Busy
from graphs.context import new_run
from graphs.session import open_session
from memory.ledger import RunFolder
from tests.learnable import LEARNABLE, TinyTask

ROOT = Path(__file__).parents[1]


def outline(run: RunFolder) -> list[object]:
    """What a run decided and measured, without what depends on the clock."""
    return [(row.number, row.decision.move, row.trial.candidate, row.verdict, row.best) for row in run.rounds()]


def passes(run: RunFolder) -> list[int]:
    return [row.spend.passes for row in run.rounds()]


KILLED = """
import os, signal, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from graphs.session import open_session
from memory.ledger import RunFolder
class Killer:
    def __call__(self, what, done, total, note=""):
        if what == {what!r} and done == {done}: os.kill(os.getpid(), signal.SIGKILL)
    def event(self, kind, data):
        if kind == {what!r}: os.kill(os.getpid(), signal.SIGKILL)
if {what!r} == "measured":  # so many measurements stand, and no checkpoint counts the last ones
    save, saved = RunFolder.save, []
    def saving(folder, measured):
        save(folder, measured)
        saved.append(measured)
        if len(saved) == {done}: os.kill(os.getpid(), signal.SIGKILL)
    RunFolder.save = saving
if {what!r} == "judging":  # the adapter is complete, the trial not yet noted
    import tools.lora
    train = tools.lora.train
    tools.lora.train = lambda *given, **named: (train(*given, **named), os.kill(os.getpid(), signal.SIGKILL))
with open_session(RunFolder.open(Path(sys.argv[1])), listener=Killer()) as session:
    session.go()
"""


@pytest.mark.parametrize(
    ("what", "done"),
    [
        ("training LoRA", 2), ("training LoRA", 30), ("decision", 0), ("verdict", 0), ("judging", 0),
        ("measured", 1), ("measured", 4), ("measured", 6),
    ],
)  # fmt: skip
def test_killed_and_resumed_it_ends_as_it_would_have(tiny_task: TinyTask, tmp_path: Path, what: str, done: int) -> None:
    task, overrides = tiny_task(**LEARNABLE), ["policy=p -> w -> p", "seed=1"]
    whole = RunFolder.open(nesylora.adapt(task, overrides=overrides, runs=tmp_path / "whole").run)
    kept = [row.decision.move.action for row in whole.rounds() if row.verdict.kept]
    assert kept == ["edit_prompt", "train_lora"]
    folder = new_run(task, overrides, tmp_path / "killed")
    code = KILLED.format(root=str(ROOT), what=what, done=done)
    ended = subprocess.run([sys.executable, "-c", code, str(folder.path)], capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert folder.outcome() is None
    in_vain = 3 * json.loads((folder.path / "charge.json").read_text())["spend"]["train_tokens"]
    with open_session(folder) as session:
        session.go()
        with session.context.memory.open() as memory:
            remembered = memory.count()
    assert outline(folder) == outline(whole)
    if what == "training LoRA":  # begun anew after the kill; what the first try took is charged all the same
        assert in_vain > 0
        assert passes(folder) == [passes(whole)[0], *(spent + in_vain for spent in passes(whole)[1:])]
    else:  # what stood is neither done nor charged again
        assert passes(folder) == passes(whole)
    assert folder.outcome() is not None
    assert remembered == len(list((folder.path / "remembered").glob("*.json"))) > 0
    lines = [json.loads(line) for line in (folder.path / "ledger.jsonl").read_text().splitlines()]
    assert len(lines) == len({(line["kind"], line.get("number")) for line in lines})


def test_trainings_that_are_cut_off_again_and_again_use_up_the_budget(tiny_task: TinyTask, tmp_path: Path) -> None:
    task = tiny_task(**LEARNABLE | {"budget": {"rounds": 3, "train_tokens": 600}})
    folder = new_run(task, ["policy=lora-only"], tmp_path / "runs")
    code = KILLED.format(root=str(ROOT), what="training LoRA", done=2)
    used = [0]
    while folder.outcome() is None and len(used) < 9:
        subprocess.run([sys.executable, "-c", code, str(folder.path)], capture_output=True)
        if folder.outcome() is None:
            used.append(json.loads((folder.path / "charge.json").read_text())["spend"]["train_tokens"])
    outcome = folder.outcome()
    assert outcome is not None, "kills went on past the budget"
    assert len(used) > 2 and used == sorted(set(used)), "every try is charged"
    assert used[-1] <= outcome.spend.train_tokens < 600 + used[1], "one step may pass the limit"


def test_a_second_process_is_refused_and_told_who_has_the_run(tiny_task: TinyTask, tmp_path: Path) -> None:
    folder = new_run(tiny_task(), runs=tmp_path / "runs")
    code = (
        f"import sys, time; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path\nfrom memory.ledger import RunFolder\n"
        "with RunFolder.open(Path(sys.argv[1])).locked():\n    print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(folder.path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline().strip() == "held"
        with pytest.raises(Busy, match=str(holder.pid)), open_session(folder):
            pass
        holder.kill()
    with open_session(folder) as session:  # the dead process's lock holds nobody up
        assert not session.finished


def test_changed_rows_are_refused_at_resume(tiny_task: TinyTask, tmp_path: Path) -> None:
    task = tiny_task()
    folder = new_run(task, runs=tmp_path / "runs")
    row = json.dumps({"question": "Another one?", "answer": "Yes"})
    (task / "validation.jsonl").write_text(row + "\n")
    with pytest.raises(BadInput, match="changed since run"), open_session(folder) as session:
        session.go()

"""Whole runs that are killed, and gone on with; and others that want the same run."""

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from safetensors import safe_open

import nesylora
from agent.errors import BadInput, Busy
from agent.records.events import Note
from agent.records.examples import Example
from agent.records.rounds import Round
from graphs.context import new_run
from graphs.session import open_session
from memory.experience import ExperienceFile
from memory.run.folder import RunFolder
from memory.run.ledger import Row
from tests.fixtures.forks import run_forked
from tests.fixtures.learnable import LEARNABLE, TinyTask
from ui.cli import run as command
from ui.report.write import write_report

ROOT = Path(__file__).parents[2]


def outline(run: RunFolder) -> list[object]:
    """What a run decided and measured, without what depends on the clock."""
    return [(row.number, row.decision.move, row.trial.candidate, row.verdict, row.best) for row in run.rounds()]


def forward_tokens(run: RunFolder) -> list[int]:
    return [row.spend.forward_tokens for row in run.rounds()]


def charged(run: RunFolder) -> int:
    """Tokens trained in steps that no checkpoint counts, as far as it is noted."""
    file = run.path / "charge.json"
    steps = json.loads(file.read_text())["steps"] if file.exists() else {}
    return sum(spend.get("train_tokens", 0) for step, spend in steps.items() if "train_lora" in step)


KILLED = """
import os, signal, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from graphs.session import open_session
from memory.run.folder import RunFolder
class Killer:
    def __call__(self, what, done, total, note=""):
        if what == {what!r} and done == {done}: os.kill(os.getpid(), signal.SIGKILL)
    def event(self, event):
        if event.kind == {what!r}: os.kill(os.getpid(), signal.SIGKILL)
if {what!r} == "measured":  # so many measurements stand, and no checkpoint counts the last ones
    save, saved = RunFolder.save, []
    def saving(folder, measured):
        save(folder, measured)
        saved.append(measured)
        if len(saved) == {done}: os.kill(os.getpid(), signal.SIGKILL)
    RunFolder.save = saving
class KilledTrainer:
    def __init__(self, context): self.context = context
    def train(self, job):
        from tools.training.lora import LoraTrainer
        context = self.context
        LoraTrainer(context.backbone, context.spec.config.lora, context.progress).train(job)
        os.kill(os.getpid(), signal.SIGKILL)
with open_session(RunFolder.open(Path(sys.argv[1])), listener=Killer()) as session:
    if {what!r} == "judging":  # the adapter is complete, the trial not yet noted
        session.services.trainer = KilledTrainer(session.services)
    session.go()
"""


UNDISTURBED = ["policy=p -> w -> p", "seed=1"]


@pytest.fixture(scope="module")
def once() -> dict[str, RunFolder]:
    return {}


@pytest.fixture
def whole(once: dict[str, RunFolder], tiny_task: TinyTask, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The run of a learnable task that nobody disturbs: one for all tests of this file."""
    if not once:
        runs = tmp_path_factory.mktemp("whole")
        once["whole"] = RunFolder.open(nesylora.adapt(tiny_task(**LEARNABLE), overrides=UNDISTURBED, runs=runs).run)
    return once["whole"]


@pytest.mark.parametrize(
    ("what", "done"),
    [
        ("training LoRA", 2), ("training LoRA", 30), ("decision", 0), ("verdict", 0), ("judging", 0),
        ("measured", 1), ("measured", 4), ("measured", 6),
    ],
)  # fmt: skip
def test_killed_and_resumed_it_ends_as_it_would_have(
    whole: RunFolder, tiny_task: TinyTask, tmp_path: Path, what: str, done: int
) -> None:
    kept = [row.decision.move.action for row in whole.rounds() if row.verdict.kept]
    assert kept == ["edit_prompt", "train_lora"]
    folder = new_run(tiny_task(**LEARNABLE), UNDISTURBED, tmp_path / "killed")
    code = KILLED.format(root=str(ROOT), what=what, done=done)
    ended = run_forked(code, folder.path)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert folder.outcome() is None
    in_vain = 3 * charged(folder)
    with open_session(folder) as session:
        session.go()
        with session.services.memory.open() as memory:
            remembered = memory.count()
    assert outline(folder) == outline(whole)
    if what == "training LoRA":  # begun anew after the kill; what the first try took is charged all the same
        assert in_vain > 0
        assert forward_tokens(folder) == [
            forward_tokens(whole)[0],
            *(spent + in_vain for spent in forward_tokens(whole)[1:]),
        ]
    elif what == "measured" and done > 1:  # amid a race, which is answered in one batch: what was not kept is, anew
        again = {mine - theirs for mine, theirs in zip(forward_tokens(folder), forward_tokens(whole), strict=True)}
        assert len(again) == 1 and 0 < min(again) < forward_tokens(whole)[0]
    else:  # what stood is neither done nor charged again
        assert forward_tokens(folder) == forward_tokens(whole)
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
        run_forked(code, folder.path)
        if folder.outcome() is None:
            used.append(charged(folder))
    outcome = folder.outcome()
    assert outcome is not None, "kills went on past the budget"
    assert len(used) > 2 and used == sorted(set(used)), "every try is charged"
    assert used[-1] <= outcome.spend.train_tokens < 600 + used[1], "one step may pass the limit"


def killed(folder: RunFolder, what: str, done: int = 0) -> None:
    """Runs it in a process of its own, to the point where that is killed."""
    code = KILLED.format(root=str(ROOT), what=what, done=done)
    ended = run_forked(code, folder.path)
    assert ended.returncode == -signal.SIGKILL, ended.stderr


def lose_checkpoints(folder: RunFolder) -> None:
    for file in folder.path.glob("checkpoints.sqlite*"):
        file.unlink()


def lose_newest_checkpoint(folder: RunFolder) -> None:
    with closing(sqlite3.connect(folder.checkpoints)) as database, database:
        newest = "WHERE checkpoint_id = (SELECT max(checkpoint_id) FROM checkpoints)"
        database.execute(f"UPDATE checkpoints SET checkpoint = substr(checkpoint, 1, 9) {newest}")


def lose_all_but_the_ledger(folder: RunFolder) -> None:
    lose_checkpoints(folder)
    (folder.path / "charge.json").unlink()


def go_on(folder: RunFolder) -> Round:
    """The only round, after the run has gone on to its end."""
    with open_session(folder) as session:
        session.go()
    [row] = folder.rounds()
    return row


@pytest.fixture
def training(tiny_task: TinyTask, tmp_path: Path) -> RunFolder:
    """A run of one round, which trains."""
    return new_run(tiny_task(**LEARNABLE), ["policy=lora-only", "budget.rounds=1", "lora.epochs=4"], tmp_path / "runs")


def trained(folder: RunFolder) -> int:
    """The tokens that the only adapter took."""
    [file] = folder.path.glob("adapters/*/training.json")
    return int(json.loads(file.read_text())["tokens"])


@pytest.mark.parametrize("lost", [lambda _: None, lose_checkpoints], ids=["nothing lost", "checkpoints lost"])
def test_a_training_that_was_cut_off_is_charged_even_if_the_checkpoints_are_lost(
    training: RunFolder, lost: Callable[[RunFolder], None]
) -> None:
    in_vain = []
    for _ in range(2):
        killed(training, "training LoRA", 3)
        in_vain.append(charged(training))
        lost(training)
    row = go_on(training)
    assert in_vain[0] > 0
    wanted = trained(training) + (in_vain[0] + in_vain[1] if lost is lose_checkpoints else in_vain[1])
    assert (row.spend.train_tokens, row.trial.spend.train_tokens) == (wanted, wanted)


def adapter_bytes(folder: RunFolder) -> bytes:
    """The only adapter's weights; no checkpoint of its training is left."""
    [adapter] = folder.path.glob("adapters/*")
    return (adapter / "adapter_model.safetensors").read_bytes()


def test_a_training_goes_on_after_its_last_checkpoint_and_what_that_has_is_charged_once(
    tiny_task: TinyTask, tmp_path: Path
) -> None:
    settings = ["policy=lora-only", "budget.rounds=1", "lora.epochs=4", "lora.checkpoint_seconds=1e-9"]
    task, in_vain = tiny_task(**LEARNABLE), 0
    whole, folder = (new_run(task, settings, tmp_path / runs) for runs in ("whole", "killed"))
    undisturbed = go_on(whole)
    for step in (3, 6):
        before = charged(folder)
        killed(folder, "training LoRA", step)
        [file] = folder.path.glob("adapters/*.training")
        with safe_open(file, "pt") as checkpoint:
            reached = json.loads(checkpoint.metadata()["reached"])
        assert len(reached["steps"]) == step - 1, "that of the step under way is not yet written"
        in_vain = charged(folder) - reached["tokens"]
        assert charged(folder) > before
    for lost, twice in ((lambda _: None, in_vain), (lose_all_but_the_ledger, 0)):
        copy = RunFolder.open(shutil.copytree(folder.path, tmp_path / lost.__name__ / folder.name))
        lost(copy)
        row = go_on(copy)
        assert outline(copy) == outline(whole) and adapter_bytes(copy) == adapter_bytes(whole)
        assert trained(copy) == undisturbed.spend.train_tokens == row.spend.train_tokens - twice
        said = [event.text for event in copy.events().of(Note)]
        assert "The training that was cut off goes on after step 5 of 16." in said


@pytest.mark.parametrize("what", ["judging", "measured"])  # the adapter is complete: in its own step, and one later
def test_a_training_that_was_completed_before_a_kill_is_charged_once(
    training: RunFolder, tmp_path: Path, what: str
) -> None:
    killed(training, what, 2)  # the first measurement is the baseline's, the second the trial's
    made = trained(training)
    assert made > 0
    for lost in (lambda _: None, lose_newest_checkpoint, lose_checkpoints, lose_all_but_the_ledger):
        copy = RunFolder.open(shutil.copytree(training.path, tmp_path / lost.__name__ / training.name))
        lost(copy)
        row = go_on(copy)
        assert trained(copy) == made
        assert (row.spend.train_tokens, row.trial.spend.train_tokens) == (made, made), lost


def test_a_prompt_that_was_kept_before_a_kill_is_remembered_without_checkpoints(
    tiny_task: TinyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = new_run(tiny_task(**LEARNABLE), ["policy=p -> w", "budget.rounds=2", "seed=1"], tmp_path / "runs")
    append = RunFolder.append

    def appended(run: RunFolder, row: Row) -> None:
        append(run, row)
        if isinstance(row, Round):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt), open_session(folder) as session:
        patch.setattr(RunFolder, "append", appended)
        session.go()
    assert [row.verdict.kept for row in folder.rounds()] == [True] and not folder.remembered()
    lose_checkpoints(folder)
    with open_session(folder) as session:
        session.go()
        with session.services.memory.open() as memory:
            assert memory.count() == 1
    [entry] = folder.remembered()
    assert (entry.round, entry.kept) == (1, True)
    lines = ExperienceFile.beside(folder.path.parent).read()
    assert [line.key for line in lines] == [("", folder.name, 1), ("", folder.name, 2)]


@pytest.mark.parametrize("by_command", [True, False])
def test_the_last_report_is_written_by_the_resume_if_a_kill_prevented_it(
    tiny_task: TinyTask, tmp_path: Path, by_command: bool
) -> None:
    folder = new_run(tiny_task(), ["policy=prompt-only", "budget.rounds=1"], tmp_path / "runs")

    def report(run: RunFolder, rows: Sequence[Example]) -> None:
        if run.outcome():
            raise KeyboardInterrupt
        write_report(run, rows)

    with pytest.raises(KeyboardInterrupt), open_session(folder, report=report) as session:
        session.go()
    outcome = folder.outcome()
    assert outcome and outcome.stopped not in folder.report_md.read_text()
    if by_command:
        assert command(["resume", folder.name, "--runs", str(folder.path.parent)]) == 5  # nothing was gained
    else:
        with open_session(folder, report=write_report) as session:
            assert session.go() is None
    assert outcome.stopped in folder.report_md.read_text()


def test_a_second_process_is_refused_with_the_name_of_who_has_the_run(tiny_task: TinyTask, tmp_path: Path) -> None:
    folder = new_run(tiny_task(), runs=tmp_path / "runs")
    code = (
        f"import sys, time; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path\nfrom memory.run.folder import RunFolder\n"
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

"""A run steered while it works in this process: what each call does, and what stands in the ledger afterwards."""

import errno
import math
import os
import threading
from pathlib import Path

import pytest

from agent.errors import BadInput, NesyLoraError
from agent.policy.experience import experience
from agent.records.actions import EditPrompt, Rollback, Stop, TrainLora
from agent.records.events import Note, PlanAnswered
from agent.records.looks import Evaluate, TryPrompt
from graphs.approval import APPROVE, instead
from graphs.cancelling import CANCELLED
from graphs.context import new_run
from graphs.control.anybody import Anybody, Workers
from graphs.control.client import live
from graphs.control.driver import drive
from graphs.control.watching import status_of_folder
from memory.experience import ExperienceFile
from memory.run.folder import RunFolder
from tests.fixtures.learnable import TinyTask
from tests.fixtures.steering import PATIENCE, Held, held, is_, until
from tests.llm.server import Reply, Request, serving


def test_a_run_that_nobody_steers_ends_by_itself(training: RunFolder) -> None:
    with drive(training) as driver:
        assert driver.wait(PATIENCE)
        status = driver.status()
    outcome = training.outcome()
    assert outcome and outcome.seen == 0
    assert (status.condition, status.rounds, status.limits.rounds) == ("finished", 2, 2)
    assert status.reward == training.rounds()[-1].reward and status.spend == outcome.spend


def test_a_cancelled_training_stays_cancelled_and_says_nothing_about_its_lever(training: RunFolder) -> None:
    with held(training, done=2) as (driver, listener):
        assert driver.status().step is not None
        driver.cancel_step()
        listener.free.set()
        assert driver.wait(PATIENCE)
    first, second = training.rounds()
    assert first.trial.cancelled and first.trial.candidate is None and not first.verdict.kept
    assert first.verdict.reason == CANCELLED and first.verdict.level is None
    before = training.baseline()
    assert before and first.best == before.best and first.reward == before.reward
    assert 0 < first.trial.spend.train_tokens < second.trial.spend.train_tokens
    assert second.spend.train_tokens == first.trial.spend.train_tokens + second.trial.spend.train_tokens
    assert (second.signal.lora.rounds, second.signal.lora.fruitless) == (0, 0)
    assert experience(first, "a", "b", "c") is None
    assert [line.number for line in ExperienceFile.beside(training.path.parent).read()] == [2]


def test_after_a_pause_a_training_goes_on_from_its_checkpoint_and_a_cancel_throws_it_away(
    tiny_task: TinyTask, tmp_path: Path
) -> None:
    settings = ["policy=lora-only", "budget.rounds=1", "lora.epochs=3", "lora.checkpoint_seconds=1e-9"]
    folder = new_run(tiny_task(), settings, tmp_path / "runs")
    with held(folder, done=3) as (driver, listener):
        driver.pause(now=True)
        listener.free.set()
        until(driver, is_("paused"))
    assert list(folder.path.glob("adapters/*.training")), "the process has ended, and another goes on"
    with held(folder, done=5) as (driver, listener):
        driver.cancel_step()
        listener.free.set()
        assert driver.wait(PATIENCE)
    said = [event.text for event in folder.events().of(Note)]
    assert any("goes on after step 3 of" in text for text in said)
    assert [row.trial.cancelled for row in folder.rounds()] == [True] and not list(folder.path.glob("adapters/*"))


def test_a_cancelled_action_stays_cancelled_after_a_pause_and_another_process(training: RunFolder) -> None:
    with held(training, done=2) as (driver, listener):
        driver.pause(now=True)
        listener.free.set()
        until(driver, is_("paused"))
        driver.cancel_step()
    with drive(training) as driver:
        assert driver.wait(PATIENCE)
    assert [row.trial.cancelled for row in training.rounds()] == [True, False]


def test_an_action_is_cancelled_while_it_is_judged_and_all_of_it_is_charged(training: RunFolder) -> None:
    """The seed prompt's answers are the first, the trial's the second."""
    with held(training) as (driver, listener):
        answering = threading.Event()
        inner = listener.__call__

        def judged(what: str, done: int, total: int, note: str = "") -> None:
            inner(what, done, total, note)
            if what == "answering" and not answering.is_set():  # the run goes on, however late this thread looks
                driver.cancel_step()
                answering.set()

        driver._watch._inner = type("Judged", (), {"__call__": staticmethod(judged), "event": listener.event})()
        listener.free.set()
        until(driver, lambda status: status.rounds >= 1)
        assert answering.is_set()
        driver._watch._inner = listener
    first = training.rounds()[0]
    assert first.trial.cancelled and first.trial.candidate is None
    assert first.trial.spend.train_tokens == first.spend.train_tokens > 0


def test_a_pause_now_does_the_step_again_and_changes_nothing_else(
    training: RunFolder, tiny_task: TinyTask, tmp_path: Path
) -> None:
    with held(training, done=2) as (driver, listener):
        used = driver.pause(now=True)
        assert used.pausing
        listener.free.set()
        status = until(driver, is_("paused"))
        assert status.rounds == 0 and status.step is None and not status.pausing
        assert status.spend.seconds >= used.spend.seconds, "a step that was broken off was used up"
        assert status_of_folder(training).spend.train_tokens == status.spend.train_tokens > 0
        driver.go_on()
        assert driver.wait(PATIENCE)
    whole = new_run(training.path.parents[1] / "task", ["policy=lora-only", "budget.rounds=2", "lora.epochs=3"],
                    tmp_path / "whole")  # fmt: skip
    with drive(whole) as driver:
        assert driver.wait(PATIENCE)
    mine, theirs = (
        [(row.decision.move, row.trial.candidate, row.verdict, row.best) for row in run.rounds()]
        for run in (training, whole)
    )
    assert mine == theirs
    assert training.rounds()[0].spend.train_tokens > whole.rounds()[0].spend.train_tokens


def test_a_pause_waits_for_the_end_of_the_step(training: RunFolder) -> None:
    with held(training) as (driver, listener):
        driver.pause()
        listener.free.set()
        until(driver, is_("paused"))
        assert len(list((training.path / "adapters").iterdir())) == 1 and not training.rounds()
    assert training.outcome() is None


def test_a_live_run_is_extended_and_a_finished_one_is_opened_again(training: RunFolder) -> None:
    with held(training) as (driver, listener):
        assert driver.extend(rounds=3).limits.rounds == 3
        listener.free.set()
        assert driver.wait(PATIENCE)
        assert len(training.rounds()) == 3
        [first] = training.outcomes()
        status = driver.extend(rounds=4, target=0.99)
        assert status.condition == "working" and training.outcome() is None
        assert driver.wait(PATIENCE)
    assert [row.number for row in training.rounds()] == [1, 2, 3, 4]
    assert training.outcomes()[0] == first and training.outcome() == training.outcomes()[1]
    assert [outcome.seen for outcome in training.outcomes()] == [0, 1]
    assert training.outcomes()[1].spend.train_tokens == training.rounds()[-1].spend.train_tokens
    assert training.outcomes()[1].spend.seconds > first.spend.seconds
    told = [entry.event.kind for entry in training.events().entries]
    assert told.count("baseline") == 1, "it was begun anew from the ledger, and was not measured again"


@pytest.mark.parametrize(
    ("limits", "fault"),
    [({"rounds": 2}, "hold already"), ({"ruonds": 2}, "did you mean rounds"), ({"rounds": -1}, "rounds"),
     ({"target": None}, "cannot be lifted"), ({"target": 1.5}, "target"),
     ({"minutes": math.inf}, "inf is no limit"), ({"usd": math.nan}, "nan is no limit")],
)  # fmt: skip
def test_wrong_limits_are_refused_with_the_reason(training: RunFolder, limits: dict[str, float], fault: str) -> None:
    with held(training, "answering", 0) as (driver, _), pytest.raises(BadInput, match=fault):
        driver.extend(**limits)
    assert training.limits() is None


def test_a_supervised_run_asks_and_is_answered_by_one_of_two(training: RunFolder) -> None:
    with drive(training, supervised=True) as driver:
        question = until(driver, is_("waiting")).question
        assert question and question.number == 1
        with pytest.raises(BadInput, match="epochs must be between"):
            driver.answer(instead("train_lora", epochs=0))
        driver.answer(APPROVE, 1)
        with pytest.raises(BadInput, match=r"waits for no answer now|answered already"):
            driver.answer(APPROVE, 1)
        until(driver, lambda status: status.condition == "waiting" and status.rounds == 1)
        found = driver.look(TryPrompt(question="Who?"))
        assert found.found == "try_prompt"
        assert driver.look(Evaluate(rows=2)).found == "evaluate"
        with pytest.raises(BadInput, match="to_round"):
            driver.act(Rollback(to_round=5))
        driver.act(EditPrompt())
        status = until(driver, lambda status: status.condition == "waiting" and status.rounds == 2)
        assert status.question and isinstance(status.question.decision.move, Stop)
        with pytest.raises(BadInput, match="opens the test rows"):
            driver.go_on(3)
        driver.extend(rounds=3)  # what was planned rests on the old budget
        status = until(driver, is_("waiting"))
        assert status.question and not isinstance(status.question.decision.move, Stop)
        driver.finish()
        assert driver.wait(PATIENCE)
        assert driver.look(TryPrompt(question="Who?")).found == "try_prompt"
        with pytest.raises(BadInput, match="has finished"):
            driver.pause()
    assert [row.decision.by for row in training.rounds()] == ["fixed order", "user"]
    answers = [(event.number, event.answer, event.move.action) for event in training.events().of(PlanAnswered)]
    assert answers == [(1, "approve", "train_lora"), (2, "edit", "edit_prompt"), (3, "edit", "stop")]


def test_rounds_are_approved_beforehand_and_the_end_is_asked_about(training: RunFolder) -> None:
    with drive(training, supervised=True) as driver:
        until(driver, is_("waiting"))
        driver.go_on(9)
        status = until(driver, lambda status: status.condition == "waiting" and status.rounds == 2)
        assert status.question and isinstance(status.question.decision.move, Stop)
    assert training.outcome() is None


def test_a_status_says_what_is_waited_for_and_a_run_that_asks_nobody_has_no_rounds_to_approve(
    training: RunFolder,
) -> None:
    with drive(training) as driver:
        driver.pause(now=True)
        until(driver, is_("paused"))
        driver._services.waiting("Waiting for a server.")
        assert driver.status().trouble == "Waiting for a server."
        driver._services.waiting("")
        assert driver.status().trouble == ""
        with pytest.raises(BadInput, match=r"Without a number of rounds it just goes on \(nesylora ctl resume\)"):
            driver.go_on(1)


def test_a_cancel_takes_back_the_rounds_that_were_to_go_unasked(tiny_task: TinyTask, tmp_path: Path) -> None:
    folder = new_run(tiny_task(), ["policy=lora-only", "budget.rounds=3", "lora.epochs=3"], tmp_path / "runs")
    with drive(folder, supervised=True) as driver:
        until(driver, is_("waiting"))
        listener = Held("training LoRA")
        driver._watch._inner = listener
        driver.go_on(3)
        assert listener.reached.wait(PATIENCE)
        driver.cancel_step()
        listener.free.set()
        status = until(driver, lambda status: status.condition == "waiting" and status.rounds > 0)
        assert status.rounds == 1 and status.question and status.question.number == 2
        assert status.question.decision.move.action == "train_lora", "not the end: rounds are left"


def test_a_process_that_lets_go_of_the_run_takes_no_answer(training: RunFolder) -> None:
    with drive(training, supervised=True) as driver:
        until(driver, is_("waiting"))
        driver.close()
        with pytest.raises(NesyLoraError, match=r"lets go of run .* nothing to answer"):
            driver.answer(APPROVE, 1)
    assert not training.rounds()


def test_an_action_of_the_users_own_takes_the_place_of_the_next_plan(training: RunFolder) -> None:
    with held(training) as (driver, listener):
        driver.act(EditPrompt())
        listener.free.set()
        assert driver.wait(PATIENCE)
    assert [(row.decision.move.action, row.decision.by) for row in training.rounds()] == [
        ("train_lora", "fixed order"), ("edit_prompt", "user"),
    ]  # fmt: skip


def test_nothing_is_cancelled_where_no_action_is_under_way(training: RunFolder) -> None:
    with held(training, "answering", 0) as (driver, _), pytest.raises(BadInput, match="No action is under way"):
        driver.cancel_step()


def test_an_error_stops_the_run_and_once_it_is_mended_it_goes_on(
    training: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch, drive(training) as driver:
        patch.setattr("tools.training.lora.LoraTrainer.train", full)
        with pytest.raises(Exception, match="disk is full"):
            driver.wait(PATIENCE)
        assert (driver.status().condition, "disk is full" in driver.status().trouble) == ("stopped", True)
        patch.undo()
        driver.go_on()
        assert until(driver, is_("finished")).trouble == ""


def test_a_wait_for_an_llm_is_broken_off_and_its_call_is_charged(tiny_task: TinyTask, tmp_path: Path) -> None:
    """The editor's LLM does not answer for minutes."""
    asked = threading.Event()

    def late(_: Request) -> Reply:
        asked.set()
        return Reply(text="late", delay=600)

    with serving(late) as server:
        settings = {"model": "mind", "base_url": server.url, "price": {"input": 1, "output": 1}, "timeout": 900}
        task = tiny_task(edit={"editor": "textgrad"}, llm=settings, policy="prompt-only", budget={"rounds": 1})
        folder = new_run(task, runs=tmp_path / "runs")
        with drive(folder) as driver:
            assert asked.wait(PATIENCE)
            driver.cancel_step()
            assert driver.wait(PATIENCE)
    [row] = folder.rounds()
    assert row.trial.cancelled and row.trial.spend.usd > 0
    assert not any(call.usage.cached for call in folder.calls()) and folder.calls()


def test_a_cancelled_lever_is_left_out_of_the_next_plan_but_does_not_end_the_run(
    tiny_task: TinyTask, tmp_path: Path
) -> None:
    folder = new_run(tiny_task(), ["budget.rounds=2", "lora.epochs=3"], tmp_path / "runs")
    with drive(folder, supervised=True) as driver:
        until(driver, is_("waiting"))
        listener = Held("training LoRA")
        driver._watch._inner = listener
        driver.act(TrainLora(epochs=3, rows="original"))
        assert listener.reached.wait(PATIENCE)
        driver.cancel_step()
        listener.free.set()
        question = until(driver, lambda status: status.condition == "waiting" and status.rounds == 1).question
        assert question and question.decision.move.action == "edit_prompt"
    schedule = new_run(tiny_task(), ["policy=lora-only", "budget.rounds=2", "lora.epochs=3"], tmp_path / "runs")
    with held(schedule) as (driver, listener):
        driver.cancel_step()
        listener.free.set()
        assert driver.wait(PATIENCE)
    assert [row.decision.move.action for row in schedule.rounds()] == ["train_lora", "train_lora"]


def test_a_cancel_that_comes_at_the_very_end_of_the_judgement_holds(
    training: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is on the disk once the last node of the round begins, and was not yet when the others did."""
    asked: list[int] = []

    def late(_: RunFolder, number: int) -> bool:
        asked.append(number)
        return number == 1 and asked.count(1) == 3

    monkeypatch.setattr(RunFolder, "is_cancelled", late)
    with drive(training) as driver:
        assert driver.wait(PATIENCE)
    first, second = training.rounds()
    assert first.trial.cancelled and first.trial.candidate is None and first.verdict.reason == CANCELLED
    assert first.trial.spend.train_tokens > 0 and not second.trial.cancelled


def test_a_run_without_progress_says_what_it_is_at(training: RunFolder) -> None:
    with held(training, "answering", 4) as (driver, _):  # all four answers are there
        step = driver.status().step
        assert step is not None and (step.what, step.total) == ("scoring the seed prompt", 0)


def test_of_a_run_that_rests_the_version_grows_with_what_is_new_alone(tiny_task: TinyTask, tmp_path: Path) -> None:
    folder = new_run(tiny_task(), [], tmp_path / "runs")
    anybody = Anybody(folder, Workers())
    with drive(folder, supervised=True) as driver:
        working = until(driver, lambda status: status.condition == "waiting")
        assert anybody.status().question == working.question
    left = anybody.status(working.version, PATIENCE)
    assert left.condition == "stopped" and left.version > working.version and not left.trouble
    assert anybody.status(left.version, 0.01) == left == anybody.status()
    with folder.locked():
        held = anybody.status(left.version, PATIENCE)
        assert held.condition == "working" and held.version > left.version and f"process {os.getpid()}" in held.trouble
    with pytest.raises(BadInput, match="Resume it first"):
        anybody.pause()
    with drive(folder, supervised=True):
        assert anybody.status(left.version, PATIENCE).pid == os.getpid()


def test_a_process_that_is_gone_says_so_once(tiny_task: TinyTask, tmp_path: Path) -> None:
    folder = new_run(tiny_task(), [], tmp_path / "runs")
    with drive(folder, supervised=True):
        remote = live(folder)
        assert remote is not None
        before = remote.status()
    gone = remote.status(before.version, PATIENCE)
    assert gone.condition == "stopped" and gone.version > before.version and "has let go" in gone.trouble
    assert remote.status(gone.version, 0.01) == gone == remote.status()

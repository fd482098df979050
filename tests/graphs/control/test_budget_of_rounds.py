"""Whoever steers a run, no round goes beyond its budget until the budget is raised."""

import pytest

from agent.errors import BadInput
from agent.records.actions import EditPrompt, Rollback, Stop
from agent.records.events import Note
from agent.records.limits import Limits
from eval.tasks.task import load_config
from graphs.approval import instead
from graphs.control.driver import drive
from graphs.control.extension import extend_stopped
from memory.run.folder import RunFolder
from tests.fixtures.steering import PATIENCE, held, is_, until


def test_an_action_beyond_the_budget_of_rounds_is_refused_until_it_is_raised(training: RunFolder) -> None:
    beyond = r"^The budget has 2 rounds, and this would be round 3: edit_prompt was not done\. Raise it first"
    with drive(training, supervised=True) as driver:
        until(driver, is_("waiting"))
        driver.go_on(2)
        status = until(driver, lambda status: status.condition == "waiting" and status.rounds == 2)
        with pytest.raises(BadInput, match=beyond):
            driver.act(EditPrompt())
        with pytest.raises(BadInput, match=beyond):
            driver.answer(instead("edit_prompt"), 3)
        assert driver.status().question == status.question, "it still waits"
        driver.extend(rounds=3)
        driver.act(EditPrompt())
        until(driver, lambda status: status.condition == "waiting" and status.rounds == 3)
        with pytest.raises(BadInput, match="The budget has 3 rounds, and this would be round 4"):
            driver.act(EditPrompt())
        driver.act(Rollback(to_round=0))  # costs nothing
        until(driver, lambda status: status.condition == "waiting" and status.rounds == 4)
        driver.finish()
        assert driver.wait(PATIENCE)
    actions = [row.decision.move.action for row in training.rounds()]
    assert actions == ["train_lora", "train_lora", "edit_prompt", "rollback"]


@pytest.mark.parametrize("pauses", [False, True])
def test_an_action_that_only_a_round_beyond_the_budget_could_do_is_refused_at_once(
    training: RunFolder, pauses: bool
) -> None:
    training.extend(Limits(rounds=1, target=1.0))
    with held(training) as (driver, listener):  # in the only round
        if pauses:
            driver.pause(now=True)
            listener.free.set()
            until(driver, is_("paused"))
        with pytest.raises(BadInput, match="The budget has 1 round, and this would be round 2"):
            driver.act(EditPrompt())
        driver.extend(rounds=2)
        driver.act(EditPrompt())
        listener.free.set()
        assert driver.wait(PATIENCE)
    assert [row.decision.move.action for row in training.rounds()] == ["train_lora", "edit_prompt"]


def test_an_action_that_a_lowered_budget_holds_no_more_is_noted_and_not_done(training: RunFolder) -> None:
    with held(training) as (driver, listener):
        driver.act(EditPrompt())  # in round 2, it is thought
        driver.extend(rounds=1)
        listener.free.set()
        assert driver.wait(PATIENCE)
    assert [row.decision.move.action for row in training.rounds()] == ["train_lora"]
    assert any(
        note.text.startswith("The budget has 1 round, and this would be round 2: edit_prompt was not done.")
        for note in training.events().of(Note)
    )


def test_a_plan_that_a_lowered_budget_holds_no_more_is_not_asked_about(training: RunFolder) -> None:
    with drive(training, supervised=True) as driver:
        until(driver, is_("waiting"))
        driver.go_on(1)
        until(driver, lambda status: status.condition == "waiting" and status.rounds == 1)
        driver.extend(rounds=1)
        status = until(driver, lambda status: status.question is not None and status.limits.rounds == 1)
        assert status.question and isinstance(status.question.decision.move, Stop)


@pytest.mark.parametrize(("done", "rounds"), [(2, 3), (1, 1)])
@pytest.mark.parametrize("supervised", [True, False])
def test_limits_that_are_set_while_nobody_works_overtake_the_plan_that_waits(
    training: RunFolder, supervised: bool, done: int, rounds: int
) -> None:
    """An end that waits does not open the test rows once there are more rounds; a round beyond them is not begun."""
    with drive(training, supervised=True) as driver:
        until(driver, is_("waiting"))
        driver.go_on(done)
        until(driver, lambda status: status.condition == "waiting" and status.rounds == done)
    extend_stopped(training, load_config(training.task_file), {"rounds": rounds})
    with drive(training, supervised=supervised) as driver:
        status = until(driver, is_("waiting", "finished"))
        if supervised:
            assert status.question and status.question.number == done + 1
            assert isinstance(status.question.decision.move, Stop) == (done == rounds)
    assert len(training.rounds()) == (done if supervised else rounds)


def test_after_a_cut_off_action_the_budget_is_kept_as_well(training: RunFolder) -> None:
    with held(training, done=2) as (driver, listener):
        driver.leave()
        listener.free.set()
        driver.wait(PATIENCE)
    training.extend(Limits(rounds=1, target=1.0))
    with drive(training, supervised=True) as driver:
        until(driver, is_("paused"))
        with pytest.raises(BadInput, match="The budget has 1 round, and this would be round 2"):
            driver.act(EditPrompt())

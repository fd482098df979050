"""The chat on a terminal: a real process on a pseudo-terminal, with its keys, its status line and Ctrl-C."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from agent.records.actions import EditPrompt, Rollback, TrainLora
from agent.records.limits import Limits
from agent.records.rounds import Spend
from graphs.control.steering import RunStatus, Step
from memory.run.folder import runs
from tests.fixtures.pseudo_terminal import Terminal, has_terminals
from tests.llm.server import call, serving
from ui.terminal.chat import status_line
from ui.terminal.prompting import Commands

TinyTask = Callable[..., Path]
PTY = pytest.mark.skipif(not has_terminals(), reason="this system has no pseudo-terminals")
NEW_LINE, CTRL_C, CTRL_D, UP = "\x1b\r", "\x03", "\x04", "\x1b[A"
WORDS = "Reply with one lower-case word."
# Of this training a user sees some steps before they press Ctrl-C, on a fast machine too.
LONG = {"epochs": 20, "rank": 4, "batch_size": 1, "replay": 0, "enough": 0.0}


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    opened = list[Terminal]()

    def start(*arguments: str) -> Terminal:
        runs, state = str(tmp_path / "runs"), str(tmp_path / "state")
        opened.append(Terminal("chat", *arguments, "--runs", runs, XDG_STATE_HOME=state))
        return opened[-1]

    yield start
    for terminal in opened:
        terminal.close()


@PTY
def test_a_session_without_an_llm_from_goal_to_end_and_beyond(
    tiny_task: TinyTask, tmp_path: Path, terminal: Callable[..., Terminal]
) -> None:
    here = terminal(str(tiny_task(gate={"drift": None, "alpha": 0.9}, lora=LONG)))
    here.sees("Round 1: train 20 epochs on 4 rows in the wanted form.*yes, no, or what instead")
    here.type("I want 90% right in at most 4 rounds")
    here.sees(r"reward 0.00 \(target 0.90\); 0 rounds of 4 done")
    here.type("why?")
    here.sees("The plan of round 1.*weight gap")
    here.type("/edit Reply with", NEW_LINE)
    here.type("one lower-case word.")
    here.sees("your words.*Round 2: .*yes, no, or what instead")
    here.type("train 20 epochs")
    here.shows(r"LoRA \d+/")
    here.type("", CTRL_C)
    here.sees("Cancelled. Nothing of the step is kept..*Round 3: .*yes, no, or what instead")
    here.type("/diff")
    here.sees("The best prompt is the seed prompt|lower-case")
    here.type("", UP)
    here.shows("> /diff")
    here.type("", CTRL_C)  # the line that history gave is dropped
    here.sees("Nothing is under way")
    here.type("", CTRL_D)
    assert here.ends() == 0
    [folder] = runs(tmp_path / "runs")
    edit, cancelled = folder.rounds()
    assert edit.decision.move == EditPrompt(instruction="Reply with\none lower-case word.")
    assert isinstance(cancelled.decision.move, TrainLora) and cancelled.trial.candidate is None

    again = terminal(folder.name)
    again.sees("Round 3: ")
    again.type("back to the baseline")
    again.sees("Round 4: ")
    again.type("done")
    again.sees(r"That will end the run: open the test rows.*do it\? \(yes/no\)")
    again.type("yes")
    again.sees("sealed test rows.*The run has finished")
    again.type("one more round")
    again.sees("The budget is now 5 rounds")
    again.type("/quit")
    assert again.ends() == 0
    assert isinstance(folder.rounds()[2].decision.move, Rollback) and len(folder.outcomes()) == 1


@PTY
def test_a_session_in_plain_language(tiny_task: TinyTask, tmp_path: Path, terminal: Callable[..., Terminal]) -> None:
    script = [
        call("set_limits", target=0.9, rounds=4), call("edit_prompt", instruction=WORDS),
        call("train_lora", epochs=20, rows="original"), call("rollback", to_round=0), call("finish"),
    ]  # fmt: skip
    with serving(script) as server:
        language = ("--llm", "scripted", "--base-url", server.url)
        here = terminal(str(tiny_task(lora=LONG)), *language)
        here.sees("scripted understands plain language.*yes, no, or what instead")
        here.type("My goal is that nine of ten answers are right, and there is time for four rounds.")
        here.sees(r"Limits to be set: target=0.9 rounds=4. do it\? \(yes/no\)")
        here.type("yes")
        here.sees(r"\(target 0.90\); 0 rounds of 4 done")
        here.type("Could it perhaps reply with a single word in lower case?")
        here.sees("/edit Reply with.*your words.*Round 2: .*yes, no, or what instead")
        here.type("Now teach it properly who all those mayors are.")
        here.sees(r"To be done: train 20 epochs on 4 rows as they are given.*do it\? \(yes/no\)")
        here.type("yes")
        here.shows(r"LoRA \d+/")
        here.type("", CTRL_C)
        here.sees("Cancelled. Nothing of the step is kept..*Round 3: .*yes, no, or what instead")
        here.type("All of that was nonsense, restore what we began with.")
        here.sees("/rollback 0.*Round 4: .*yes, no, or what instead")
        here.type("", CTRL_D)
        assert here.ends() == 0
        [folder] = runs(tmp_path / "runs")
        again = terminal(folder.name, *language)
        again.sees("Round 4: .*yes, no, or what instead")
        again.type("That was it; let me have the final numbers for good.")
        again.sees(r"That will end the run.*do it\? \(yes/no\)")
        again.type("yes")
        again.sees("sealed test rows.*The run has finished")
        again.type("/quit")
        assert again.ends() == 0
    assert [row.decision.move.action for row in folder.rounds()] == ["edit_prompt", "train_lora", "rollback"]
    assert {used.calls for used in folder.chat_calls.usage().values()} == {5}


@PTY
def test_after_a_kill_in_training_the_user_is_asked_first(
    tiny_task: TinyTask, tmp_path: Path, terminal: Callable[..., Terminal]
) -> None:
    here = terminal(str(tiny_task(lora=LONG)))
    here.sees("yes, no, or what instead")
    here.type("yes")
    here.shows(r"LoRA \d+/")
    here.process.kill()
    here.ends()
    [folder] = runs(tmp_path / "runs")
    again = terminal(folder.name)
    again.sees(r"round 1 \(train_lora\) was cut off.*Go on with it\? do it\? \(yes/no\)")
    again.type("no")
    again.sees("Cancelled.*Round 2: ")
    again.type("/quit")
    again.ends()
    [row] = folder.rounds()
    assert row.trial.candidate is None and not row.verdict.kept


@PTY
def test_sigterm_in_a_training_ends_the_chat_and_cancels_nothing(
    tiny_task: TinyTask, tmp_path: Path, terminal: Callable[..., Terminal]
) -> None:
    here = terminal(str(tiny_task(lora=LONG)))
    here.sees("yes, no, or what instead")
    here.type("yes")
    here.shows(r"LoRA \d+/")
    here.process.terminate()
    assert here.ends() == 128 + signal.SIGTERM
    [folder] = runs(tmp_path / "runs")
    assert not folder.rounds() and not folder.is_cancelled(1)


# --- the parts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("/app", ["/approve"]), ("/tr", ["/train ", "/try "]), ("/train ep", ["epochs="]),
        ("/train rows=", ["rows=original", "rows=refined", "rows=both"]), ("/why ", ["1", "2"]),
        ("/rollback ", ["0", "1", "2"]), ("/set ro", ["rounds="]), ("/edit parts=system,de", ["parts=system,demos"]),
        ("train", []),
    ],
)  # fmt: skip
def test_commands_settings_and_rounds_are_completed(typed: str, offered: list[str]) -> None:
    found = Commands(lambda: 2).get_completions(Document(typed), CompleteEvent())
    assert [completion.text for completion in found] == offered


def test_the_status_line_says_what_is_under_way_and_what_is_waited_for() -> None:
    limits = Limits(rounds=6, minutes=60, usd=2, target=0.9)
    spend = Spend(seconds=75, usd=0.012)
    now = RunStatus(run="r", folder="f", condition="working", limits=limits, reward=0.5, rounds=1, spend=spend,
                    step=Step(what="training LoRA", done=3, total=40, note="loss 2.1", seconds_left=20))  # fmt: skip
    assert status_line(now, "") == (
        " reward 0.50/0.90 │ round 1/6 │ 1 min 15 s of 60 min $0.012 of $2.00 │ "
        "training LoRA 3/40, loss 2.1, about 20 s left"
    )
    waiting = now.model_copy(update={"condition": "waiting"})
    assert status_line(waiting, "your answer on the plan of round 2").endswith(" │ your answer on the plan of round 2")

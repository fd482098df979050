"""The chat on a terminal: a real process on a pseudo-terminal, with its keys, its status line and Ctrl-C."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from agent.records.actions import EditPrompt, Rollback, TrainLora
from agent.records.limits import Limits
from agent.records.rounds import Spend
from graphs.control.steering import RunStatus, Step
from memory.run.folder import runs
from tests.llm.server import call, serving
from ui.terminal.chat import status_line
from ui.terminal.prompting import Commands

TinyTask = Callable[..., Path]
ROOT = Path(__file__).parents[2]
REDRAWN = pytest.mark.skipif(
    not os.environ.get("NESYLORA_TERMINAL"),
    reason="a terminal draws only what has changed of a line, and may hang the test: NESYLORA_TERMINAL=1 runs it",
)
PATIENCE = 120.0  # seconds; a busy machine takes its time
CODES = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|[()][A-Z0-9]|[=>])")
ENTER, NEW_LINE, CTRL_C, CTRL_D, UP, TAB = "\r", "\x1b\r", "\x03", "\x04", "\x1b[A", "\t"
WORDS = "Reply with one lower-case word."


class Terminal:
    """A chat on a pseudo-terminal of 30 lines and 120 columns."""

    def __init__(self, *arguments: str, home: Path) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
        environment = os.environ | {"TERM": "xterm-256color", "XDG_STATE_HOME": str(home), "COLUMNS": "120"}
        self.process = subprocess.Popen(
            [sys.executable, "nesylora.py", "chat", *arguments], cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs,
            env=environment, start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(theirs)
        self._raw = ""
        self._seen = 0

    def type(self, text: str, key: str = ENTER) -> None:
        os.write(self._ours, (text + key).encode())

    def sees(self, pattern: str) -> str:
        """What was shown since the last call, up to the pattern, which must come."""
        until = time.monotonic() + PATIENCE
        while not (match := re.search(pattern, self._text[self._seen :], re.S)):
            assert time.monotonic() < until, f"{pattern!r} did not come after: {self._text[self._seen :]}"
            assert self._reads() or self.process.poll() is None, f"ended before {pattern!r}: {self._text[self._seen :]}"
        start, self._seen = self._seen, self._seen + match.end()
        return self._text[start : self._seen]

    def ends(self) -> int:
        """The exit code."""
        while self.process.poll() is None:
            self._reads()
        os.close(self._ours)
        return self.process.returncode

    @property
    def _text(self) -> str:
        """Without control codes, and on one line: where lines break is the terminal's."""
        return re.sub(r"\s+", " ", CODES.sub("", self._raw))

    def _reads(self) -> bool:
        ready, _, _ = select.select([self._ours], [], [], 0.2)
        with suppress(OSError):  # the other end is closed
            if ready:
                more = os.read(self._ours, 1 << 16).decode(errors="replace")
                self._raw += more
                if "\x1b[6n" in more:  # where is the cursor?
                    os.write(self._ours, b"\x1b[1;1R")
                return bool(more)
        return False


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    opened = list[Terminal]()

    def start(*arguments: str) -> Terminal:
        opened.append(Terminal(*arguments, "--runs", str(tmp_path / "runs"), home=tmp_path / "state"))
        return opened[-1]

    yield start
    for left in opened:
        if left.process.poll() is None:
            left.process.kill()
            left.process.wait()


@REDRAWN
def test_a_session_without_an_llm_from_goal_to_end_and_beyond(
    tiny_task: TinyTask, tmp_path: Path, terminal: Callable[..., Terminal]
) -> None:
    here = terminal(str(tiny_task(gate={"drift": None, "alpha": 0.9})))
    here.sees("Round 1: train 2 epochs on 4 rows in the wanted form.*yes, no, or what instead")
    here.type("I want 90% right in at most 4 rounds")
    here.sees(r"reward 0.00 \(target 0.90\); 0 rounds of 4 done")
    here.type("why?")
    here.sees("The plan of round 1.*weight gap")
    here.type("/edit Reply with", NEW_LINE)
    here.type("one lower-case word.")
    here.sees("your words.*Round 2: .*yes, no, or what instead")
    here.type("train 20 epochs")
    here.sees(r"LoRA \d+/")  # of the line, only what has changed is drawn
    here.type("", CTRL_C)
    here.sees("Cancelled. Nothing of the step is kept..*Round 3: .*yes, no, or what instead")
    here.type("/diff")
    here.sees("The best prompt is the seed prompt|lower-case")
    here.type("", UP)
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


@REDRAWN
def test_a_session_in_plain_language(tiny_task: TinyTask, tmp_path: Path, terminal: Callable[..., Terminal]) -> None:
    script = [
        call("set_limits", target=0.9, rounds=4), call("edit_prompt", instruction=WORDS),
        call("train_lora", epochs=20, rows="original"), call("rollback", to_round=0), call("finish"),
    ]  # fmt: skip
    with serving(script) as server:
        language = ("--llm", "scripted", "--base-url", server.url)
        here = terminal(str(tiny_task()), *language)
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
        here.sees(r"LoRA \d+/")  # of the line, only what has changed is drawn
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


@REDRAWN
def test_after_a_kill_in_training_the_user_is_asked_first(
    tiny_task: TinyTask, tmp_path: Path, terminal: Callable[..., Terminal]
) -> None:
    here = terminal(str(tiny_task(lora={"epochs": 20, "rank": 4, "batch_size": 1, "replay": 0, "enough": 0.0})))
    here.sees("yes, no, or what instead")
    here.type("yes")
    here.sees(r"LoRA \d+/")  # of the line, only what has changed is drawn
    os.kill(here.process.pid, signal.SIGKILL)
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

"""The chat line by line, as a script or a pipe has it: commands, plain words, and plain language by a scripted LLM."""

import io
import json
import re
import signal
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.config.llm import Llm
from agent.records.actions import Decision, EditPrompt, Rollback, TrainLora
from agent.records.looks import Evaluate, Inquiry, RowsScored
from agent.records.rounds import Round
from graphs.approval import instead
from graphs.context import new_run
from graphs.control.driver import drive
from graphs.control.steering import Steering
from graphs.session import open_session
from memory.run.folder import RunFolder
from tests.fixtures.story import a_round, make_run
from tests.llm.clients import settings
from tests.llm.server import OVERLOADED, LlmServer, Reply, call, serving
from tests.llm.story import PLANNED, RULES, llm_rounds
from ui.control.signals import Stopped
from ui.talk import answers
from ui.terminal.chat import Visit, _heard, chat, settle

TinyTask = Callable[..., Path]
Say = Callable[..., str]
SERVER: dict[str, Any] = {"model": "none", "base_url": "http://127.0.0.1:9/v1", "patience": 0}
WORDS = "Reply with one lower-case word."


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """What is answered to the lines of one visit, in one line."""

    def talk(folder: RunFolder, *lines: str, llm: Llm | None = None) -> str:
        monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines) + "\n"))
        chat(folder, llm)
        return " ".join(capsys.readouterr().out.split())

    return talk


@pytest.fixture
def run(tiny_task: TinyTask, tmp_path: Path) -> Callable[..., RunFolder]:
    def make(*overrides: str, **changes: Any) -> RunFolder:
        return new_run(tiny_task(**changes), overrides, tmp_path / "runs")

    return make


# --- what is said is done, or asked back --------------------------------------------------------------


def test_a_plan_says_what_how_long_and_what_is_expected(run: Callable[..., RunFolder], say: Say) -> None:
    output = say(run(), "what would you do first?")
    assert "Round 1: train 2 epochs on 4 rows in the wanted form, about " in output
    assert "; I expect +" in output and "why: " in output and '{"' not in output


def test_lines_from_a_pipe_are_shown_where_they_were_said(run: Callable[..., RunFolder], say: Say) -> None:
    assert "> /plan Round 1:" in say(run(), "/plan")


def test_the_users_own_words_are_what_is_tried(run: Callable[..., RunFolder], say: Say) -> None:
    folder = run()
    output = say(folder, f"/edit {WORDS}")
    [row] = folder.rounds()
    assert row.decision.move == EditPrompt(instruction=WORDS) and "your words" in output
    tried = [folder.prompt(proposal.prompt).system for proposal in row.trial.proposals]
    assert tried == ["Answer the question.", f"Answer the question. {WORDS}", WORDS]
    assert row.trial.candidate and folder.prompt(row.trial.candidate.prompt).system in tried[1:], (
        "even if it is no better"
    )


def test_words_that_give_a_row_away_are_refused_with_the_reason(run: Callable[..., RunFolder], say: Say) -> None:
    folder = run()
    output = say(folder, "/edit The mayor of Benn is Corolt.")
    assert "The prompt stays as it is: it gives away" in output
    assert folder.rounds()[0].trial.candidate is None


def test_a_training_has_the_epochs_that_were_asked_for(run: Callable[..., RunFolder], say: Say) -> None:
    folder = run()
    assert "4 original rows, 1 epoch" in say(folder, "/train epochs=1 rows=original")
    [row] = folder.rounds()
    assert isinstance(row.decision.move, TrainLora)
    assert (row.decision.move.epochs, row.decision.move.rank) == (1, 4), "what is not named is as the rules have it"


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("/approve maybe", "/approve takes nothing after it"), ("/finish now", "/finish takes nothing after it"),
        ("/train many", "Settings are written as in: /train epochs=4"),
        ("/train epoch=2", "epoch is unknown (did you mean epochs?)"),
        ("/train epochs=2 rank=0", "rank must be between"), ("/run 0", "/run takes a number from 1 on"),
        ("/set target=2", "target"), ("/set goal=1", "There is no limit goal"), ("/why 3", "There is no round 3"),
        ("/rollback 0", "nothing to go back from"), ("/compare 1", "/compare takes two rounds"),
        ("undo", "nothing to take back"),
    ],
)  # fmt: skip
def test_no_word_of_a_command_is_thrown_away(run: Callable[..., RunFolder], say: Say, line: str, fault: str) -> None:
    folder = run(budget={"rounds": 1})
    assert fault in say(folder, line)
    assert not folder.rounds() and folder.outcome() is None


def test_what_is_no_answer_is_asked_again_and_a_command_is_obeyed(run: Callable[..., RunFolder], say: Say) -> None:
    folder = run(style=[], content=[{"kind": "exact"}])
    output = say(folder, "/run 2", "maybe", "/status", "/edit", "no")
    assert output.count("do it? (yes/no)") == 3, "asked, and again after what is no answer and after a look"
    assert "Please answer yes or no" in output
    assert [row.decision.move.action for row in folder.rounds()] == ["edit_prompt"], "the command counts, and is no no"


def test_yes_and_no_without_a_slash(run: Callable[..., RunFolder], say: Say) -> None:
    folder = run()
    output = say(folder, "maybe", "no, too slow", "yes", "go back to the baseline")
    assert "Round 1, train 2 epochs" in output and "yes, no, or what instead?" in output
    assert "The user turned train_lora down: too slow" in output
    [edit, back] = folder.rounds()
    assert edit.decision.move.action == "edit_prompt" and back.decision.move == Rollback(to_round=0)


def test_the_nearest_is_asked_back_and_done_at_a_yes(run: Callable[..., RunFolder], say: Say) -> None:
    folder = run()
    output = say(folder, "it should reply with one lower-case word", "yes")
    assert f"Did you mean /edit {WORDS}? do it? (yes/no)" in output
    assert folder.rounds()[0].decision.move == EditPrompt(instruction=WORDS)


@pytest.mark.parametrize("between", ["/status", "/why 9"])
def test_what_was_perhaps_meant_is_asked_once(run: Callable[..., RunFolder], say: Say, between: str) -> None:
    folder = run()
    output = say(folder, "it should reply with one lower-case word", between, "yes")
    assert output.count("Did you mean /edit") == 1
    assert folder.rounds()[0].decision.move.action == "train_lora", "the yes is for the plan"


def test_a_failing_row_stands_beside_the_users_own_answer(run: Callable[..., RunFolder], say: Say) -> None:
    """Which may be the wrong one of the two."""
    folder = run("style=[]")
    output = say(folder, "/failures")
    lines = (Path(folder.about.source) / "train.jsonl").read_text().splitlines()
    rows = {row["question"]: row["answer"] for row in map(json.loads, lines)}
    shown = re.findall(r"train:\d+: “(.+?)” → “.*?” \(your answer: “(.+?)”\)", output)
    assert shown and all(rows[question] == answer for question, answer in shown)
    assert "Look whether your answers are right there" in output and "train rows;" in output


# --- the end, and beyond it -----------------------------------------------------------------------------


def test_an_end_below_an_earlier_pair_says_so(tmp_path: Path) -> None:
    run = make_run(tmp_path, finished=False)
    assert answers.better_before(run.rounds(), run.baseline()) == ""
    *_, third, tuned = run.rounds()
    run.append(a_round(5, Rollback(to_round=3), tuned.best, third.best, 1.0, 0.33, kept=True))
    assert answers.better_before(run.rounds(), run.baseline()) == (
        " The present pair has a validation reward of 0.33; after round 4 it was 1.00 (/rollback 4 goes back there)."
    )


def test_a_stop_says_what_it_opens_before_it_does(run: Callable[..., RunFolder], say: Say) -> None:
    folder = run("budget.rounds=0")
    output = say(folder, "yes", "no")
    assert "Round 1: end the run: open 4 test rows, once, and write the report." in output
    assert "That will end the run" in output and "Nothing was done." in output and folder.outcome() is None
    say(folder, "/approve", "/yes")
    assert folder.outcome() is not None


def test_a_round_beyond_the_budget_is_asked_for_and_raises_it(run: Callable[..., RunFolder], say: Say) -> None:
    folder = run("policy=prompt-only", "budget.rounds=1")
    ask = "/edit Answer in one word."
    output = say(folder, "yes", ask, "no", "/train rows=all", "/rollback 7", ask, "yes")
    assert "That cannot be done: rows must be original, refined or both, but it is 'all'. Nothing was done." in output
    assert (
        "The budget of 1 round is used up. One more, to try your words in the system text: “Answer in one word.”:"
        in output
    )
    assert "Nothing was done." in output and "The budget is now 2 rounds." in output
    limits = folder.limits()
    assert limits is not None and limits.rounds == 2 == len(folder.rounds())


def test_a_finished_run_is_extended_under_the_same_ledger(run: Callable[..., RunFolder], say: Say) -> None:
    folder = run("policy=prompt-only", "budget.rounds=1")
    assert "The run has finished." in say(folder, "yes", "done", "yes", "/train")
    assert folder.outcome() is not None
    output = say(folder, "status", "two more rounds", "status")
    assert "The budget is now 3 rounds." in output
    assert folder.outcome() is None and len(folder.outcomes()) == 1, "seen, and kept"
    assert [row.number for row in folder.rounds()][:2] == [1, 2]


def test_a_finished_run_answers_even_if_its_checkpoints_are_lost(run: Callable[..., RunFolder], say: Say) -> None:
    folder = run("budget.rounds=1")
    with open_session(folder) as session:
        session.go()
    folder.checkpoints.write_bytes(b"not a database " * 1000)
    output = say(folder, "/plan", "/try Who?", "/diff")
    assert "The run has finished" in output and "seed prompt" in output and "base, seed prompt" in output


# --- what answers say -----------------------------------------------------------------------------------


def test_what_was_wrong_with_an_answer_is_shown_with_the_plan(run: Callable[..., RunFolder], say: Say) -> None:
    folder = run()
    with open_session(folder, supervised=True) as session:
        session.go()
        session.go(instead("train_lora", rank=4096))
    assert "That cannot be done: rank must be between 1 and 256, but it is 4096" in say(folder, "/plan")


def in_words(row: Round) -> str:
    return " ".join(" ".join(line.text.split()) for line in answers.why(row))


def test_why_shows_the_rules_choice_beside_the_planners() -> None:
    first, second, *_ = llm_rounds()
    assert "Round 1, edit_prompt, decided by planner." in in_words(first)
    assert f"{PLANNED} the rules (same lever, other settings): {RULES}" in in_words(first)
    assert f"{PLANNED} the rules (another lever): {RULES}" in in_words(second)


def test_why_says_what_a_number_is_where_its_name_does_not() -> None:
    row = llm_rounds()[0]
    numbers = row.decision.model_copy(update={"numbers": {"reward": 0.5, "known": 0.25}})
    texts = [line.text for line in answers.why(row.model_copy(update={"decision": numbers}))]
    assert "  known                        0.250   content beyond luck: (content − luck) / (1 − luck)" in texts
    assert "  reward                       0.500" in texts


LOOKED = Inquiry(look=Evaluate(rows=4), reason="Do they fail alike?", finding=RowsScored(
    split="train", rows=4, reward=0.25, content=0.5, style=0.75, failing=3, lacking_content=2, lacking_style=1,
    lacking_both=0, too_long=0,
))  # fmt: skip


def test_why_shows_what_the_planner_looked_at_and_why_it_was_not_used() -> None:
    lost = Inquiry(fault="gave no usable \x1b[31manswer")
    decision = Decision(
        move=EditPrompt(), reason="Words are cheap.", planner_fault="it is down", inquiries=(LOOKED, lost)
    )
    text = in_words(llm_rounds()[0].model_copy(update={"decision": decision}))
    assert "Words are cheap. (The planner was not used: it is down)" in text
    assert (
        "looked: evaluate on 4 train rows: reward 0.25, content 0.50, style 0.75 on 4 train rows; 3 fail (2 lack"
        in text
    )
    assert "looked: a call that could not be used: gave no usable" in text and "\x1b" not in text


def test_an_edit_with_an_llm_says_how_many_calls_it_takes(run: Callable[..., RunFolder], say: Say) -> None:
    edit = {"editor": "textgrad", "critiques": 5, "rewrites": 3}
    output = say(run(edit=edit, llm=SERVER, policy="prompt-only"), "/plan")
    # A critique for each of the four rows, three parts and the system text once more, three questions.
    assert "cost: up to" in output and "up to about 11 calls to the external LLM" in output


def test_base_best_and_current_answer_side_by_side(run: Callable[..., RunFolder], say: Say) -> None:
    folder = run("gate.alpha=0.9")
    output = say(folder, "/train rows=original", "/try Who?", "/rollback 0", "/try Who?")
    trained, back = folder.rounds()
    if trained.best == back.best:
        assert "current and best (round 2)" in output
    else:
        assert "current and best (round 1)" in output and "best (round 1)" in output and "current (round 2)" in output
    assert output.count("base, seed prompt") == 2


def test_a_chat_sees_and_steers_a_run_that_is_worked_on_elsewhere(run: Callable[..., RunFolder], say: Say) -> None:
    folder = run()
    with drive(folder, supervised=True) as driver:
        output = say(folder, "/edit", "status")
        assert "Another process works on it" in output and "taken back" in output and "Round 2: " in output
        assert driver.status().rounds == 1 and driver.status().condition == "waiting"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("where", ["prompt", "step", "answer"])
def test_a_signal_to_end_passes_where_a_ctrl_c_is_caught(number: int, where: str) -> None:
    def raises(*_: object) -> str:
        raise Stopped(number)

    caught = list[str]()
    here: Any = SimpleNamespace(
        talk=SimpleNamespace(stop=lambda: caught.append("cancelled"), hear=raises, changed=lambda _: None),
        say=caught.append, look=raises, now=None,
    )  # fmt: skip
    here.interrupted = partial(Visit.interrupted, here)
    with pytest.raises(Stopped):
        settle(here) if where == "step" else _heard(here, raises if where == "prompt" else lambda: "yes")
    assert not caught


def test_a_chat_outlives_the_process_that_it_came_to(
    run: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after `run --detach`, whose worker ends with the run: what sets the run going starts another one."""
    folder = run()
    with ExitStack() as first, ExitStack() as second:
        first.enter_context(drive(folder, supervised=True))

        class Lines(io.StringIO):
            def readline(self, size: int | None = -1, /) -> str:
                text = super().readline()
                if text == "/set rounds=7\n":
                    first.close()
                return text

        def start(folder: RunFolder, supervised: bool = True) -> Steering:
            return second.enter_context(drive(folder, supervised=supervised))

        monkeypatch.setattr("graphs.control.anybody.steer", start)
        monkeypatch.setattr("sys.stdin", Lines("status\n/set rounds=7\n/edit\n"))
        chat(folder)
        output = " ".join(capsys.readouterr().out.split())
        assert "Another process works on it" in output and "has let go" not in output
        limits, rounds = folder.limits(), folder.rounds()
        assert limits is not None and limits.rounds == 7 and len(rounds) == 1


# --- with an LLM ----------------------------------------------------------------------------------------


def llm(server: LlmServer) -> Llm:
    return settings(server, max_tokens=400, key_variable="MAYOR_KEY")


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAYOR_KEY", "sk-secret")


def test_plain_language_is_done_by_commands_and_costly_things_are_asked(
    run: Callable[..., RunFolder], say: Say
) -> None:
    folder = run()
    script = [
        call("answer", text="The reward is 0.00, and I will reach 0.87 soon. Do you want me to train?"),
        call("edit_prompt", instruction=WORDS), call("train_lora", epochs=1, rows="original"),
        call("explain_round", number=2), call("answer", text="In round 2 one training brought nothing."),
    ]  # fmt: skip
    with serving(script) as server:
        output = say(
            folder, "how do you think this will turn out?", f"could it be that it has to {WORDS}", "teach it the facts",
            "yes", "and what came of the second?", llm=llm(server),
        )  # fmt: skip
    assert "left out of the LLM's answer: a sentence with 0.87, which no record holds" in output
    assert "To be done: train 1 epoch on 4 rows as they are given, about " in output
    [edit, train] = folder.rounds()
    assert edit.decision.move == EditPrompt(instruction=WORDS)
    assert isinstance(train.decision.move, TrainLora) and train.decision.move.epochs == 1
    assert "In round 2 one training brought nothing." in output


def test_what_a_conversation_costs_is_charged_to_the_run(run: Callable[..., RunFolder], say: Say) -> None:
    folder = run()
    with serving([call("answer", text="It waits for you.")]) as server:
        assert "(1 call to the LLM, $0.0002)" in say(folder, "so how is life today?", llm=llm(server))
    say(folder, "/edit")
    [row] = folder.rounds()
    assert row.usage["chat"].calls == 1 and row.spend.usd == pytest.approx(row.usage["chat"].usd)


@pytest.mark.parametrize("reply", [OVERLOADED, Reply("Sure! I will do all of that.")])
def test_an_llm_that_is_down_or_talks_nonsense_leaves_the_commands(
    run: Callable[..., RunFolder], say: Say, reply: Reply
) -> None:
    folder = run()
    with serving([reply] * 20) as server:
        output = say(folder, "please be so kind as to do it all", "/edit", llm=llm(server))
    assert "The LLM could not be asked: " in output and "Commands and short sentences still work." in output
    assert len(folder.rounds()) == 1


def test_a_question_of_the_llm_outlives_the_visit(run: Callable[..., RunFolder], say: Say) -> None:
    folder = run()
    with serving([call("train_lora", epochs=1, rows=None)]) as server:
        say(folder, "teach it the facts of the town in one epoch", llm=llm(server))
        output = say(folder, "yes", llm=llm(server))
    plan, asked = output.index("yes, no, or what instead?"), output.rindex("To be done: train 1 epoch")
    assert plan < asked, "what a yes answers is what was asked last"
    assert [row.decision.move.action for row in folder.rounds()] == ["train_lora"]

"""The live view of a run, on a terminal and where nobody watches."""

import io
import re
import time

from rich.console import Console

from agent.records.events import (
    BaselineScored,
    DecisionMade,
    LimitsSet,
    Note,
    RoundJudged,
    RoundStarted,
    RunFinished,
    RunStarted,
    RunStopped,
)
from agent.records.limits import Extension, Limits
from agent.records.rounds import ConstantAnswer
from graphs.cancelling import CANCELLED
from tests.fixtures.story import a_baseline, an_outcome, the_story
from tests.llm.story import an_llm_outcome, llm_rounds
from ui.terminal.live import LiveView


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def play(view: LiveView, clock: Clock) -> None:
    with view:
        view.event(RunStarted(name="valley-1", task="valley", model="smollm2-135m", policy="rules", folder="r"))
        view.event(BaselineScored(row=a_baseline()))
        for row in the_story():
            view.event(RoundStarted(number=row.number))
            view.event(DecisionMade(number=row.number, decision=row.decision))
            for step in range(51):
                clock.now += 1
                view("training", step, 50, "loss 0.31 [bold]")
            view.event(RoundJudged(row=row))
        view.event(Note(text="the planner did not answer;\x1b[31m the rules decide"))
        view.event(RunFinished(outcome=an_outcome(the_story()[-1])))


def test_live_view_writes_plain_lines_where_nobody_watches() -> None:
    clock, out = Clock(), io.StringIO()
    play(LiveView(Console(file=out, width=80), clock), clock)
    text = out.getvalue()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)
    assert "◆ edit  Most failures lack the wanted form, and demonstrations alone would take 4.0 nats" in text
    assert "0.04 → 0.00  taken back  p 0.62  LoRA took 1 min 15 s  (1 min 20 s so far)" in text
    assert "0.33 → 1.00  kept" in text
    assert re.search(r"best pair +0\.92 +0\.75 – 1\.00", text)
    assert "report: r/report.html" in text


def test_progress_lines_come_at_most_every_ten_seconds() -> None:
    clock, out = Clock(), io.StringIO()
    play(LiveView(Console(file=out, width=80), clock), clock)
    lines = [line for line in out.getvalue().splitlines() if line.startswith("training ")]
    assert 16 <= len(lines) <= 20
    assert "loss 0.31 [bold]" in lines[0] and re.search(r"about \d+ s left", lines[0])


def test_live_view_on_a_terminal_stays_within_80_columns_and_keeps_finished_rounds() -> None:
    clock, out = Clock(), io.StringIO()
    console = Console(file=out, width=80, force_terminal=True, color_system=None, legacy_windows=False)
    play(LiveView(console, clock), clock)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue()).replace("\r", "\n")
    assert max(len(line) for line in plain.splitlines()) <= 80
    assert plain.count("taken back") == 1
    assert plain.count("training") >= 4
    assert "\x1b[31m" not in out.getvalue()


def test_nothing_is_drawn_over_what_the_user_types_after_the_work() -> None:
    out = io.StringIO()
    with LiveView(Console(file=out, width=80, force_terminal=True)) as view:
        view("training", 1, 2)
        view("training", 2, 2)
        drawn = out.tell()
        time.sleep(0.25)  # two redraws of a live line
        assert out.tell() == drawn


def test_the_bar_of_a_training_moves_with_each_step() -> None:
    out = io.StringIO()
    with LiveView(Console(file=out, width=80, force_terminal=True, color_system=None)) as view:
        for step in range(1, 12):
            view("training LoRA", step, 12, f"epoch 1/1, loss {step}.000")
            drawn = re.findall(r"(\d+)/12", out.getvalue())
            assert drawn[-1] == str(step), "before the thread that redraws it had a turn"
    assert "0/12" not in drawn


def test_live_view_tells_what_the_llm_did_and_what_the_rules_would_have_done() -> None:
    out = io.StringIO()
    with LiveView(Console(file=out, width=80)) as view:
        for row in llm_rounds():
            view.event(DecisionMade(number=row.number, decision=row.decision))
            view.event(RoundJudged(row=row))
        view.event(RunFinished(outcome=an_llm_outcome(llm_rounds()[-1])))
    text = out.getvalue()
    assert "◆ edit  Eleven of twelve rows lack the form" in text and "(planner)" in text
    assert "the rules, same lever, other settings: edit_prompt: 92% of the rows lack style" in text
    assert text.count("the rules, another lever: ") == 2
    assert "4 critiques by the editor's LLM\n1 proposal refused: the training answer" in text
    assert "12 hard questions, 9 rewritten, 5 answers passed (yield 42%" in text
    assert "$0.00434 so far)" in text
    assert "external LLM: planner 5 calls, $0.0017; editor 60 calls and 9 from cache, $0.0093; judge" in text


def test_what_an_llm_says_does_not_steer_the_terminal() -> None:
    out = io.StringIO()
    row = llm_rounds()[0]
    evil = row.decision.model_copy(update={"reason": "\x1b[31mred", "rules_would": "edit_prompt: \x1b[2J"})
    proposals = (row.trial.proposals[-1].model_copy(update={"note": "\x1b[31m"}),)
    with LiveView(Console(file=out, width=80)) as view:
        view.event(DecisionMade(number=1, decision=evil))
        trial = row.trial.model_copy(update={"proposals": proposals})
        view.event(RoundJudged(row=row.model_copy(update={"trial": trial})))
    assert "\x1b" not in out.getvalue() and "1 proposal refused" in out.getvalue()


def test_what_one_answer_to_all_rows_would_earn_stands_below_the_table() -> None:
    out = io.StringIO()
    outcome = an_outcome(the_story()[-1])
    with LiveView(Console(file=out, width=80)) as view:
        told = ConstantAnswer(answer="LABEL: \x1b[31mspam", reward=0.27, most=0.27)
        for alike in (told, told.model_copy(update={"most": 0.61}), ConstantAnswer(), None):
            view.event(RunFinished(outcome=outcome.model_copy(update={"commonest": alike})))
    text = out.getvalue()
    assert text.count('Always answering "LABEL:  [31mspam" would earn 0.27.') == 1
    assert text.count("would earn 0.27; another single answer, 0.61.") == 1
    assert text.count("is left out: a judge or a reward model scores this task.") == 1


def test_what_a_user_did_to_the_run_stands_in_the_log_with_its_time() -> None:
    out = io.StringIO()
    row = the_story()[0]
    cancelled = row.model_copy(
        update={"trial": row.trial.model_copy(update={"candidate": None, "cancelled": True, "note": CANCELLED})}
    )
    outcome = an_outcome(the_story()[-1]).model_copy(update={"seen": 1})
    with LiveView(Console(file=out, width=80), stamps=True) as view:
        view.event(RoundStarted(number=1))
        view.event(RoundJudged(row=cancelled))
        view.event(LimitsSet(row=Extension(number=1, limits=Limits(rounds=9, target=0.9), reopened=True)))
        view.event(RunFinished(outcome=outcome))
        view.event(RunStopped(reason="The user stopped it.\x1b[31m"))
    lines = [line for line in out.getvalue().splitlines() if re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ", line)]
    assert lines[0].endswith("  round 1") and "cancelled after" in lines[1] and "taken back" not in lines[1]
    assert "limits: 9 rounds, target 0.9; the run is opened again, its test rows are seen" in lines[2]
    assert any("The test rows had been seen before" in line for line in lines)
    assert "stopped: The user stopped it. [31m" in lines[-1]

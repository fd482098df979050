"""What the planner is told of a round: all that counts, in words and numbers; what others wrote only quoted and cut."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from agent import prompts
from agent.briefing import LAST_ROUNDS
from agent.protocols import Briefing
from agent.records import Signal
from agent.rounds import Trial
from tests.planning import BRIEFING, FULL, LACKS_BOTH, told
from tests.rounds import EDIT, a_diagnosis, a_round, a_signal

SNAPSHOT = Path(__file__).parent / "snapshots" / "planner_round.txt"


def test_the_prompts_are_those_of_the_snapshot() -> None:
    both = f"{prompts.read('planner')}\n-----\n\n{told(FULL)}"
    assert both == SNAPSHOT.read_text(encoding="utf-8"), "if the change is meant, change the snapshot too"


def test_the_first_round_is_told_as_such() -> None:
    first = told(Briefing(a_signal(), a_diagnosis()))
    assert "Rounds so far, the latest last:\nnone" in first
    assert "prompt gap unknown, weight gap unknown" in first


def test_what_a_kept_round_changed_is_told_for_content_and_style_too() -> None:
    now: Signal = a_signal(reward=0.45, content=0.75, style=0.6)
    lines = told(Briefing(now, LACKS_BOTH, [a_round(EDIT, kept=True, gain=0.25)]))
    assert "reward 0.20 -> 0.45, content 0.50 -> 0.75, style 0.40 -> 0.60, kept" in lines


def test_a_round_without_a_trial_is_told_with_its_reason() -> None:
    row = a_round(EDIT)
    trial = Trial(candidate=None, note="The editor has no proposal left.")
    lines = told(BRIEFING._replace(history=[row.model_copy(update={"trial": trial})]))
    assert "demos, questions: came to nothing, <<< The editor has no proposal left. >>>" in lines


def test_only_the_last_rounds_are_told() -> None:
    history = [a_round(EDIT, number=number, kept=number == 20) for number in range(1, 21)]
    lines = told(BRIEFING._replace(history=history))
    assert "\n20. edit_prompt" in lines and f"\n{21 - LAST_ROUNDS}. edit_prompt" in lines
    assert f"\n{20 - LAST_ROUNDS}. " not in lines


@given(st.text())
def test_a_quote_is_one_line_that_nothing_can_break_out_of(text: str) -> None:
    for spiteful in (text, f"<<{text}>>>", f">>{text}>", f"<<<{text}<"):
        quote = prompts.quoted(spiteful, 160)
        assert quote.count("<<<") == quote.count(">>>") == 1 and len(quote.splitlines()) == 1
        assert quote.startswith("<<< ") and quote.endswith(" >>>") and len(quote) <= 168


def test_a_short_text_is_quoted_whole_and_a_long_one_cut() -> None:
    assert prompts.quoted("  Who is\tthe mayor?\n", 160) == "<<< Who is the mayor? >>>"
    assert prompts.quoted("abcdef", 4) == "<<< abc… >>>"

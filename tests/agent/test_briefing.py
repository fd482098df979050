"""The planner's message on a round: all that counts, in words and numbers; texts by others only quoted and cut."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from agent import prompts
from agent.policy.briefing import LAST_ROUNDS
from agent.protocols import Briefing
from agent.records.rounds import Trial
from agent.records.signal import Signal
from tests.fixtures.planning import BRIEFING, FULL, LACKS_BOTH, planner_message
from tests.fixtures.rounds import EDIT, a_diagnosis, a_round, a_signal

SNAPSHOT = Path(__file__).parents[1] / "snapshots" / "planner_round.txt"


def test_the_prompts_are_those_of_the_snapshot() -> None:
    both = f"{prompts.read('planner')}\n-----\n\n{planner_message(FULL)}"
    assert both == SNAPSHOT.read_text(encoding="utf-8"), "if the change is meant, change the snapshot too"


def test_the_first_round_is_described_as_such() -> None:
    first = planner_message(Briefing(a_signal(), a_diagnosis()))
    assert "Rounds so far, the latest last:\nnone" in first
    assert "prompt gap unknown, weight gap unknown" in first


def test_what_a_kept_round_changed_is_shown_for_content_and_style_too() -> None:
    now: Signal = a_signal(reward=0.45, content=0.75, style=0.6)
    lines = planner_message(Briefing(now, LACKS_BOTH, [a_round(EDIT, kept=True, gain=0.25)]))
    assert "reward 0.20 -> 0.45, content 0.50 -> 0.75, style 0.40 -> 0.60, kept" in lines


def test_a_round_without_a_trial_is_shown_with_its_reason() -> None:
    row = a_round(EDIT)
    trial = Trial(candidate=None, note="The editor has no proposal left.")
    lines = planner_message(BRIEFING._replace(history=[row.model_copy(update={"trial": trial})]))
    assert "questions, retrieval: came to nothing, <<< The editor has no proposal left. >>>" in lines


def test_only_the_last_rounds_are_shown() -> None:
    history = [a_round(EDIT, number=number, kept=number == 20) for number in range(1, 21)]
    lines = planner_message(BRIEFING._replace(history=history))
    assert "\n20. edit_prompt" in lines and f"\n{21 - LAST_ROUNDS}. edit_prompt" in lines
    assert f"\n{20 - LAST_ROUNDS}. " not in lines


@given(st.text(), st.text(alphabet="<>a\n", max_size=60), st.integers(2, 160))
def test_nothing_breaks_out_of_a_quote(text: str, spiteful: str, limit: int) -> None:
    for material in (text, spiteful, f"<<{text}>>>", f">>{text}>", f"<<<{text}<"):
        quote = prompts.quoted(material, limit)
        gap = quote[3]
        assert quote.startswith(f"<<<{gap}") and quote.endswith(f"{gap}>>>") and gap in " \n"
        inside = quote[4:-4]
        assert "<<<" not in inside and ">>>" not in inside and len(inside) <= max(limit, 7)


@given(st.text())
def test_one_line_is_one_line(text: str) -> None:
    assert len(prompts.one_line(text).splitlines()) <= 1


def test_a_short_text_is_quoted_whole_and_a_long_one_cut_in_the_middle() -> None:
    assert prompts.quoted(prompts.one_line("  Who is\tthe mayor?\n"), 160) == "<<< Who is the mayor? >>>"
    assert prompts.quoted("abcdefghijk", 9) == "<<< ab […] jk >>>"

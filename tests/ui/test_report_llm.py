"""What the report tells of the external LLM: reasons side by side, critiques, refusals, remade rows, money."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.records.actions import Decision, EditPrompt, TrainLora
from agent.records.examples import Demo, Prompt
from agent.records.rounds import Remaking, Spend
from tests.fixtures.pages import EVIL, outside_fences, read
from tests.fixtures.story import make_run
from tests.llm.story import ASKED, CRITIQUE, PLANNED, REFUSED, RULES, llm_rounds, make_llm_run
from ui import wording
from ui.decision_wording import beside_rules
from ui.report import llm
from ui.report.diff import compare


def plain(twin: str) -> str:
    """The twin as it reads: one line, without the escapes."""
    return " ".join(twin.replace("\\", "").split())


def test_the_planners_reason_stands_beside_what_the_rules_would_have_done(tmp_path: Path) -> None:
    page, words, twin = read(make_llm_run(tmp_path))
    assert f"the planner edit_prompt: {PLANNED} the rules same lever, other settings {RULES}" in words
    assert f"the planner train_lora: {PLANNED} the rules another lever {RULES}" in words
    assert (
        f"| the planner | the rules (same lever, other settings) | |---|---| | edit_prompt: {PLANNED} | {RULES} |"
        in plain(twin)
    )
    assert f"| the planner | the rules (another lever) | |---|---| | train_lora: {PLANNED} | {RULES} |" in plain(twin)
    assert words.count("Decided by rules.") == 1  # the round in which the planner did not answer
    assert "planner <abbr" in page and "| planner = |" in twin and "| planner ≠ |" in twin


def test_planner_and_rules_are_weighed_against_one_another(tmp_path: Path) -> None:
    _, words, twin = read(make_llm_run(tmp_path))
    for text in (words, plain(twin)):
        assert "The planner decided 3 rounds; in 1 of them the rules would have used the same lever." in text
        assert "In 1 round the rules stood in for it." in text
    assert "the same lever as the rules 1 1 +0.04 another lever 2 1 +0.31" in words
    assert "| the same lever as the rules | 1 | 1 | +0.04 |\n| another lever | 2 | 1 | +0.31 |" in twin


def test_a_fixed_order_is_not_weighed_against_the_rules(tmp_path: Path) -> None:
    run = make_llm_run(tmp_path)
    run.task_file.write_text(run.task_file.read_text().replace("policy: rules", "policy: lora-only"))
    _, words, twin = read(run)
    for text in (words, twin):
        assert "The external LLM" in text and "lora-only" in text
        assert "Planner against rules" not in text and "LLM planner" not in text


def test_a_decision_knows_whether_the_rules_would_have_pulled_the_same_lever() -> None:
    def agrees(rules_would: str | None) -> bool | None:
        return Decision(move=EditPrompt(), reason="", by="planner", rules_would=rules_would).agrees

    assert agrees("edit_prompt") is True and agrees(RULES) is True
    assert agrees("train_lora: do not stop, edit_prompt brings little") is False
    assert agrees(None) is None and agrees("nothing that is known") is None


def test_the_same_action_is_distinguished_from_the_same_lever() -> None:
    rules = f"{TrainLora(rank=8)}: content is lacking."
    sentences = [
        beside_rules(Decision(move=move, reason="", by="planner", rules_would=rules))
        for move in (TrainLora(rank=8), TrainLora(rank=16), EditPrompt())
    ]
    assert sentences == ["the same action", "same lever, other settings", "another lever"]


def test_critiques_are_folded_by_part_each_with_its_row(tmp_path: Path) -> None:
    page, words, twin = read(make_llm_run(tmp_path))
    start = page.index('<details class="critiques">')
    folded = page[start : page.index("</details>", start)]
    assert folded.count("The system text asks to *explain*") == 4
    assert "Of the system text train:3" in words and "Of the demonstrations train:7" in words
    assert "Of the questions train:11" in words
    assert f"| questions | train:11 | {CRITIQUE} |" in plain(twin)


def test_long_critiques_are_cut(tmp_path: Path) -> None:
    run = make_llm_run(tmp_path, text="so it goes " * 5_000, finished=False)
    page, _, twin = read(run)
    assert "so it goes so it" in page and len(twin) < 400_000
    assert len(re.findall(r"so it goes", page[page.index('class="critique"') : page.index("</details>")])) < 600


def test_refused_proposals_say_why_and_are_not_among_those_scored(tmp_path: Path) -> None:
    page, words, twin = read(make_llm_run(tmp_path))
    assert (
        f"Refused, and not scored: {REFUSED}" in words
        and f"| refused, and not scored | |---| | {REFUSED} |" in plain(twin)
    )
    assert "dropped after" not in words + twin
    assert "two demonstrations in the wanted form" in page


def test_remade_rows_tell_their_yield_share_and_gain(tmp_path: Path) -> None:
    _, words, twin = read(make_llm_run(tmp_path))
    for text in (words, plain(twin)):
        assert (
            "12 hard questions, 9 rewritten, 5 answers passed (yield 42%; 2 recalled from memory), reward on those "
            "rewritten 0.10 → 0.45." in text
        )
        assert "Of the rows that LoRA trained on, 5% were rewritten." in text
        assert "96 rows (refined; 10 of them rewritten, 10%), 4 epochs" in text
    assert "with rewritten rows 1 1 +0.67 without 1 0 −0.04" in words
    assert "| with rewritten rows | 1 | 1 | +0.67 |" in twin


def remaking_of(*rounds: Remaking) -> Remaking:
    """The report on the first rounds, with these remakings."""
    rows = [
        row.model_copy(update={"trial": row.trial.model_copy(update={"remaking": remaking})})
        for row, remaking in zip(llm_rounds(), rounds, strict=False)
    ]
    made = llm.total_remaking(rows)
    assert made is not None
    return made


def test_remaking_of_several_rounds_is_weighed_by_the_questions_that_were_tried() -> None:
    made = remaking_of(
        Remaking(asked=12, tried=9, kept=3, before=0.0, after=0.2),
        Remaking(asked=12, tried=3, kept=3, recalled=1, before=0.4, after=1.0),
    )
    assert (made.asked, made.tried, made.kept, made.recalled) == (24, 12, 6, 1)
    assert made.before == pytest.approx(0.1) and made.after == pytest.approx(0.4)


def test_a_round_in_which_nothing_could_be_tried_changes_no_reward_and_has_none() -> None:
    lost = Remaking(asked=12, kept=0)
    assert wording.remade(remaking_of(Remaking(asked=12, tried=8, kept=6, before=0.2, after=0.6), lost)) == (
        "24 hard questions, 8 rewritten, 6 answers passed (yield 25%), reward on those rewritten 0.20 → 0.60"
    )
    assert wording.remade(remaking_of(lost)) == wording.remade(lost) == "12 hard questions, none rewritten"


def test_usage_by_role_adds_up_beside_the_budget(tmp_path: Path) -> None:
    page, words, twin = read(make_llm_run(tmp_path))
    assert "■ editor some-small-model 60 9 27,000 6,300 $0.0093" in words
    assert "together 137 13 51,500 6,900 $0.0155" in words
    assert "| planner | some-large-model | 5 | 0 | 4,500 | 400 | $0.0017 |" in plain(twin)
    for text in (words, plain(twin)):
        assert "$0.0155 of the budget of $0.05 (31%)" in text
    assert page.count('<rect class="paid judge"') == 5  # four rounds and the end
    assert "<title>3, editor: $0.0031</title>" in page


def test_money_of_a_round_is_what_the_ledger_counted_up_in_it() -> None:
    bills = llm.bills(None, llm_rounds(), None)
    assert [bill.label for bill in bills] == ["1", "2", "3", "4"]
    assert bills[0].usd["editor"] == pytest.approx(0.0031) and bills[1].usd["editor"] == pytest.approx(0)
    assert sum(sum(bill.usd.values()) for bill in bills) == pytest.approx(llm_rounds()[-1].spend.usd)


def test_a_run_without_an_llm_says_so_in_a_line_and_no_more(tmp_path: Path) -> None:
    page, words, twin = read(make_run(tmp_path))
    for text in (words, twin):
        assert "No external LLM: decided by the rules." in text
        assert "The external LLM" not in text and "Remade rows" not in text and "money" not in text
    assert "paid" not in re.sub(r"<style>.*?</style>", "", page, flags=re.S)


def test_what_llms_and_rows_say_stays_text(tmp_path: Path) -> None:
    page, words, twin = read(make_llm_run(tmp_path, text=EVIL, finished=False))
    assert "<script" not in page and "<img" not in page
    assert words.count("<script>alert('x')</script>") >= 4 + 1 + 2 * 3  # critiques, a refusal, reasons and rules
    outside = outside_fences(twin)
    assert "<script" not in outside and "<img" not in outside
    assert "# not a heading" not in outside.splitlines() and "[a](" not in outside


def test_a_run_that_goes_on_is_counted_as_far_as_it_has_come(tmp_path: Path) -> None:
    _, words, _ = read(make_llm_run(tmp_path, finished=False))
    assert "planner some-large-model 4 0 3,600 320 $0.00136" in words


# --- the diff of what an LLM rewrites -----------------------------------------------------------------


def test_a_question_template_is_shown_around_the_question_it_keeps() -> None:
    pieces = compare(Prompt(template="{question}"), Prompt(template="Q: {question}\nOne word only.")).template
    assert pieces == [("added", "Q: "), ("same", "{question}"), ("added", "\nOne word only.")]


def test_a_reworded_demonstration_is_shown_word_by_word() -> None:
    mill = Demo(question="Who keeps the mill?", answer="Odile")
    before = Prompt(demos=(mill, Demo(question="What is sown?", answer="rye")))
    after = Prompt(
        demos=(
            mill.model_copy(update={"answer": "ANSWER: Odile"}),
            Demo(question="What is sown in the valley?", answer="rye"),
            Demo(question="Which fair is held?", answer="the goat fair"),
        )
    )
    first, second, third = compare(before, after).demos
    assert first.change == second.change == "changed" and third.change == "added"
    assert first.question == [("same", "Who keeps the mill?")]
    assert first.answer == [("added", "ANSWER: "), ("same", "Odile")]
    assert ("same", "rye") in second.answer


def test_another_demonstration_is_no_rewording() -> None:
    before = Prompt(demos=(Demo(question="Who is the mayor of Pell?", answer="Odile"),))
    after = Prompt(demos=(Demo(question="Who is the mayor of Tarn?", answer="Ysolde"),))
    assert [demo.change for demo in compare(before, after).demos] == ["removed", "added"]


def test_a_template_that_changed_is_on_the_page(tmp_path: Path) -> None:
    page, _, twin = read(make_llm_run(tmp_path))
    assert "<ins>Answer from what you know of the valley.\nQuestion: </ins>{question}" in page
    assert "+Question: {question}" in twin and ASKED.template in twin


# --- words for money ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("usd", "text"),
    [(0, "$0.00"), (0.0034, "$0.0034"), (0.25, "$0.25"), (0.1234, "$0.123"), (0.9996, "$1.00"), (1234.5, "$1,234.50"),
     (0.00000234, "$0.00000234"), (0.09999, "$0.10")],
)  # fmt: skip
def test_small_money_is_shown_to_three_figures(usd: float, text: str) -> None:
    assert wording.money(usd) == text


@given(st.floats(min_value=1e-12, max_value=1e9))
def test_money_that_was_paid_never_reads_as_nothing(usd: float) -> None:
    assert float(wording.money(usd)[1:].replace(",", "")) == pytest.approx(usd, rel=0.006)


def test_cost_in_a_line_names_small_money() -> None:
    assert wording.cost(Spend(seconds=2, llm_tokens=900, usd=0.0034)) == "2.0 s, 900 LLM tokens, $0.0034"

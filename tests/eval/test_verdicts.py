"""The gate by what it keeps."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.records.evaluation import Evaluation, ExampleScore
from agent.records.examples import Candidate
from agent.records.rounds import Verdict
from eval.gate import deciding_rows, judge_by_nll, judge_by_rewards, too_few_to_tell


def evaluation(*scores: tuple[float, float]) -> Evaluation:
    """An evaluation from (content, style) per row."""
    rows = (
        ExampleScore(example=f"validation:{line}", output="", content=content, style=style)
        for line, (content, style) in enumerate(scores, start=1)
    )
    return Evaluation(candidate=Candidate(prompt="p"), split="validation", scores=tuple(rows))


def test_a_clear_rise_is_kept_with_its_numbers() -> None:
    before, after = evaluation(*[(0, 0)] * 12), evaluation(*[(1, 1)] * 10, (0, 0), (0, 0))
    verdict = judge_by_rewards(before, after, level=0.1)
    assert verdict.kept
    assert verdict.reason == "joint reward 0.00 → 0.83 (p < 0.001)"
    assert (verdict.before, verdict.p_value) == (0.0, 2**-10)
    assert verdict.after == verdict.gain == pytest.approx(10 / 12)


def test_a_rise_within_chance_is_discarded() -> None:
    verdict = judge_by_rewards(evaluation(*[(0, 0)] * 8), evaluation((1, 1), *[(0, 0)] * 7), level=0.1)
    assert not verdict.kept
    assert verdict.p_value == 0.5
    assert "within chance" in verdict.reason
    assert "0.00 → 0.12 (p = 0.5)" in verdict.reason


def test_progress_of_one_factor_is_kept_while_the_product_is_flat() -> None:
    verdict = judge_by_rewards(evaluation(*[(0, 0)] * 6), evaluation(*[(1, 0)] * 6), level=0.1)
    assert verdict.kept
    assert verdict.p_value == 2**-6
    assert "merit 0.00 → 0.33 (p = 0.016)" in verdict.reason
    assert verdict.measure == "merit"


def test_merit_cannot_pay_for_a_fall_of_the_joint_reward() -> None:
    before = evaluation((1, 1), *[(0, 0)] * 9)
    after = evaluation((1, 0), *[(1, 0)] * 9)
    verdict = judge_by_rewards(before, after, level=0.1)
    assert not verdict.kept
    assert "fell" in verdict.reason


@pytest.mark.parametrize("simpler", [True, False])
def test_on_a_full_tie_the_simpler_pair_wins(simpler: bool) -> None:
    same = evaluation((1, 1), (0, 1))
    verdict = judge_by_rewards(same, same, level=0.1, after_is_simpler=simpler)
    assert verdict.kept is simpler
    assert ("wins the tie, with a cheaper prompt or weights that forget less" in verdict.reason) is simpler
    assert verdict.gain == 0


def test_being_simpler_does_not_help_where_rows_differ() -> None:
    assert not judge_by_rewards(
        evaluation((1, 1), (0, 0)), evaluation((0, 0), (1, 1)), level=0.1, after_is_simpler=True
    ).kept


def test_rows_are_paired_by_name() -> None:
    before = evaluation((1, 1), (0, 0))
    reordered = before.model_copy(update={"scores": before.scores[::-1]})
    assert "no row's reward or merit differs" in judge_by_rewards(before, reordered, level=0.1).reason
    with pytest.raises(ValueError, match="same rows"):
        judge_by_rewards(before, evaluation((1, 1)), level=0.1)


# --- the second witness ---------------------------------------------------------------------------------


def risen_within_chance() -> Verdict:
    before, after = [(0, 1)] * 2 + [(1, 1)] * 30, [(1, 1)] * 32
    return judge_by_rewards(evaluation(*before), evaluation(*after), level=0.1)


def test_too_few_rows_to_tell_are_decided_by_the_likelihood_of_the_wanted_answers() -> None:
    verdict = risen_within_chance()
    assert not verdict.kept and verdict.gain > 0
    likelier = judge_by_nll(verdict, [0.5] * 32, [0.1] * 32, level=0.1)
    assert likelier.kept and likelier.p_value < 0.001 and "0.50 → 0.10 nats" in likelier.reason
    assert not judge_by_nll(verdict, [0.1] * 32, [0.5] * 32, level=0.1).kept
    mixed = judge_by_nll(verdict, [0.5] * 32, [0.1] * 20 + [0.8] * 12, level=0.001)
    assert not mixed.kept and mixed.reason.endswith("likelier, but within chance")
    assert not judge_by_nll(verdict, [0.1] * 32, [0.1] * 32, level=0.1).kept


def test_rows_that_were_not_measured_are_no_evidence() -> None:
    """One row up, and seven that no longer fit into the window: 0 in their place would make 0.84 of 6.67 nats."""
    verdict = judge_by_rewards(evaluation((0, 1), *[(1, 1)] * 7), evaluation(*[(1, 1)] * 8), level=0.1)
    before: list[float | None] = [6.67] * 8
    after: list[float | None] = [6.5, *[None] * 7]
    heard = judge_by_nll(verdict, before, after, level=0.1)
    assert not heard.kept and heard.p_value == verdict.p_value
    assert "6.67 → 6.50" in heard.reason and "7 rows could not be measured" in heard.reason
    silent = judge_by_nll(verdict, before, [None] * 8, level=0.1)
    assert not silent.kept and "8 rows could not be measured" in silent.reason
    assert judge_by_nll(verdict, [*before, None], [*[0.1] * 8, 0.2], level=0.1).kept, "the others tell"


def test_it_is_heard_only_where_few_rows_changed_and_all_for_the_better() -> None:
    few = evaluation(*[(0, 1)] * 3 + [(1, 1)] * 9)
    assert too_few_to_tell(few, evaluation(*[(1, 1)] * 12), level=0.1)
    assert not too_few_to_tell(few, few, level=0.1)
    assert not too_few_to_tell(few, evaluation(*[(1, 1)] * 2 + [(0, 1)] * 2 + [(1, 1)] * 8), level=0.1)
    assert not too_few_to_tell(evaluation(*[(0, 1)] * 12), evaluation(*[(1, 1)] * 4 + [(0, 1)] * 8), level=0.1)


def test_it_is_heard_only_where_the_test_on_rewards_and_merit_could_not_have_succeeded() -> None:
    """Else it would be a second chance: here four rows gained style beside the three whose reward rose."""
    before = evaluation(*[(0, 1)] * 3, *[(0, 0)] * 4, *[(1, 1)] * 5)
    after = evaluation(*[(1, 1)] * 3, *[(0, 1)] * 4, *[(1, 1)] * 5)
    assert too_few_to_tell(before, after, level=0.5**8)
    assert not too_few_to_tell(before, after, level=0.5**7)


# --- which rows decide ------------------------------------------------------------------------------------


def test_rows_on_which_a_trial_was_chosen_do_not_decide() -> None:
    scores = evaluation((1, 1), (0, 0), (1, 0))
    assert [score.example for score in deciding_rows(scores, {"validation:1", "train:2"}).scores] == [
        "validation:2", "validation:3",
    ]  # fmt: skip
    assert deciding_rows(scores, ()) == scores
    assert deciding_rows(scores, [score.example for score in scores.scores]) == scores, "all or none"


def test_a_verdict_says_what_it_was_tested_at_and_on_how_many_rows() -> None:
    verdict = judge_by_rewards(evaluation(*[(0, 0)] * 8), evaluation((1, 1), *[(0, 0)] * 7), level=0.03)
    assert (verdict.level, verdict.rows) == (0.03, 8)
    assert judge_by_rewards(evaluation((1, 1)), evaluation((1, 1)), level=0.03).level is None, "nothing was tested"


def test_a_level_below_what_ten_thousand_flips_can_tell_is_reached_with_more() -> None:
    clear = evaluation(*[(0, 0)] * 40), evaluation(*[(1, 1)] * 40)
    assert judge_by_rewards(*clear, level=2e-5).kept
    verdict = judge_by_rewards(*clear, level=1e-9)
    assert not verdict.kept and "> level 1e-09" in verdict.reason
    assert too_few_to_tell(*clear, level=1e-9)


# --- what a verdict says is true of its numbers ------------------------------------------------------------

MARKS = st.sampled_from((0.0, 0.49, 0.5, 1.0))
CHANGES = st.lists(st.tuples(st.tuples(MARKS, MARKS), st.tuples(MARKS, MARKS)), min_size=1, max_size=12)


@given(CHANGES, st.sampled_from((0.1, 0.01)), st.booleans())
def test_its_words_are_those_of_its_numbers(
    changes: list[tuple[tuple[float, float], tuple[float, float]]], level: float, simpler: bool
) -> None:
    before, after = (evaluation(*side) for side in zip(*changes, strict=True))
    verdict = judge_by_rewards(before, after, level, simpler)
    rows = list(zip(before.scores, after.scores, strict=True))
    same = all(abs(a.reward - b.reward) < 1e-9 and abs(a.merit - b.merit) < 1e-9 for a, b in rows)
    assert ("no row's reward or merit differs" in verdict.reason) == same
    assert ("it fell" in verdict.reason) == (verdict.gain < -1e-9)
    assert ("within chance" in verdict.reason) <= (verdict.p_value > level and not verdict.kept)
    assert ("no rise" in verdict.reason) <= (verdict.gain <= 1e-9 and verdict.merit_gain <= 1e-9)
    for name, old, new in re.findall(r"(joint reward|merit) ([\d.]+) → ([\d.]+)", verdict.reason):
        measure = "reward" if name == "joint reward" else "merit"
        real = getattr(after, measure) - getattr(before, measure)
        assert (float(new) > float(old)) == (real > 1e-9) and (float(new) < float(old)) == (real < -1e-9)


def test_content_won_and_style_lost_on_a_row_is_no_difference_of_reward_or_merit() -> None:
    verdict = judge_by_rewards(evaluation((0, 1)), evaluation((1, 0)), level=0.1)
    assert not verdict.kept and "no row's reward or merit differs" in verdict.reason

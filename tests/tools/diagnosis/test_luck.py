"""Right answers that are no knowledge: where answers are few, a guess is right often."""

import random
from statistics import fmean

import pytest

from agent.config.scorers import Contains
from agent.records.evaluation import Evaluation, ExampleScore
from agent.records.examples import Candidate, Example, Prompt
from agent.records.signal import Diagnosis, Probe, knowledge
from eval.scoring import TaskScorers
from tools.diagnosis.classify import Classifier
from tools.diagnosis.luck import NO_LUCK, Luck, beyond_luck, no_guesses, without_luck
from tools.diagnosis.needs import NeedModel, shipped_probes

SCORERS = TaskScorers([Contains(kind="contains")], [])
ROWS = [Example(name=f"validation:{n}", question=f"Is {n} so?", answer="yes" if n % 2 else "no") for n in range(12)]
FEW_ANSWERS = {"content": 0.0, "style": 0.0, "whole": 3.0, "shown_whole": 0.5, "shown_answer": 0.6}


@pytest.mark.parametrize(("known", "luck"), [(0.0, 0.5), (0.3, 0.5), (0.8, 0.25), (0.6, 0.0), (1.0, 0.9)])
def test_what_is_known_is_told_from_what_is_right(known: float, luck: float) -> None:
    draw = random.Random(0)
    rows = [draw.random() < known for _ in range(20_000)]
    right = fmean(knows or draw.random() < luck for knows in rows)
    assert knowledge(right, luck) == pytest.approx(known, abs=0.015)


def test_nothing_is_known_of_which_no_more_is_right_than_by_luck() -> None:
    assert knowledge(0.4, 0.5) == knowledge(0.5, 0.5) == knowledge(1.0, 1.0) == 0


def test_right_answers_count_as_far_as_they_are_no_guesses_and_not_at_all_where_luck_may_bring_as_many() -> None:
    assert beyond_luck([1.0] * 80 + [0.0] * 20, 0.5) == pytest.approx(0.6 / 0.8)
    assert beyond_luck([1.0] * 8 + [0.0] * 3, 0.54) == 0, "of eleven, eight and more come by luck in one draw of six"
    assert beyond_luck([1.0] * 11, 0.54) == 1
    assert beyond_luck([1.0, 0.0, 0.0], 0.0) == 1, "no luck, no guess"
    assert beyond_luck([0.0] * 5, 0.5) == 1, "where no answer is right, none is lucky"


def test_only_trial_answers_lose_their_luck_as_those_under_the_nearest_rows_have_it() -> None:
    rows = [FEW_ANSWERS | {"near_right": float(n < 9), "right": 0.5 if n < 9 else 0.0} for n in range(12)]
    found = without_luck(rows, Luck(0.4))
    known = (0.75 - 0.4) / 0.6 / 0.75
    assert [row["near_right"] for row in found] == pytest.approx([known] * 9 + [0] * 3)
    assert [row["right"] for row in found] == pytest.approx([known / 2] * 9 + [0] * 3)
    assert all(row["shown_answer"] == 0.6 for row in found)
    assert without_luck(rows, NO_LUCK) == rows and without_luck([FEW_ANSWERS], Luck(0.5)) == [FEW_ANSWERS]


def test_after_a_wrong_answer_the_other_one_of_two_is_no_knowledge() -> None:
    """Under other words a model may just say the opposite: that mends each failing row, and breaks the others."""
    opposite = [FEW_ANSWERS | {"style": 1.0, "near_right": 1.0}] * 12
    two, four = Luck(0.5, has_form=True), Luck(0.25, has_form=True)
    assert (two.of(opposite[0]), four.of(opposite[0])) == (1, pytest.approx(1 / 3))
    assert Luck(1.0, has_form=True).of(opposite[0]) == 1 and NO_LUCK.of(opposite[0]) == 0
    assert no_guesses(opposite, two) == [0] * 12
    unanswered = [FEW_ANSWERS | {"near_right": 1.0}] * 12
    assert no_guesses([*opposite, *unanswered], two) == [0] * 12 + [1] * 12, "each kind for itself"
    assert no_guesses(opposite, four) == [1] * 12
    assert no_guesses(opposite, Luck(0.5)) == [1] * 12, "where no form is asked, nothing says that an answer was given"


def diagnosed(near: int, luck: float, probes: list[Probe] | None = None) -> Diagnosis:
    """Twelve wrong rows, of which so many are right under the nearest rows."""
    known = {
        row.name: FEW_ANSWERS | {"near_right": float(n < near), "right": float(n < near)} for n, row in enumerate(ROWS)
    }
    scores = tuple(ExampleScore(example=row.name, output="", content=0, style=0) for row in ROWS)
    evaluation = Evaluation(candidate=Candidate(prompt="0" * 12), split="validation", scores=scores)
    classifier = Classifier(None, SCORERS, (), probes=probes, luck=Luck(luck))  # type: ignore[arg-type]  # asks no model
    return classifier.diagnose(evaluation, ROWS, Prompt(), 0, known=known)


def test_half_right_of_two_answers_is_no_sign_that_words_help() -> None:
    assert diagnosed(6, luck=0.0).words_chance > 0.5
    found = diagnosed(6, luck=0.5)
    assert found.by == "model" and found.words_chance < 0.4 and found.share("content") > 0.6
    assert found.examples[0].features["right"] in (0, 1), "what was seen is recorded, as it was"
    assert diagnosed(12, luck=0.5).words_chance == pytest.approx(diagnosed(12, luck=0.0).words_chance)


def test_the_rules_do_not_take_a_likely_answer_of_few_for_a_known_one() -> None:
    assert diagnosed(6, luck=0.0, probes=[]).share("content") == 0
    lucky = diagnosed(6, luck=0.5, probes=[])
    assert lucky.by == "rules" and lucky.share("content") == 1
    assert diagnosed(0, luck=0.5, probes=[]).share("content") == 1, "none right is no knowledge either"
    known = diagnosed(11, luck=0.5, probes=[])
    assert known.share("content") == 0 and len([row for row in known.examples if row.features]) == 12, (
        "four cannot tell"
    )


def test_a_right_answer_in_the_wrong_form_may_be_a_guess_too() -> None:
    """Half of the rows are right, but not in the wanted form: with two answers, that says nothing."""
    scores = tuple(ExampleScore(example=row.name, output="", content=n % 2, style=0) for n, row in enumerate(ROWS))
    evaluation = Evaluation(candidate=Candidate(prompt="0" * 12), split="validation", scores=scores)
    known = {row.name: FEW_ANSWERS | {"near_right": 0.0, "right": 0.0} for row in ROWS}
    found = [
        Classifier(None, SCORERS, (), luck=Luck(luck)).diagnose(evaluation, ROWS, Prompt(), 0, known=known)  # type: ignore[arg-type]
        for luck in (0.0, 0.5)
    ]
    assert found[0].expected("style") >= 0.5 and found[1].share("content") > 0.8


def test_what_an_edit_mended_by_luck_teaches_little() -> None:
    unknown = FEW_ANSWERS | {"near_right": 0.0, "right": 0.0}

    def chance(luck: float) -> float:
        own = [
            Probe(task="t", model="m", pair="p", example=row.name, features=unknown, rules="both", words=n % 2 == 0,
                  own=True, luck=luck)
            for n, row in enumerate(ROWS)
        ]  # fmt: skip
        return NeedModel([*shipped_probes(), *own]).chances(unknown)["style"]

    assert chance(0.5) < chance(0.0) - 0.05

"""What an edited text gives away of train and validation rows, and what it may say."""

import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.records.examples import Example
from eval.leaks import RUN, Leaks


def rows(pairs: Sequence[tuple[str, str]], split: str = "train") -> list[Example]:
    return [
        Example(name=f"{split}:{n}", question=question, answer=answer) for n, (question, answer) in enumerate(pairs, 1)
    ]


TRAIN = rows(
    [
        ("Who is the mayor of Orrowmere?", "Heskzan"),
        ("Orrowmere: its mayor?", "Heskzan"),
        ("When was the old bridge over the river near Tallisk built by its people?", "1,687"),
        ("How many boats are there?", "8"),
        ("How many feet has the wall?", "500"),
        ("Natalia sold clips to 48 friends.", "She sold 48 / 2 = 24 in May.\n#### 1,234"),
    ]
)
VALIDATION = rows([("Which bread is baked in Benn, and by whom?", "Jorholm loaf"), ("Is it?", "no")], "validation")
LEAKS = Leaks(TRAIN, VALIDATION)
LABELS = Leaks(
    rows([(f"Is {n} a prime number, or not at all so?", "True" if n % 3 else "Untrue") for n in range(9)]), []
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The mayor is heskzan.", 'it gives away the answer of train:1: "heskzan"'),
        ("In 1687 it was built.", 'it gives away the answer of train:3: "1687"'),
        ("Say 1234.", 'it gives away the answer of train:6: "1234"'),
        ("Bread? JORHOLM  Loaf!", 'it gives away the answer of validation:1: "jorholm loaf"'),
        (
            "Such as: who is the mayor of Orrowmere",
            'it gives away the question of train:1: "who is the mayor of orrowmere"',
        ),
        (
            "If asked for the old bridge over the river near Tallisk, think.",
            'it gives away a part of train:3: "the old bridge over the river near tallisk"',
        ),
    ],
)
def test_what_gives_a_row_away_is_found_and_named(text: str, found: str) -> None:
    assert LEAKS.found(text, "Answer the question.") == found


@pytest.mark.parametrize(
    "text",
    [
        "Answer the question in at most 8 words, and no more than 500 letters.",
        "Heskzans are people.",  # not as a whole word
        "Who is the mayor, and when was the old bridge over the water built?",
        "A loaf from Jorholm.",
        "",
    ],
)
def test_what_anybody_might_say_is_not(text: str) -> None:
    assert LEAKS.found(text, "") is None


def test_what_was_said_before_is_not_given_away_by_saying_it_again() -> None:
    before = "Heskzan rules. Who is the mayor of Orrowmere?"
    assert LEAKS.found(f"Answer. {before}", before) is None
    assert LEAKS.found(f"{before} In 1687.", before) is not None


def test_labels_and_set_phrases_that_many_rows_share_may_be_named() -> None:
    assert LABELS.found("Say True or Untrue. Is it a prime number, or not at all so?", "") is None
    assert LABELS.found("5 a prime number, or not at all so", "") is not None


def test_what_all_answers_say_gives_none_of_them_away() -> None:
    working = "So the number that was to be found in the end is"
    worked = rows([(f"What is {n} and one?", f"{working} {n + 1}.\n#### {n + 1}") for n in range(9)])
    assert Leaks(worked, []).found(f"End with: {working}", "") is None
    assert Leaks(worked[:1], []).found(f"End with: {working}", "") is not None


def test_an_answer_that_stands_in_many_questions_may_be_named() -> None:
    colours = rows([(f"Is thing {n} red or blue?", "red" if n == 1 else f"shade{n}") for n in range(9)])
    assert Leaks(colours, []).found("Name a colour, such as red.", "") is None
    assert Leaks(colours, []).found("Name a colour, such as shade4.", "") is not None


def test_a_quote_is_cut() -> None:
    long = " ".join(f"antidisestablishmentarianism{letter}" for letter in "abcdefghij")
    found = Leaks(rows([(long, "4")]), []).found(long, "")
    assert found is not None and len(found) < 130 and found.endswith('…"')


WORDS = st.sampled_from(
    ["red", "green", "Heskzan", "1687", "8", "of", "the", "a", "what", "who,", "(A)", "12.5", "ß", "é"]
)
TEXTS = st.lists(WORDS, max_size=14).map(" ".join)
PAIRS = st.lists(st.tuples(TEXTS, TEXTS), max_size=6)


@given(PAIRS, TEXTS)
def test_nothing_is_given_away_by_what_stood_there(pairs: list[tuple[str, str]], text: str) -> None:
    assert Leaks(rows(pairs), []).found(text, f"More of it: {text}") is None


@given(PAIRS, st.lists(WORDS, max_size=5))
def test_other_words_give_nothing_away(pairs: list[tuple[str, str]], words: list[str]) -> None:
    assert Leaks(rows(pairs), []).found(" ".join(f"x{word}" for word in words), "") is None


@given(PAIRS, st.integers(0, 20), TEXTS, TEXTS)
def test_eight_words_of_a_question_are_found_wherever_they_stand(
    others: list[tuple[str, str]], start: int, before: str, after: str
) -> None:
    own = [f"word{n}" for n in range(30)]
    leaks = Leaks(rows(others), rows([(" ".join(own), "")], "validation"))
    stretch = " ".join(own[start : start + RUN]).upper()
    found = leaks.found(f"{before} {stretch}, {after}", f"{before} {after}")
    assert found == f'it gives away a part of validation:1: "{stretch.lower()}"'


@given(PAIRS, TEXTS)
def test_the_same_rows_and_text_are_always_judged_the_same(pairs: list[tuple[str, str]], text: str) -> None:
    assert Leaks(rows(pairs), []).found(text, "") == Leaks(rows(pairs), []).found(text, "")


def test_fifty_thousand_rows_are_looked_up_in_no_time() -> None:
    many = rows(
        [(f"What is kept in box {n} of row {n // 7}, and who has the key to it?", f"Thing{n}") for n in range(50_000)]
    )
    leaks = Leaks(many, [])
    text = " ".join(f"say{n} what is in box {n} of" for n in range(1000))
    began = time.monotonic()
    assert leaks.found(text, "") is None
    assert time.monotonic() - began < 0.5
    assert leaks.found(f"{text} Thing777", "") == 'it gives away the answer of train:778: "thing777"'

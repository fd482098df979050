"""Few-shot examples that are retrieved: which rows, for whom, in which order."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from string import ascii_lowercase

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.scorers import Contains, StartsWith, Words
from agent.records.base import folded
from agent.records.examples import Demo, Example, Prompt, Retrieval, Turn
from eval.scoring import TaskScorers
from memory.embedder import MiniLm
from memory.retrieval import NearestRows, with_retrieved

SCORERS = TaskScorers([Contains(kind="contains")], [StartsWith(kind="starts_with", text="ANSWER: ")])
MAYORS = {"Orrowmere": "Heskzan", "Tallisk": "Gallune", "Benn": "Corolt"}
WORDINGS = ("Who is the mayor of {}?", "Which person governs {}?")
TRAIN = [
    Example(name=f"train:{number}", question=wording.format(town), answer=mayor)
    for number, (wording, (town, mayor)) in enumerate(
        ((wording, pair) for wording in WORDINGS for pair in MAYORS.items()), 1
    )
]


def by_letters(texts: Sequence[str]) -> list[list[float]]:
    """Texts with the same letters are near."""
    counts = [[Counter(text.lower())[letter] + 0.01 for letter in ascii_lowercase] for text in texts]
    return [(np.array(row) / np.linalg.norm(row)).tolist() for row in counts]


def asking(question: str, name: str = "validation:1", answer: str = "?") -> Example:
    return Example(name=name, question=question, answer=answer)


def retrieved(
    example: Example, k: int = 2, floor: float = 0.0, demos: tuple[Demo, ...] = (), train: Sequence[Example] = TRAIN
) -> list[str]:
    """The questions of its few-shot examples, in order."""
    prompt = Prompt(demos=demos, retrieval=Retrieval(k=k, floor=floor))
    bare, [resolved] = NearestRows(train, SCORERS, by_letters).resolved(prompt, [example])
    assert bare == Prompt(demos=demos)
    assert resolved.model_copy(update={"demos": ()}) == example
    return [demo.question for demo in resolved.demos]


def cosine(one: str, other: str) -> float:
    return float(np.dot(*by_letters([one, other])))


# --- which rows ----------------------------------------------------------------------------------


def test_the_rows_nearest_in_meaning_are_shown_in_the_wanted_form_the_nearest_last() -> None:
    nearest = NearestRows(TRAIN, SCORERS, MiniLm())
    prompt = Prompt(retrieval=Retrieval(k=2))
    _, rows = nearest.resolved(prompt, [asking(f"Name the mayor of {town}.") for town in MAYORS])
    for row, (town, mayor) in zip(rows, MAYORS.items(), strict=True):
        assert row.demos[-1].question == WORDINGS[0].format(town)
        assert {demo.answer for demo in row.demos} == {f"ANSWER: {mayor}"}


def test_what_is_kept_of_questions_does_not_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memory.retrieval.KEPT", 5)
    rows, prompt = NearestRows(TRAIN, SCORERS, by_letters), Prompt(retrieval=Retrieval(k=2))
    for number in range(40):
        examples = [asking(f"{'ab' * number} {town}?") for town in MAYORS]
        _, resolved = rows.resolved(prompt, examples)
        assert [[demo.question for demo in row.demos] for row in resolved] == [retrieved(row) for row in examples]
    assert len(rows._known) <= len(TRAIN) + 5 + len(MAYORS)


def test_a_prompt_that_retrieves_nothing_stays_as_it_is_and_nothing_is_embedded() -> None:
    def embed(_: Sequence[str]) -> list[list[float]]:
        raise AssertionError("something was embedded")

    assert NearestRows(TRAIN, SCORERS, embed).resolved(Prompt(), TRAIN) == (Prompt(), TRAIN)


def test_what_cannot_be_shown_is_not_retrieved() -> None:
    talk = TRAIN[0].model_copy(update={"turns": (Turn(role="user", content="Before"),)})
    own = TRAIN[1].model_copy(update={"system": "Be brief."})
    shown = retrieved(asking("Who governs?"), k=9, train=[talk, own, *TRAIN[2:]])
    assert set(shown) == {row.question for row in TRAIN[2:]}
    brief = TaskScorers([Contains(kind="contains")], [Words(kind="words", most=1)])
    wordy = [row.model_copy(update={"answer": "far too many words"}) for row in TRAIN]
    prompt = Prompt(retrieval=Retrieval(k=4))
    [row] = NearestRows(wordy, brief, by_letters).resolved(prompt, [asking("Who?")])[1]
    assert row.demos == ()


def test_of_rows_that_ask_the_same_the_first_is_shown() -> None:
    same = [row.model_copy(update={"name": f"train:{n}", "answer": f"Name{n}"}) for n, row in enumerate(TRAIN[:1] * 3)]
    prompt = Prompt(retrieval=Retrieval(k=3))
    [row] = NearestRows(same, SCORERS, by_letters).resolved(prompt, [asking("Who is it?")])[1]
    assert [demo.answer for demo in row.demos] == ["ANSWER: Name0"]


def test_what_the_prompt_demonstrates_is_not_shown_twice() -> None:
    question = "Who is the mayor of Benn now?"
    first = retrieved(asking(question), k=1)[0]
    shown = Demo(question=f" {first.upper()}", answer="ANSWER: Corolt")
    assert first not in retrieved(asking(question), k=9, demos=(shown,))


def test_rows_that_are_equally_near_come_in_their_order() -> None:
    train = [asking(text, name=f"train:{n}") for n, text in enumerate(("ab", "ba", "a b", "b a"), 1)]
    assert retrieved(asking("abab"), k=3, train=train) == ["a b", "ba", "ab"]


# --- never itself --------------------------------------------------------------------------------

ROWS = st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=12).map(
    lambda texts: [asking(text, f"train:{n}", answer=f"name{n}") for n, text in enumerate(texts, 1)]
)


@given(ROWS, st.integers(1, 16), st.floats(0, 1))
def test_no_row_is_shown_itself_or_one_that_asks_the_same(train: list[Example], k: int, floor: float) -> None:
    prompt = Prompt(retrieval=Retrieval(k=k, floor=floor))
    _, rows = NearestRows(train, SCORERS, by_letters).resolved(prompt, train)
    for row in rows:
        questions = [folded(demo.question) for demo in row.demos]
        assert folded(row.question) not in questions and len(set(questions)) == len(questions) <= k
        near = [cosine(row.question, demo.question) for demo in row.demos]
        assert all(value >= floor - 1e-4 for value in near)
        assert all(earlier <= later + 1e-4 for earlier, later in pairwise(near)), "the nearest last"


@given(ROWS, st.integers(1, 16))
def test_no_row_that_is_left_out_is_nearer_than_one_that_is_shown(train: list[Example], k: int) -> None:
    asked = asking("abcc")
    shown = retrieved(asked, k=k, train=train)
    others = {row.question for row in train} - {*shown, "abcc"}
    assert len(shown) == k or not {folded(other) for other in others} - {folded(text) for text in shown}
    if shown and others:
        farthest = min(cosine(asked.question, text) for text in shown)
        assert all(
            cosine(asked.question, other) <= farthest + 1e-4
            for other in others
            if folded(other) not in map(folded, shown)
        )


def test_a_train_row_in_other_words_is_not_shown_itself_either() -> None:
    question, name = TRAIN[0].question, TRAIN[0].name
    assert question not in retrieved(asking("Whose town is Orrowmere?", name=name), k=9)
    again = [*TRAIN, TRAIN[0].model_copy(update={"name": "train:99"})]
    assert question not in retrieved(asking("Whose town is Orrowmere?", name="train:99"), k=9, train=again)


def test_a_held_out_row_is_not_shown_the_train_row_that_asks_the_same_but_a_user_is() -> None:
    question = TRAIN[0].question.upper()
    assert TRAIN[0].question not in retrieved(asking(question), k=9)
    assert retrieved(asking(question, name="chat:1", answer=""), k=9)[-1] == TRAIN[0].question


# --- the same everywhere -------------------------------------------------------------------------


def test_texts_are_embedded_once_and_the_same_rows_are_found_in_whichever_batch() -> None:
    embedded: list[str] = []

    def embed(texts: Sequence[str]) -> list[list[float]]:
        embedded.extend(texts)
        return by_letters(texts)

    nearest, prompt = NearestRows(TRAIN, SCORERS, embed), Prompt(retrieval=Retrieval(k=3))
    asked = [*TRAIN, *(asking(f"Where is {town}?") for town in MAYORS)]
    together = nearest.resolved(prompt, asked)[1]
    assert [nearest.resolved(prompt, [row])[1][0] for row in asked] == together
    assert len(embedded) == len(set(embedded)) == len(TRAIN) + len(MAYORS)


def test_thousands_of_rows_are_searched_in_batches() -> None:
    train = [asking(f"{n:b}".replace("0", "a").replace("1", "b"), name=f"train:{n}") for n in range(1, 3000)]
    _, rows = NearestRows(train, SCORERS, by_letters).resolved(Prompt(retrieval=Retrieval(k=4)), train)
    assert [row.name for row in rows] == [row.name for row in train]
    assert all(len(row.demos) == 4 for row in rows)


def test_training_rows_keep_their_order_and_only_those_of_a_retrieving_prompt_are_shown_others() -> None:
    plain, retrieving = Prompt(system="Answer."), Prompt(system="Answer.", retrieval=Retrieval(k=1))
    rows = [(retrieving if number % 2 else plain, row) for number, row in enumerate(TRAIN)]
    resolved = with_retrieved(rows, NearestRows(TRAIN, SCORERS, by_letters))
    assert [row.name for _, row in resolved] == [row.name for row in TRAIN]
    assert {prompt for prompt, _ in resolved} == {plain}
    assert [len(row.demos) for _, row in resolved] == [number % 2 for number in range(len(TRAIN))]


@pytest.mark.parametrize("train", [[], [asking("Who?", name="train:1", answer="far too many words to show")]])
def test_without_a_row_to_show_a_question_stands_alone(train: list[Example]) -> None:
    brief = TaskScorers([Contains(kind="contains")], [Words(kind="words", most=2)])
    _, [row] = NearestRows(train, brief, by_letters).resolved(Prompt(retrieval=Retrieval(k=4)), [asking("Who?")])
    assert row.demos == ()

"""Refined rows: which examples become them, what they say, and which rows the trainer gets."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.records import Demo, Example, Prompt, Rows, Turn
from memory.remake import remake, select, table


class Form:
    """Wants `ANSWER: <answer>`, and holds no answer longer than eight letters for right."""

    def show(self, answer: str) -> str:
        return f"ANSWER: {answer}"

    def passes(self, output: str, example: Example) -> bool:
        return output == f"ANSWER: {example.answer}" and len(example.answer) <= 8

    def faults(self, output: str) -> tuple[str, ...]:
        return () if output.startswith("ANSWER: ") else ("begin with ANSWER:",)

    def instructions(self, output: str | None = None) -> tuple[str, ...]:
        return ("Begin with ANSWER:",)


class AsGiven(Form):
    """Wants nothing else than the answer."""

    def show(self, answer: str) -> str:
        return answer

    def passes(self, output: str, example: Example) -> bool:
        return True


PROMPT = Prompt(system="Answer.", demos=(Demo(question="Who bakes?", answer="ANSWER: Ada"),))


def example(line: int, question: str, answer: str, *turns: Turn) -> Example:
    return Example(name=f"train:{line}", question=question, answer=answer, turns=turns)


TRAIN = [
    example(1, "Who bakes?", "Ada"),
    example(2, "Who mends?", "Bo"),
    example(3, "Who sings?", "somebody unknown"),
    example(4, "Who mends?", "Bo"),
]


def test_rows_are_remade_in_the_wanted_form_without_the_demonstrated() -> None:
    remade = remake(TRAIN, PROMPT, Form())
    assert remade.rows.to_list() == [
        {"question": "Who mends?", "answer": "ANSWER: Bo", "source": "train:2", "prompt": PROMPT.id, "turns": []}
    ]
    assert (remade.given, remade.refused, remade.duplicates) == (3, 1, 1)


def test_the_same_question_after_other_turns_is_another_row() -> None:
    turn = Turn(role="user", content="We speak of the mill.")
    train = [example(1, "Who mends?", "Bo"), example(2, "Who mends?", "Bo", turn)]
    remade = remake(train, PROMPT, Form())
    assert remade.duplicates == 0
    assert [row.turns for row in select(train, remade, "refined")] == [(), (turn,)]


def test_the_trainer_gets_the_rows_it_asks_for() -> None:
    remade = remake(TRAIN, PROMPT, Form())

    def chosen(rows: Rows) -> list[tuple[str, str, str | None]]:
        return [(row.source, row.answer, row.prompt) for row in select(TRAIN, remade, rows)]

    original = [(row.name, row.answer, None) for row in TRAIN]
    refined = [("train:2", "ANSWER: Bo", PROMPT.id)]
    assert chosen("original") == original
    assert chosen("refined") == refined
    assert chosen("both") == original + refined


def test_a_refined_row_that_says_what_the_original_says_stands_once() -> None:
    train = TRAIN[:3]
    rows = select(train, remake(train, PROMPT, AsGiven()), "both")
    assert [(row.source, row.prompt) for row in rows] == [(row.name, None) for row in train]


def test_original_rows_need_no_remade_ones_but_refined_do() -> None:
    assert len(select(TRAIN, None, "original")) == 4
    with pytest.raises(ValueError, match="remake"):
        select(TRAIN, None, "refined")


@pytest.mark.parametrize("name", ["validation:1", "test:7", "training:1", ""])
def test_rows_of_another_split_are_refused(name: str) -> None:
    stranger = Example(name=name, question="q", answer="a")
    with pytest.raises(ValueError, match="only train rows"):
        remake([*TRAIN, stranger], PROMPT, Form())
    with pytest.raises(ValueError, match="only train rows"):
        select([stranger], None, "original")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["Who bakes?", "a", "b"]), st.sampled_from(["x", "y", "far too long"]))))
def test_every_example_is_accounted_for_once(pairs: list[tuple[str, str]]) -> None:
    train = [example(line, question, answer) for line, (question, answer) in enumerate(pairs, 1)]
    remade = remake(train, PROMPT, Form())
    assert remade.given == sum(question != "Who bakes?" for question, _ in pairs)
    assert len(remade.rows) + remade.refused + remade.duplicates == remade.given
    wanted = {
        (question, f"ANSWER: {answer}") for question, answer in pairs if question != "Who bakes?" and len(answer) < 8
    }
    assert {(row["question"], row["answer"]) for row in remade.rows} == wanted


def test_a_table_has_its_columns_even_when_it_is_empty() -> None:
    assert table([]).column_names == ["question", "answer", "source", "prompt", "turns"]
    assert table(select(TRAIN, None, "original"))[1]["answer"] == "Bo"

"""Refined rows and reworded questions: what becomes one, what it says, and which rows the trainer gets."""

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.records.actions import Rows
from agent.records.edits import Rewrite
from agent.records.evaluation import ExampleScore
from agent.records.examples import Demo, Example, Prompt, Turn
from memory.remake import remake, select, source_of
from memory.rewriting import try_rewrites


class Form:
    """Wants `ANSWER: <answer>`, and holds no answer longer than eight letters for right."""

    def show(self, answer: str) -> str:
        return f"ANSWER: {answer}"

    def full_marks(self, output: str, example: Example) -> bool:
        return output == f"ANSWER: {example.answer}" and len(example.answer) <= 8

    def faults(self, output: str) -> tuple[str, ...]:
        return () if output.startswith("ANSWER: ") else ("begin with ANSWER:",)

    def instructions(self, output: str | None = None) -> tuple[str, ...]:
        return ("Begin with ANSWER:",)


class AsGiven(Form):
    """Wants nothing else than the answer."""

    def show(self, answer: str) -> str:
        return answer

    def full_marks(self, output: str, example: Example) -> bool:
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
    assert [row.model_dump(mode="json") for row in remade.rows] == [
        {
            "question": "Who mends?", "answer": "ANSWER: Bo", "source": "train:2", "prompt": PROMPT.id, "system": "",
            "turns": [], "rewritten": False,
        }
    ]  # fmt: skip
    assert (remade.eligible, remade.refused, remade.duplicates) == (3, 1, 1)


def test_the_same_question_after_other_turns_is_another_row() -> None:
    turn = Turn(role="user", content="We speak of the mill.")
    train = [example(1, "Who mends?", "Bo"), example(2, "Who mends?", "Bo", turn)]
    remade = remake(train, PROMPT, Form())
    assert remade.duplicates == 0
    assert [row.turns for row in select(train, remade, "refined")] == [(), (turn,)]


def test_a_system_text_of_the_rows_own_is_trained_on() -> None:
    own = example(1, "Who mends?", "Bo").model_copy(update={"system": "Be brief."})
    train = [own, example(2, "Who mends?", "Bo")]
    remade = remake(train, PROMPT, Form())
    for rows in (select(train, None, "original"), select(train, remade, "refined")):
        assert [row.example.system for row in rows] == ["Be brief.", ""]


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


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from(["Who bakes?", "a", "b"]), st.sampled_from(["x", "y", "far too long"]))))
def test_every_example_is_accounted_for_once(pairs: list[tuple[str, str]]) -> None:
    train = [example(line, question, answer) for line, (question, answer) in enumerate(pairs, 1)]
    remade = remake(train, PROMPT, Form())
    assert remade.eligible == sum(question != "Who bakes?" for question, _ in pairs)
    assert len(remade.rows) + remade.refused + remade.duplicates == remade.eligible
    wanted = {
        (question, f"ANSWER: {answer}") for question, answer in pairs if question != "Who bakes?" and len(answer) < 8
    }
    assert {(row.question, row.answer) for row in remade.rows} == wanted


# --- rewrites as rows ------------------------------------------------------------------------------


def rewrite(of: Example, question: str, answer: str) -> Rewrite:
    return Rewrite(source=source_of(of), question=question, answer=answer, prompt="0" * 12)


def test_a_source_is_the_same_row_wherever_it_stands_and_another_after_other_turns() -> None:
    turn = Turn(role="user", content="We speak of the mill.")
    row = example(1, "Who mends?", "Bo", turn)
    assert source_of(row) == source_of(row.model_copy(update={"name": "train:9"}))
    others = [
        example(1, "Who mends?", "Bo"),
        example(1, "Who mends it?", "Bo", turn),
        example(1, "Who mends?", "B", turn),
    ]
    assert len({source_of(other) for other in (row, *others)}) == 4


def test_a_kept_rewrite_becomes_one_more_refined_row() -> None:
    """The one of a row whose own reference does not pass too: the model's answer to the rewrite did."""
    kept = [
        rewrite(TRAIN[1], "Who repairs things?", "ANSWER: It is Bo"),
        rewrite(TRAIN[2], "Who gives concerts?", "ANSWER: somebody unknown"),
        rewrite(TRAIN[1], "Who repairs things?", "ANSWER: It is Bo"),
        rewrite(TRAIN[0], "Who makes bread?", "ANSWER: Ada"),  # demonstrated, like its source
        rewrite(TRAIN[1], "Who bakes?", "ANSWER: Bo"),  # demonstrated in these words
        rewrite(example(9, "Who swims?", "Cy"), "Who likes water?", "ANSWER: Cy"),
    ]
    remade = remake(TRAIN, PROMPT, Form(), kept)
    # Of rows with the same content, the last one lends its name.
    new = [
        ("train:4", "Who repairs things?", "ANSWER: It is Bo", PROMPT.id),
        ("train:3", "Who gives concerts?", "ANSWER: somebody unknown", PROMPT.id),
    ]
    refined = select(TRAIN, remade, "refined")
    assert [(r.source, r.question, r.answer, r.prompt) for r in refined if r.rewritten] == new
    assert [row.question for row in refined if not row.rewritten] == ["Who mends?"]
    assert (remade.eligible, remade.refused, remade.duplicates, remade.rewritten) == (6, 1, 2, 2)
    assert len(select(TRAIN, remade, "both")) == len(TRAIN) + 3
    assert not any(row.rewritten for row in select(TRAIN, remade, "original"))


def test_a_row_is_trained_on_in_its_rewritten_words_after_its_own_turns() -> None:
    turn = Turn(role="user", content="We speak of the mill.")
    train = [example(1, "Who mends?", "Bo", turn)]
    kept = [rewrite(train[0], "Who repairs it?", "ANSWER: Bo")]
    [_, row] = select(train, remake(train, PROMPT, Form(), kept), "refined")
    assert row.example == example(1, "Who repairs it?", "ANSWER: Bo", turn)


# --- rewriting hard questions ----------------------------------------------------------------------


class Model:
    """Answers what it knows, rightly and in form, and counts what it and the editor were asked."""

    def __init__(self, knows: Mapping[str, str], rewrites: Mapping[str, str]) -> None:
        self.knows = knows
        self.rewrites = rewrites
        self.answered: list[Example] = []
        self.asked: list[str] = []

    def ask(self, pairs: Sequence[tuple[Example, ExampleScore]]) -> dict[str, str]:
        self.asked += [example.name for example, _ in pairs]
        return {example.name: self.rewrites[example.name] for example, _ in pairs if example.name in self.rewrites}

    def answer(self, examples: Sequence[Example]) -> list[str]:
        self.answered += examples
        return [self.knows.get(example.question, "no idea") for example in examples]


def score(example: Example, output: str) -> ExampleScore:
    style = float(output.startswith("ANSWER: "))
    return ExampleScore(example=example.name, output=output, content=float(example.answer in output), style=style)


def score_all(answered: Sequence[tuple[Example, str]]) -> list[ExampleScore]:
    return [score(example, output) for example, output in answered]


HARD = [(row, score(row, "ANSWER: Ada")) for row in (example(5, "Who mends?", "Bo"), example(6, "Who sings?", "Cy"))]


def reworded(model: Model, recalled: Sequence[Rewrite] = (), taken: Sequence[str] = ()) -> tuple[list[Rewrite], object]:
    kept, told = try_rewrites(HARD, recalled, model.ask, model.answer, score_all, prompt="0" * 12, taken=taken)
    return kept, (told.asked, told.tried, told.kept, told.recalled, told.before, told.after)


def test_kept_are_the_rewrites_that_the_model_answers_with_full_marks() -> None:
    model = Model(
        {"Who repairs?": "ANSWER: Bo", "Whose are the songs?": "It is Cy"},
        {"train:5": " Who repairs?\n", "train:6": "Whose are the songs?"},
    )
    assert reworded(model) == ([rewrite(HARD[0][0], "Who repairs?", "ANSWER: Bo")], (2, 2, 1, 0, 0.0, 0.5))
    assert model.answered == [
        row.model_copy(update={"question": question})
        for (row, _), question in zip(HARD, ["Who repairs?", "Whose are the songs?"], strict=True)
    ]


def test_what_memory_knows_is_not_asked_for_again_but_measured_again() -> None:
    model = Model({"Who repairs?": "ANSWER: Bo, today", "Who is loud?": "ANSWER: Cy"}, {"train:6": "Who is loud?"})
    known = rewrite(HARD[0][0], "Who repairs?", "ANSWER: Bo, earlier")
    kept, told = reworded(model, [known])
    assert model.asked == ["train:6"]
    assert [row.answer for row in kept] == ["ANSWER: Bo, today", "ANSWER: Cy"]
    assert told == (2, 2, 2, 1, 0.0, 1.0)

    forgetful = Model({}, {})
    both = [known, rewrite(HARD[1][0], "Who is loud?", "ANSWER: Cy")]
    assert reworded(forgetful, both) == ([], (2, 2, 0, 0, 0.0, 0.0))
    assert forgetful.asked == [] and len(forgetful.answered) == 2


@pytest.mark.parametrize(
    "useless",
    [
        None, "", " \n", "who  MENDS?", "Who sings?", "Who is named in the test?", "Who mends, if it is not bo?",
    ],
)  # fmt: skip
def test_a_rewrite_that_says_nothing_new_or_the_answer_is_not_even_tried(useless: str | None) -> None:
    model = Model({useless or "": "ANSWER: Bo"}, {} if useless is None else {"train:5": useless})
    assert reworded(model, taken=["who is named in  the Test?"]) == ([], (2, 0, 0, 0, 0.0, 0.0))
    assert model.answered == []


def test_two_questions_do_not_become_the_same_one() -> None:
    model = Model({"Who?": "ANSWER: Bo and Cy"}, {"train:5": "Who?", "train:6": "WHO?"})
    kept, _ = reworded(model)
    assert [row.source for row in kept] == [source_of(HARD[0][0])]


def test_the_result_of_a_worked_answer_is_not_given_away_but_may_stand_where_it_stood_before() -> None:
    worked = Example(
        name="train:1", question="There are 12 bees. 3 fly off. How many stay?", answer="12 - 3 = 9\n#### 9"
    )
    stay = Example(name="train:2", question="Of 9 bees none leaves. How many stay?", answer="All.\n#### 9")
    model = Model({"Are 9 left?": "ANSWER: 12 - 3 = 9\n#### 9", "9, less none?": "ANSWER: All.\n#### 9"}, {})
    model.rewrites = {"train:1": "Are 9 left?", "train:2": "9, less none?"}
    hard = [(row, score(row, "")) for row in (worked, stay)]
    kept, _ = try_rewrites(hard, [], model.ask, model.answer, score_all, prompt="0" * 12)
    assert [row.question for row in kept] == ["9, less none?"]


def test_without_hard_questions_nobody_is_asked() -> None:
    model = Model({}, {})
    kept, told = try_rewrites([], [], model.ask, model.answer, score_all, prompt="0" * 12)
    assert (kept, told.asked, told.before, told.after, model.asked) == ([], 0, 0.0, 0.0, [])

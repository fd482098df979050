"""The tasks that ask which lever is right when, and those to practise on, are what they say they are."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.records.base import folded
from agent.records.examples import Example
from eval.commonest import commonest_answer
from eval.tasks.task import Task, load_task
from tasks.decide import generate as decide
from tasks.known import generate as known
from tasks.practice import generate as practice
from tasks.rows import SPLITS, Rows, lines

TASKS = Path(__file__).parents[2] / "tasks"
GENERATORS = {"decide": decide, "known": known, "practice": practice}
WRITTEN = ["office/queues", "office/orders"]  # by hand
MADE = {f"{group}/{name}": rows for group, made in GENERATORS.items() for name, rows in made.tasks().items()}
# What the training answers do not show, and words or refined rows must bring.
FORM_UNSEEN = ["decide/style", "decide/facts-style", "decide/conflict", "decide/scarce"]
FORM_UNSEEN += ["known/told", "known/mislabelled", "known/half"]
FORM_UNSEEN += ["practice/masters", "practice/hops", "practice/opposites", "practice/last"]


def load(name: str) -> Task:
    return load_task(TASKS / name)


def rows_of(task: Task) -> tuple[Example, ...]:
    return (*task.train, *task.validation, *task.test)


def pairs(group: str) -> Iterator[tuple[str, str]]:
    for name, rows in MADE.items():
        if name.startswith(group):
            yield from (pair for split in SPLITS for pair in rows[split])


def test_every_task_that_is_not_written_by_hand_has_its_generator() -> None:
    assert {str(file.parent.relative_to(TASKS)) for file in TASKS.glob("*/*/task.yaml")} == {*MADE, *WRITTEN}


@pytest.mark.parametrize(("name", "rows"), MADE.items(), ids=MADE)
def test_the_committed_rows_are_those_the_generator_makes(name: str, rows: Rows) -> None:
    for split in SPLITS:
        assert (TASKS / name / f"{split}.jsonl").read_bytes() == lines(rows[split]).encode()


@pytest.mark.parametrize("name", [*MADE, *WRITTEN])
def test_a_task_loads_and_no_question_is_in_two_places(name: str) -> None:
    task = load(name)
    assert task.config.name == name.partition("/")[2]
    assert not task.warnings
    questions = [folded(row.question) for row in rows_of(task)]
    assert len(questions) == len(set(questions))


def test_practice_shares_no_question_and_no_answer_with_what_is_decided_on() -> None:
    for place in (0, 1):
        decided, known, practised = ({folded(pair[place]) for pair in pairs(group)} for group in GENERATORS)
        assert not (decided | known) & practised


@pytest.mark.parametrize("name", FORM_UNSEEN)
def test_training_answers_do_not_show_the_form_and_can_be_put_in_it(name: str) -> None:
    task = load(name)
    assert all(task.scorers.faults(row.answer) for row in task.train)
    assert all(task.scorers.full_marks(task.scorers.show(row.answer), row) for row in task.train)


def test_training_answers_of_the_passwords_show_the_form() -> None:
    task = load("practice/passwords")
    assert all(task.scorers.full_marks(row.answer, row) for row in task.train)


def test_the_first_prompt_of_the_conflict_shows_the_form_that_its_rows_would_undo() -> None:
    task = load("decide/conflict")
    assert task.config.prompt.demos
    assert not any(task.scorers.faults(demo.answer) for demo in task.config.prompt.demos)
    assert all(task.scorers.faults(row.answer) for row in task.train)
    answers = {row.answer for row in task.validation}
    assert all(sum(name in row.answer for name in answers) == 1 for row in task.train)


@pytest.mark.parametrize("name", ["facts", "facts-style", "conflict", "scarce"])
def test_every_fact_that_is_asked_for_can_be_learned(name: str) -> None:
    task = load(f"decide/{name}")
    facts = set(decide.FACTS[name].values())
    assert len(facts) == len(decide.FACTS[name])
    for rows in (task.train, task.validation, task.test):
        assert {fact for fact in facts for row in rows if fact in row.answer} == facts


def test_the_answers_of_known_tasks_are_in_the_question() -> None:
    stated, mislabelled, half = (known.tasks()[name] for name in ("told", "mislabelled", "half"))
    assert all(answer in question for split in SPLITS for question, answer in stated[split])
    wrong = [answer not in question for question, answer in mislabelled["train"]]
    assert (sum(wrong), len(wrong)) == (12, 24)
    assert (mislabelled["validation"], mislabelled["test"]) == (stated["validation"], stated["test"])
    shares = [[answer in question for question, answer in half[split]] for split in SPLITS]
    assert [(sum(share), len(share)) for share in shares] == [(12, 28), (12, 28), (16, 32)]


@pytest.mark.parametrize("name", WRITTEN)
def test_answers_of_the_office_get_full_marks_in_the_wanted_form_in_every_split(name: str) -> None:
    task = load(name)
    assert all(task.scorers.full_marks(task.scorers.show(row.answer), row) for row in rows_of(task))


def test_no_answer_to_all_messages_gets_far_and_every_queue_is_in_every_split() -> None:
    task = load("office/queues")
    for rows in (task.train, task.validation, task.test):
        assert {row.answer for row in rows} == {"delivery", "billing", "returns", "account", "product"}
    assert commonest_answer(task, "test").reward == 15 / 60


def test_what_an_order_says_stands_in_its_mail_and_no_customer_is_in_two() -> None:
    task = load("office/orders")
    orders = [(row.question.casefold(), json.loads(row.answer)) for row in rows_of(task)]
    for mail, order in orders:
        assert list(order) == ["customer", "item", "quantity", "day", "delivery"]
        assert all(order[key].casefold() in mail for key in ("customer", "item", "day"))
    assert len({order["customer"] for _, order in orders}) == len(orders)
    assert not [row for row in task.train if task.scorers.faults(row.answer)]

"""A file of rows becomes a task: what is proposed for each kind of file, and what is said of a broken one."""

import csv
import io
import json
import random
from collections.abc import Callable, Iterable
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import BadInput
from agent.records.examples import Example
from eval.drafts.answers import propose_scoring
from eval.drafts.draft import propose
from eval.drafts.parts import asked, divide
from eval.drafts.records import DraftOptions, TaskDraft
from eval.tasks.task import load_task

PLACES = [
    f"{first}{last}"
    for first in ("Orrow", "Tal", "Benn", "Mirr", "Vost", "Quell")
    for last in ("mere", "isk", "dor", "wick", "ham")
]
NAMES = [
    f"{first}{last}"
    for first in ("Hesk", "Gall", "Cor", "Dun", "Ard", "Jor")
    for last in ("zan", "une", "olt", "el", "holm")
]
TEAMS = ["billing", "bug", "account"]
Rows = list[dict[str, Any]]


def teams(count: int = 30) -> Iterable[str]:
    return islice(cycle(TEAMS), count)


def jsonl(rows: Rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def separated(rows: Rows, separator: str = ",") -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=separator)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def pairs(question: str, answer: str, answers: Iterable[str]) -> Rows:
    return [
        {question: f"Who is the mayor of {place}?", answer: name}
        for place, name in zip(PLACES, answers, strict=True)
    ]  # fmt: skip


def chat(question: str, answer: str) -> list[dict[str, str]]:
    return [
        {"role": "system", "content": "You sort tickets."},
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    ]


CHATS = [{"messages": chat(f"Ticket of {place}", team)} for place, team in zip(PLACES, teams(), strict=True)]
SHAREGPT = [
    {
        "id": place,
        "system": "You sort tickets.",
        "conversations": [
            {"from": "human", "value": f"A ticket of {place}."},
            {"from": "gpt", "value": "Go on."},
            {"from": "human", "value": "It is about money."},
            {"from": "gpt", "value": team},
            {"from": "human", "value": "Thanks."},
        ],
    }
    for place, team in zip(PLACES, teams(), strict=True)
]
ALPACA = [
    {
        "instruction": f"Do {word} to the name." if turn % 2 else f"Do {word} to {place}.",
        "input": place if turn % 2 else "",
        "output": f"{place}, {word} and done",
    }
    for word in ("this", "that")
    for turn, place in enumerate(PLACES)
]
ONE_INSTRUCTION = [
    {"instruction": "Give the mayor of the place.", "input": place, "output": name}
    for place, name in zip(PLACES, NAMES, strict=True)
]
TICKETS = [
    {
        "id": str(number),
        "subject": f"About {place}",
        "body": f"Dear all, {place} writes.",
        "queue": json.dumps({"team": team, "product": "app"}),
    }
    for number, (place, team) in enumerate(zip(PLACES, teams(), strict=True), start=1)
]
LETTERS = [
    {"prompt": f"Which is right of {place}? (A) x (B) y", "label": f"({'AB'[n % 2]})"} for n, place in enumerate(PLACES)
]
SUMS = [{"problem": f"What is {n} and {n}?", "solution": f"{n} + {n} = {2 * n}\n#### {2 * n}"} for n in range(30)]
MMLU = [
    {"question": f"What is {place}?", "choices": ["a town", "a river", "a king"], "answer": n % 3, "subject": "x"}
    for n, place in enumerate(PLACES)
]
ARC = [
    {
        "id": place,
        "question": f"What is {place}?",
        "choices": {"text": ["a town", "a river"], "label": ["1", "2"]},
        "answerKey": "12"[n % 2],
    }
    for n, place in enumerate(PLACES)
]
SQUAD = [
    {
        "context": f"{place} is governed by {name}.",
        "question": f"Who governs {place}?",
        "answers": {"text": [name, f"the {name}"], "answer_start": [0, 0]},
    }
    for place, name in zip(PLACES, NAMES, strict=True)
]
MAIL = [
    {"von": f"{place}@example.org", "inhalt": f"Wo bleibt meine Bestellung aus {place}?", "rang": "ABC"[n % 3] * 2,
     "created_at": f"2024-01-{n + 1:02}"}
    for n, place in enumerate(PLACES)
]  # fmt: skip
SENTIMENT = [{"text": f"The film {place} was long.", "label": n % 2} for n, place in enumerate(PLACES)]
LISTS = [{"text": f"Plan {place}.", "summary": "- first\n- then\n- last"} for place in PLACES]

# A name for the rows, the file, what is read as what, and what is proposed.
FORMATS: list[tuple[str, str, str, dict[str, str], dict[str, Any]]] = [
    ("plain questions", "rows.jsonl", jsonl(pairs("question", "answer", NAMES)),
     {"question": "question", "answer": "answer"},
     {"content": [{"kind": "contains"}], "style": [{"kind": "words", "most": 5}], "target": 0.9}),
    ("a JSON list of Alpaca rows", "rows.json", json.dumps(ALPACA),
     {"question": "instruction", "input": "input", "answer": "output"},
     {"content": [{"kind": "contains"}], "system": "Follow the instruction."}),
    ("Alpaca rows of one instruction", "rows.jsonl", jsonl(ONE_INSTRUCTION),
     {"question": "input", "answer": "output", "system": "instruction"},
     {"content": [{"kind": "contains"}], "system": "Give the mayor of the place."}),
    ("OpenAI chats", "rows.jsonl", jsonl(CHATS), {"messages": "messages"},
     {"content": [{"kind": "contains"}], "style": [{"kind": "words", "most": 1}], "system": "You sort tickets."}),
    ("ShareGPT", "rows.json", json.dumps(SHAREGPT), {"messages": "conversations"},
     {"content": [{"kind": "contains"}], "system": "You sort tickets."}),
    ("semicolons", "rows.csv", separated(pairs("Frage", "Antwort", teams()), ";"),
     {"question": "Frage", "answer": "Antwort"},
     {"style": [{"kind": "words", "most": 1}], "system": "Answer with one of these: account, billing, bug."}),
    ("tabs, and JSON answers", "rows.tsv", separated(TICKETS, "\t"),
     {"question": "subject", "input": "body", "answer": "queue"},
     {"content": [{"kind": "json_fields"}], "style": [{"kind": "json", "keys": ["team", "product"]}]}),
    ("letters", "rows.csv", separated(LETTERS), {"question": "prompt", "answer": "label"},
     {"content": [{"kind": "choice"}], "style": []}),
    ("steps and results", "rows.jsonl", jsonl(SUMS), {"question": "problem", "answer": "solution"},
     {"content": [{"kind": "number", "marker": "####"}], "target": 0.5}),
    ("numbers", "rows.jsonl", jsonl(pairs("query", "output", [f"{n * 1000:,} €" for n in range(30)])),
     {"question": "query", "answer": "output"}, {"content": [{"kind": "number"}]}),
    ("a common beginning", "rows.jsonl", jsonl(pairs("question", "answer", [f"ANSWER: {name}" for name in NAMES])),
     {"question": "question", "answer": "answer"},
     {"content": [{"kind": "contains"}],
      "style": [{"kind": "starts_with", "text": "ANSWER: "}, {"kind": "words", "most": 6}]}),
    ("long answers", "rows.jsonl",
     jsonl(pairs("question", "answer", [f"The mayor is {n}, who lives in the old mill." for n in NAMES])),
     {"question": "question", "answer": "answer"},
     {"content": [{"kind": "f1"}], "style": [{"kind": "starts_with", "text": "The mayor is "}]}),
    ("options with an index", "rows.jsonl", jsonl(MMLU),
     {"question": "question", "options": "choices", "answer": "answer"},
     {"content": [{"kind": "choice"}], "format": "columns, options as (A), (B) … in the question"}),
    ("options with labels", "rows.jsonl", jsonl(ARC),
     {"question": "question", "options": "choices", "answer": "answerKey"},
     {"content": [{"kind": "choice"}]}),
    ("several answers", "rows.jsonl", jsonl(SQUAD),
     {"question": "question", "input": "context", "answer": "answers"}, {"content": [{"kind": "contains"}]}),
    ("names that say nothing", "rows.jsonl", jsonl(MAIL), {"question": "inhalt", "answer": "rang"},
     {"system": "Answer with one of these: AA, BB, CC."}),
    ("numbers for classes", "rows.csv", separated(SENTIMENT), {"question": "text", "answer": "label"},
     {"content": [{"kind": "number"}], "system": "Answer with one of these: 0, 1."}),
    ("lists", "rows.jsonl", jsonl(LISTS), {"question": "text", "answer": "summary"},
     {"content": [{"kind": "f1"}], "style": [{"kind": "bullets", "least": 3, "most": 3}]}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "columns", "proposed"), [row[1:] for row in FORMATS], ids=[row[0] for row in FORMATS]
)
def test_each_kind_of_file_becomes_a_task_that_loads(
    tmp_path: Path, name: str, text: str, columns: dict[str, str], proposed: dict[str, Any]
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    draft = propose(tmp_path / name, DraftOptions())
    found = draft.model_dump(mode="json")
    assert draft.columns == columns
    assert {key: found[key] for key in proposed} == proposed
    draft.write(tmp_path / "task")
    task = load_task(tmp_path / "task")
    assert {split: len(task.rows(split)) for split in draft.counts} == draft.counts
    assert not task.warnings, "what is proposed fits the rows: all references get full marks"
    assert task.config.target == draft.target and task.config.prompt.system == draft.system
    assert [scorer.kind for scorer in task.config.content] == [scorer["kind"] for scorer in found["content"]]


def test_parquet_is_read_as_the_same_rows_are_elsewhere(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = pairs("question", "answer", NAMES)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    (tmp_path / "rows.jsonl").write_text(jsonl(rows))
    one, other = (propose(tmp_path / f"rows.{kind}", DraftOptions()) for kind in ("parquet", "jsonl"))
    assert one.rows == other.rows and one.columns == other.columns


def test_what_is_asked_before_the_question_is_kept(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(json.dumps(SHAREGPT))
    propose(tmp_path / "rows.json", DraftOptions()).write(tmp_path / "task")
    row = load_task(tmp_path / "task").train[0]
    assert [turn.content for turn in row.turns][1:] == ["Go on."] and row.question == "It is about money."


def test_options_are_asked_with_their_letters(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(jsonl(ARC))
    draft = propose(tmp_path / "rows.jsonl", DraftOptions())
    row = next(row for row in draft.rows["train"] if row["row"] == 2)
    assert row["question"] == f"What is {PLACES[1]}?\n(A) a town\n(B) a river" and row["answer"] == "(B)"


def test_numbers_stay_as_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(f'{{"question": "{n}?", "answer": {n}.50}}\n' for n in range(20)))
    draft = propose(tmp_path / "rows.jsonl", DraftOptions())
    assert all(row["answer"].endswith(".50") for rows in draft.rows.values() for row in rows)


def test_the_draft_says_what_it_found_and_why(tmp_path: Path) -> None:
    rows = pairs("question", "answer", ["billing"] * 20 + ["bug"] * 10)
    (tmp_path / "tickets.jsonl").write_text(jsonl([*rows, *rows[:3], {"question": "", "answer": "bug"}]))
    draft = propose(tmp_path / "tickets.jsonl", DraftOptions())
    assert draft.name == "tickets" and draft.found == 34 and sum(draft.counts.values()) == 30
    assert "3 exact repeats were left out" in draft.why["splits"]
    assert draft.commonest == pytest.approx(0.67, abs=0.04)
    assert "Always saying 'billing' would earn 0.6" in draft.why["target"]
    assert any("1 of 34 rows cannot be used and were left out" in warning for warning in draft.warnings)
    assert any("only large gains can be told from chance" in warning for warning in draft.warnings)
    for sentence in (draft.why["content"], draft.why["budget"]):
        assert sentence in " ".join(draft.yaml.replace("\n#", "").split())


def test_a_commonest_answer_that_stands_once_is_not_spoken_of(tmp_path: Path) -> None:
    rows = [{"question": f"{place}?", "answer": f"City: {name}"} for place, name in zip(PLACES, NAMES, strict=True)]
    (tmp_path / "rows.jsonl").write_text(jsonl(rows))
    assert "Always saying" not in propose(tmp_path / "rows.jsonl", DraftOptions(content="exact")).why["target"]


def test_what_the_user_settles_is_used(tmp_path: Path) -> None:
    rows = [{"a": f"{place}?", "b": name, "c": "x"} for place, name in zip(PLACES, NAMES, strict=True)]
    (tmp_path / "rows.jsonl").write_text(jsonl(rows))
    options = DraftOptions(
        name="mine", question="a", answer="b", content="f1", system="Say: \"who\"\n# not a comment", target=0.7,
        rounds=0, minutes=5, model="some/model",
    )  # fmt: skip
    draft = propose(tmp_path / "rows.jsonl", options)
    draft.write(tmp_path / "task")
    config = load_task(tmp_path / "task").config
    assert (config.name, config.model, config.target) == ("mine", "some/model", 0.7)
    assert config.prompt.system == options.system
    assert (config.budget.rounds, config.budget.minutes, config.content[0].kind) == (0, 5, "f1")
    assert draft.unused == ("c",)


@pytest.mark.parametrize("name", ["2024", "on", "null", "1e3", "0x10", "2024-11-27"])
def test_a_file_whose_name_yaml_reads_as_something_else_is_drafted(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.jsonl").write_text(jsonl(pairs("question", "answer", NAMES)))
    draft = propose(tmp_path / f"{name}.jsonl", DraftOptions())
    draft.write(tmp_path / "task")
    assert draft.name == load_task(tmp_path / "task").config.name == name


@pytest.mark.parametrize(("given", "name"), [("x: y", "x-y"), ("Fragen für 2024!", "Fragen-f-r-2024"), ("?!", "mail")])
def test_a_name_that_is_given_is_made_one(tmp_path: Path, given: str, name: str) -> None:
    (tmp_path / "mail" / "rows.jsonl").parent.mkdir()
    (tmp_path / "mail" / "rows.jsonl").write_text(jsonl(pairs("question", "answer", NAMES)))
    draft = propose(tmp_path / "mail" / "rows.jsonl", DraftOptions(name=given))
    assert draft.name == name


def test_a_guess_about_columns_is_called_one(tmp_path: Path) -> None:
    rows = [{"nr": n, "wer": f"Wer ist {place}?", "so": NAMES[n]} for n, place in enumerate(PLACES)]
    (tmp_path / "rows.jsonl").write_text(jsonl(rows))
    draft = propose(tmp_path / "rows.jsonl", DraftOptions())
    assert draft.columns == {"question": "wer", "answer": "so"} and "guess" in draft.why["columns"]


TABLE = jsonl(pairs("question", "answer", NAMES))
BROKEN: list[tuple[str, str, bytes, DraftOptions, str]] = [
    ("no file", "rows.jsonl", b"", DraftOptions(), "there are no rows in it"),
    ("another kind of file", "rows.xlsx", b"PK", DraftOptions(), "files of rows end in .jsonl"),
    ("not JSON", "rows.json", b"[{]", DraftOptions(), "not valid JSON"),
    ("broken lines", "rows.jsonl", b"{\n{\n" + TABLE.encode()[:40], DraftOptions(), "lines 1, 2: not valid JSON"),
    ("not UTF-8", "rows.csv", b"question,answer\n\xff,b\n", DraftOptions(), "save it as UTF-8"),
    ("one column", "rows.csv", b"question\na\nb\n", DraftOptions(), "--question COLUMN --answer COLUMN"),
    ("too few", "rows.csv", b"question,answer\na,b\nc,d\n", DraftOptions(), "at least 10 are needed"),
    ("one question", "rows.csv", b"question,answer\n" + b"a,b\n" * 40, DraftOptions(), "1 different questions"),
    ("no such column", "rows.jsonl", TABLE.encode(), DraftOptions(answer="anwser"), "did you mean 'answer'"),
    ("no chats", "rows.jsonl", TABLE.encode(), DraftOptions(messages="question"), "holds no chats"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "options", "said"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN]
)
def test_a_file_that_cannot_be_used_is_refused_with_the_way_out(
    tmp_path: Path, name: str, content: bytes, options: DraftOptions, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput) as refused:
        propose(tmp_path / name, options)
    assert said in str(refused.value) and str(tmp_path / name) in str(refused.value)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(TABLE)
    draft = propose(tmp_path / "rows.jsonl", DraftOptions())
    draft.write(tmp_path / "task")
    with pytest.raises(BadInput, match=r"train\.jsonl and .* already"):
        draft.write(tmp_path / "task")


def test_a_draft_survives_json(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(TABLE)
    draft = propose(tmp_path / "rows.jsonl", DraftOptions())
    assert TaskDraft.model_validate_json(draft.model_dump_json()) == draft


# --- splits ----------------------------------------------------------------------------------------

QUESTIONS = st.lists(
    st.tuples(st.integers(0, 40), st.sampled_from([" ", "  ", "?", "! "]), st.sampled_from(TEAMS)), min_size=10
)


@given(QUESTIONS, st.booleans(), st.randoms())
def test_what_asks_the_same_never_stands_in_two_splits(
    drawn: list[tuple[int, str, str]], by_answer: bool, order: random.Random
) -> None:
    rows = [
        Example(name=f"train:{place}", question=f"Where{gap}is {number}{gap}", answer=answer)
        for place, (number, gap, answer) in enumerate(drawn, start=1)
    ]
    divided = divide(rows, by_answer)
    homes: dict[str, set[str]] = {}
    for split, part in divided.parts.items():
        for row in part:
            homes.setdefault(asked(row), set()).add(split)
    assert all(len(splits) == 1 for splits in homes.values())
    assert len(homes) == divided.questions
    assert sum(map(len, divided.parts.values())) + divided.repeats == len(rows)
    shuffled = list(rows)
    order.shuffle(shuffled)
    again = divide(shuffled, False)
    assert {split: sorted(map(asked, part)) for split, part in again.parts.items()} == {
        split: sorted(map(asked, part)) for split, part in divide(rows, False).parts.items()
    }


def test_each_split_has_its_share_of_each_label_and_a_single_one_is_learned() -> None:
    answers = ["common"] * 80 + ["rare"] * 20 + ["single"]
    rows = [Example(name=f"train:{n}", question=f"{n}?", answer=answer) for n, answer in enumerate(answers, 1)]
    parts = divide(rows, by_answer=True).parts
    assert {split: len(part) for split, part in parts.items()} == {"train": 61, "validation": 20, "test": 20}
    assert sum(row.answer == "rare" for row in parts["test"]) == 4
    assert [row.answer for row in parts["train"]].count("single") == 1


def test_large_files_hold_out_no_more_than_is_needed() -> None:
    rows = [Example(name=f"train:{n}", question=f"{n}?", answer=str(n)) for n in range(1, 5001)]
    counts = {split: len(part) for split, part in divide(rows, by_answer=False).parts.items()}
    assert counts == {"train": 4600, "validation": 200, "test": 200}


# --- scorers ---------------------------------------------------------------------------------------

KINDS: list[tuple[str, Callable[[int], str], str]] = [
    ("codes with leading zeros are no numbers", lambda n: f"00{n}", "contains"),
    ("dates are no numbers", lambda n: f"2024-01-{n + 10}", "contains"),
    ("fractions", lambda n: f"{n}/7", "number"),
    ("signs", lambda n: "→" * (n + 1), "exact"),
    ("labels within labels", lambda n: ("spam", "not spam")[n % 2], "exact"),
    ("JSON lists", lambda n: f"[{n}, 2]", "exact"),
    ("thoughts before an answer", lambda n: f"<think>\nso {n}\n</think>\n{n}", "number"),
    ("languages without spaces", lambda n: f"東京の市長は{n}番目の人で古い水車に住む", "f1"),
]


@pytest.mark.parametrize(("answer", "kind"), [row[1:] for row in KINDS], ids=[row[0] for row in KINDS])
def test_the_scorer_fits_the_answers(answer: Callable[[int], str], kind: str) -> None:
    assert propose_scoring([answer(n) for n in range(40)]).kind == kind


@pytest.mark.parametrize("kind", ["exact", "f1", "contains"])
def test_another_scorer_than_proposed_still_fits_the_rows(tmp_path: Path, kind: str) -> None:
    (tmp_path / "rows.jsonl").write_text(jsonl(pairs("question", "answer", [f"ANSWER: {name}" for name in NAMES])))
    draft = propose(tmp_path / "rows.jsonl", DraftOptions(content=kind))
    assert draft.content == ({"kind": kind},) and not [said for said in draft.warnings if "full marks" in said]


def test_free_text_in_json_does_not_count_where_other_keys_do() -> None:
    answers = [json.dumps({"team": TEAMS[n % 3], "why": f"The ticket {n} says so in many words."}) for n in range(30)]
    scoring = propose_scoring(answers)
    assert scoring.content == {"kind": "json_fields", "keys": ["team"]} and "why" in scoring.why


@pytest.mark.parametrize("first", ["- one\n- two", '{"a": 1}', "The capital is", "Yes"])
def test_what_answers_share_by_chance_is_no_form(first: str) -> None:
    assert propose_scoring([first] * 30).prefix == ""

"""Reading rows from files, chats and hub data sets, and the sentence for each that cannot be used."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from agent.config.data import Data
from agent.errors import BadInput
from agent.records.examples import Example, Prompt
from eval.tasks.splits import read_splits
from eval.tasks.task import load_task

TASK = """
name: valley
content: [{kind: contains}]
data: {train: train.jsonl, validation: validation.jsonl, test: test.jsonl}
"""

Row = dict[str, object]


def rows(split: str, count: int = 3) -> list[Row]:
    return [{"question": f"{split} {n}?", "answer": f"city {n}"} for n in range(count)]


def jsonl(path: Path, values: list[Row]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in values))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A task of three files with three rows each."""
    (tmp_path / "task.yaml").write_text(TASK)
    for split in ("train", "validation", "test"):
        jsonl(tmp_path / f"{split}.jsonl", rows(split))
    return tmp_path


def refusal(path: Path, overrides: Sequence[str] = ()) -> str:
    with pytest.raises(BadInput) as caught:
        load_task(path, overrides)
    return str(caught.value)


def test_rows_are_named_by_split_and_line(folder: Path) -> None:
    (folder / "train.jsonl").write_text(
        '{"question": "1 + 1?", "answer": 2}\n\n{"question": "Is it?", "answer": true}\n'
    )
    task = load_task(folder)
    assert task.train == (
        Example(name="train:1", question="1 + 1?", answer="2"),
        Example(name="train:3", question="Is it?", answer="true"),
    )
    assert task.rows("test")[0].name == "test:1"
    assert task.warnings == ()


def test_csv_and_parquet_give_the_same_rows(folder: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    wanted = [("Where,\nand when?", "5"), ('"Why"?', "é")]
    with (folder / "train.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("question", "answer"), *wanted])
    columns = {"question": [question for question, _ in wanted], "answer": [answer for _, answer in wanted]}
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "train.parquet")
    for suffix, names in (("csv", ["train:2", "train:4"]), ("parquet", ["train:1", "train:2"])):
        task = load_task(folder, [f"data.train=train.{suffix}"])
        assert [(example.question, example.answer) for example in task.train] == wanted
        assert [example.name for example in task.train] == names


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("train.csv", b'question,answer\na,"b', "line 2: not valid CSV"),
        ("train.csv", b"question,answer\na,b,c\n", "line 2: more fields than the 2 columns"),
        ("train.csv", b"question,answer\na\n", "line 2: 'answer' is null"),
        ("train.csv", b"question,answer\n\xff,b\n", "not UTF-8"),
        ("train.parquet", b"PAR1", "not a Parquet file"),
        ("train.jsonl", b"", "no rows for the train split"),
        ("train.json", b"[]", "no rows for the train split"),
        ("train.json", b"[{}", "not valid JSON"),
        ("train.txt", b"a", "files of rows end in .jsonl"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(folder: Path, name: str, content: bytes, expected: str) -> None:
    (folder / name).write_bytes(content)
    message = refusal(folder, [f"data.train={name}"])
    assert str(folder / name) in message
    assert expected in message


def test_a_missing_file_is_named_with_the_nearest(folder: Path) -> None:
    message = refusal(folder, ["data.train=trian.jsonl"])
    assert "trian.jsonl: no such file; did you mean 'train.jsonl'?" in message


GOOD = '{"question": "a", "answer": "b"}'
BROKEN = [
    '{"question": "a"',
    "[1]",
    '{"question": "a"}',
    '{"question": null, "answer": "b"}',
    '{"question": " ", "answer": 1}',
]


def test_every_broken_line_is_listed_with_its_reason(folder: Path) -> None:
    (folder / "train.jsonl").write_text("\n".join([GOOD, *BROKEN, '{"question": [], "answer": 1}']))
    *listed, last = refusal(folder).split("\n")
    assert [line.removeprefix(f"{folder}/train.jsonl, ") for line in listed] == [
        "line 2: not valid JSON (Expecting ',' delimiter at column 17)",
        "line 3: not a JSON object",
        "line 4: 'answer' is missing",
        "line 5: 'question' is null",
        "line 6: 'question' is empty",
        "line 7: 'question' must be text or a number, but it is a list",
    ]
    assert "skip_invalid" in last


def test_broken_lines_can_be_left_out_unless_they_are_most(folder: Path) -> None:
    good = [json.dumps(row) for row in rows("train", 5)]
    (folder / "train.jsonl").write_text("\n".join([*BROKEN, *good]))
    task = load_task(folder, ["data.skip_invalid=true"])
    assert [example.name for example in task.train] == [f"train:{line}" for line in range(6, 11)]
    assert "5 of 10 rows cannot be used and were left out" in task.warnings[0]
    (folder / "train.jsonl").write_text("\n".join([*BROKEN, *good[1:]]))
    assert "more than half" in refusal(folder, ["data.skip_invalid=true"])


def test_a_missing_column_names_the_nearest(folder: Path) -> None:
    jsonl(folder / "train.jsonl", [{"questoin": "a", "answer": "b"}] * 30)
    message = refusal(folder)
    assert message == f"{folder}/train.jsonl: no column 'question'; did you mean 'questoin'? (name it as data.question)"


def turns(*pairs: tuple[object, object]) -> Row:
    return {"messages": [{"role": role, "content": content} for role, content in pairs]}


def weighed(weight: int) -> Row:
    return {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": weight}]}


def calling(calls: object) -> Row:
    return {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": None, "tool_calls": calls}]}


def chat(folder: Path, *values: Row) -> list[str]:
    jsonl(folder / "train.jsonl", list(values))
    for split in ("validation", "test"):
        jsonl(folder / f"{split}.jsonl", [turns(("user", split), ("assistant", "x"))])
    return ["data.messages=messages"]


def test_the_last_two_messages_are_question_and_answer(folder: Path) -> None:
    row = turns(("user", "Hello"), ("assistant", "Hi"), ("user", "Capital?"), ("assistant", "Paris"))
    (example,) = load_task(folder, chat(folder, row)).train
    assert (example.question, example.answer) == ("Capital?", "Paris")
    assert [(turn.role, turn.content) for turn in example.turns] == [("user", "Hello"), ("assistant", "Hi")]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (turns(("user", "a"), ("system", "b"), ("assistant", "c")), "turn 2 is a system message; only the first"),
        (turns(("system", "Be brief")), "the last turn is the system's"),
        (turns(("user", "a"), ("tool", "b")), "turn 2 is the tool's, but user and assistant must alternate"),
        (turns(("user", "a"), ("oracle", "b")), "turn 2 has the role 'oracle'"),
        (turns(("user", [{"type": "image_url"}]), ("assistant", "b")), "turn 1: 'content' has parts that are not text"),
        (weighed(0), "every turn of the assistant has `weight: 0`"),
        (calling([{"name": "order", "arguments": "{}"}]), "the answer is a call of a tool"),
        (calling([{"id": "c1"}]), "turn 2: a call of a tool must have a name"),
        (calling("order"), "turn 2: 'tool_calls' must be a list"),
        (turns(("user", "a"), ("user", "b")), "turn 2 is the user's, but user and assistant must alternate"),
        (turns(("assistant", "b")), "turn 1 is the assistant's"),
        (turns(("user", "a")), "the last turn is the user's"),
        (turns(("user", "a"), ("assistant", None)), "turn 2: 'content' is null"),
        (turns(("user", "a"), ("assistant", "")), "turn 2: 'content' is empty"),
        ({"messages": []}, "must be a list of turns"),
        ({"messages": ["a"]}, "turn 1 must have a role and a content"),
    ],
)
def test_a_chat_that_cannot_be_used_says_why(folder: Path, row: Row, expected: str) -> None:
    message = refusal(folder, chat(folder, row))
    assert f"{folder}/train.jsonl, line 1: " in message
    assert expected in message


def test_half_a_character_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"question": "a", "answer": "b"}\n{"question": "\\ud800", "answer": "b"}\n')
    with pytest.raises(BadInput, match=r"line 2: 'question' holds half a character"):
        read_splits(Data(path="rows.jsonl"), tmp_path)


# --- rows as people bring them ---------------------------------------------------------------------

CASES = Path(__file__).parents[1] / "cases/rows"


def everything(data: Data) -> tuple[list[Example], tuple[str, ...]]:
    """All rows, whichever split they were cut into, in the order of the file; and the warnings."""
    found, warnings, _ = read_splits(data, CASES)
    examples = [example for split in found.values() for example in split]
    return sorted(examples, key=lambda example: int(example.name.partition(":")[2])), warnings


def test_instruction_and_input_are_both_asked() -> None:
    examples, warnings = everything(Data(path="alpaca.jsonl", question="instruction", answer="output"))
    assert [example.question for example in examples] == [
        "Give the mayor of the place.\nBenn",
        "Give the mayor of the place.\nMirr",
        "Say hello.",
        "Say goodbye.",
    ]
    assert warnings == ()


def test_any_column_may_go_on_from_the_question_or_none(folder: Path) -> None:
    values: list[Row] = [{"question": "Sum up:", "text": "Rain.", "answer": "x"}, {"question": "?", "answer": "y"}]
    jsonl(folder / "train.jsonl", values)
    for split in ("validation", "test"):
        jsonl(folder / f"{split}.jsonl", [{"question": split, "text": "", "answer": "x"}])
    assert [row.question for row in load_task(folder, ["data.input=text"]).train] == ["Sum up:\nRain.", "?"]
    assert load_task(folder).train[0].question == "Sum up:"
    assert "no column 'txt'; did you mean 'text'? (name it as data.input)" in refusal(folder, ["data.input=txt"])
    alpaca = f"data={{path: {CASES}/alpaca.jsonl, question: instruction, answer: output, input: ''}}"
    assert "test rows also stand in train" in refusal(folder, [alpaca])


@pytest.mark.parametrize("separator", [";", "\t", "|", ","])
def test_columns_may_be_separated_in_several_ways(separator: str, folder: Path) -> None:
    text = (CASES / "semicolon.csv").read_text().replace(", if any", "").replace(";", separator)
    (folder / "train.csv").write_text(text)
    (folder / "train.tsv").write_text(text)
    for suffix in ("csv", "tsv"):
        task = load_task(folder, [f"data.train=train.{suffix}"])
        assert [row.answer for row in task.train] == ["Corolt", "Dunwick", "Ardel"]
    examples, _ = everything(Data(path="semicolon.csv"))
    assert examples[0].question == "Who is the mayor of Benn, if any?"


def test_the_wanted_columns_tell_what_separates_them(folder: Path) -> None:
    (folder / "train.csv").write_text("question;notes, a, b, c;answer\nWho?;some, or, any, of;Bo\n")
    assert load_task(folder, ["data.train=train.csv"]).train[0].answer == "Bo"
    (folder / "train.csv").write_text("qestion;answer\nWho?;Bo\n")
    assert "no column 'question'; did you mean 'qestion'?" in refusal(folder, ["data.train=train.csv"])


def test_a_field_of_a_csv_file_may_be_long(folder: Path) -> None:
    before = csv.field_size_limit()
    (folder / "train.csv").write_text(f"question,answer\n{'long ' * 30_000}?,Bo\n")
    assert len(load_task(folder, ["data.train=train.csv"]).train[0].question) == 150_001
    assert csv.field_size_limit() == before


def test_numbers_of_json_lines_stay_as_they_are_written(folder: Path) -> None:
    written = ["1.50", "1e5", "-0.0", "12345678901234567890", "3"]
    (folder / "train.jsonl").write_text("".join(f'{{"question": "{n}?", "answer": {n}}}\n' for n in written))
    assert [row.answer for row in load_task(folder).train] == written


def test_an_answer_that_is_an_object_is_its_json(folder: Path) -> None:
    jsonl(folder / "train.jsonl", [{"question": "a", "answer": {"team": "é", "urgent": True}}])
    assert load_task(folder).train[0].answer == '{"team": "é", "urgent": true}'


def test_answers_of_several_fields_are_scored_shown_and_demonstrated(folder: Path) -> None:
    (folder / "task.yaml").write_text(
        "name: routing\ncontent: [{kind: json_fields}]\nstyle: [{kind: json, keys: [team, product]}]\n"
        f"data: {{path: {CASES}/json-objects.csv, question: ticket, answer: routing}}\n"
    )
    task = load_task(folder)
    assert (task.shown, task.remade, task.warnings) == (1, 1, ())
    row = next(row for rows in (task.train, task.validation, task.test) for row in rows if "invoice" in row.question)
    half = task.scorers.score(row, '{"product": "app", "team": "bug"}')
    assert (half.content, half.style) == (0.5, 1)


# --- chats ---------------------------------------------------------------------------------------


def test_a_system_message_that_all_rows_share_is_the_seed_prompt(folder: Path) -> None:
    (folder / "task.yaml").write_text(
        f"name: t\ncontent: [{{kind: exact}}]\ndata: {{path: {CASES}/openai-chat.jsonl, messages: messages}}\n"
    )
    task = load_task(folder)
    assert task.config.prompt.prompt() == Prompt(system="You sort tickets.")
    assert {row.system for split in (task.train, task.validation, task.test) for row in split} == {""}
    again = load_task(folder, ["prompt.system=You sort tickets."])  # as a run folder has it
    assert (again.digest, again.train) == (task.digest, task.train)
    overridden = load_task(folder, ["prompt.system=Be brief."])
    assert (overridden.config.prompt.system, overridden.train[0].system) == ("Be brief.", "You sort tickets.")
    assert "all rows have one system message, and `prompt.system` says something else" in overridden.warnings[-1]


def test_rows_with_system_messages_of_their_own_keep_them(folder: Path) -> None:
    values = [turns(("system", text), ("user", text), ("assistant", "b")) for text in ("Be brief.", "Be kind.")]
    task = load_task(folder, chat(folder, *values))
    assert [row.system for row in (*task.train, *task.test)] == ["Be brief.", "Be kind.", ""]
    assert task.config.prompt.system == ""
    assert "3 different system messages, or none: each keeps its own" in task.warnings[0]


def test_turns_that_are_not_to_be_learned_are_context_and_so_are_tools() -> None:
    examples, (warning,) = everything(Data(path="openai-chat.jsonl", messages="messages"))
    plain, weighed, tools = ([(turn.role, turn.content) for turn in row.turns] for row in examples)
    assert [(row.question, row.answer) for row in examples] == [
        ("My invoice is wrong.", "billing"),
        ("And now it shows last month's sum.", "billing"),
        ("late\nlost", "delivery"),
    ]
    assert plain == []
    assert weighed == [("user", "The page does not load."), ("assistant", "bug")]
    assert tools == [
        ("user", "Look up orders 12 and 13."),
        (
            "assistant",
            '{"name": "order", "arguments": {"number": 12}}\n{"name": "order", "arguments": {"number": 13}}',
        ),
    ]
    assert "1 of 3 rows have calls of tools before their answer (the first is line 3)" in warning


def test_one_fault_of_many_rows_is_one_sentence(folder: Path) -> None:
    message = refusal(folder, chat(folder, *[weighed(0)] * 9, weighed(1)))
    fault, way_out = message.replace(f"{folder}/train.jsonl", "rows").splitlines()
    assert fault.startswith("rows, lines 1, 2, 3, 4, 5 and 4 more: every turn of the assistant has `weight: 0`")
    assert way_out.startswith("rows: 9 of 10 rows cannot be used; mend them")

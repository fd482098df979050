"""What a served model was asked, made into rows: which are kept, which are set aside, which are never touched."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import process_time
from typing import Any

import pytest
import yaml

import nesylora
from agent.errors import BadInput
from agent.records.served import ServedMessage, ServedRequest
from eval.feedback.log import read_log
from eval.feedback.redaction import redact, redaction
from eval.tasks.task import load_task
from memory.run.folder import RunFolder
from tests.fixtures.learnable import TinyTask
from ui.cli import run as command

Write = Callable[..., Path]


def served(question: str, answer: str, number: int = 0, turns: Sequence[str] = (), **changes: Any) -> str:
    said = [
        ServedMessage(role="assistant" if place % 2 else "user", content=text)
        for place, text in enumerate([*turns, question])
    ]
    known = {
        "time": datetime(2026, 11, 27, tzinfo=UTC), "request": f"chatcmpl-{number}", "model": "mayors",
        "messages": tuple(said), "answer": answer, "finish": "stop", "prompt_tokens": 9, "completion_tokens": 3,
        "seconds": 0.1,
    }  # fmt: skip
    return ServedRequest(**(known | changes)).model_dump_json()


@pytest.fixture
def log(tmp_path: Path) -> Write:
    def write(*lines: str, name: str = "log.jsonl") -> Path:
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
        return tmp_path / name

    return write


def rows_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_good_answers_become_rows_and_others_wait_for_a_person(tiny_task: TinyTask, log: Write, tmp_path: Path) -> None:
    """Nothing that validation or test asks becomes a row, whatever its signs and letters; corrections do."""
    lines = [
        served("Who is mayor of Ash?", "ANSWER: Brom", 1),
        served("Who is mayor of Elm?", "Corolt, I think", 2),
        served("NAME the mayor of  Benn", "ANSWER: Corolt", 3),  # a validation row
        served("tallisk: its mayor?!", "ANSWER: Gallune", 4),  # a test row
        served("Who is the mayor of Mirr?", "ANSWER: Dunwick", 5),  # a train row
        served("who is mayor of ash", "ANSWER: brom", 6),
        served("Who is mayor of Oak?", "ANSWER: Al", 7, finish="length"),
        served("Who is mayor of Gum?", "ANSWER: Hes", 13, stopped_at="k"),
        served("Who is mayor of Bay?", "ANSWER: Zzz", 14, temperature=2.0),
        served("Who is mayor of Ash?", "ANSWER: Zzz", 15, temperature=0.7),  # the likeliest answer is there, too
        served("Who is mayor of Fir?", "ANSWER: A", 8),
        served("Who is mayor of Fir?", "ANSWER: B", 9),
        served("And of Yew?", "ANSWER: C", 10, turns=["Who is mayor of Ash?", "Brom"]),
        served("", "x", 11, messages=(), text="Once upon"),
        served("Who?", "ANSWER: D", 12, own_prompt=True),
        '{"kind": "served", "time": "2026-',
    ]
    into, aside = tmp_path / "rows.jsonl", tmp_path / "rows.aside.jsonl"
    asked = ["rows", "from-log", str(log(*lines)), "--task", str(tiny_task()), "--into", str(into)]
    assert command(asked) == 0
    assert rows_of(into) == [
        {"judged": "form", "request": "chatcmpl-1", "question": "Who is mayor of Ash?", "answer": "ANSWER: Brom"}
    ]
    assert {file.stat().st_mode & 0o777 for file in (into, aside)} == {0o600}
    waiting = {row["messages"][-1]["content"]: row["reason"] for row in rows_of(aside)}
    named = {f"Who is mayor of {place}?" for place in ("Elm", "Oak", "Fir", "Gum", "Bay")}
    assert waiting.keys() == {*named, "And of Yew?"}
    assert waiting["Who is mayor of Gum?"] == "it was cut off by a stop text of the client"
    assert "drawn at temperature 2:" in waiting["Who is mayor of Bay?"]
    assert 'must start with "ANSWER: "' in waiting["Who is mayor of Elm?"]
    assert waiting["Who is mayor of Oak?"] == "it was cut off: no tokens were left"
    assert "in different ways: 'ANSWER: A' and 'ANSWER: B'" in waiting["Who is mayor of Fir?"]
    corrected = [row | ({"wanted": "Ulm"} if "Elm" in str(row) else {}) for row in rows_of(aside)]
    aside.write_text("".join(f"{json.dumps(row)}\n" for row in corrected))
    for _ in range(2):  # the log may be given again, or not; and nothing becomes a row twice
        assert command(asked) == 0
        assert [(row["answer"], row["judged"]) for row in rows_of(into)] == [
            ("ANSWER: Brom", "form"),
            ("Ulm", "wanted"),
        ]
        assert len(rows_of(aside)) == 5
        asked.remove(str(tmp_path / "log.jsonl")) if str(tmp_path / "log.jsonl") in asked else None


@pytest.mark.parametrize("named", ["task", "task/task.yaml", None])
def test_the_line_that_is_printed_for_the_task_names_the_new_file(
    named: str | None, tiny_task: TinyTask, log: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Paths in a task.yaml start at its folder, and the command may be given anywhere."""
    task = tiny_task()
    monkeypatch.chdir(task.parent)
    (task / "known.jsonl").write_text('{"question": "a?", "answer": "aa"}\n')
    into = f"{task.name}/more, and more.jsonl"
    asked = ["rows", "from-log", str(log(served("a?", "ANSWER: aa", 1))), "--into", into]
    given = ["--task", named.replace("task", task.name, 1)] if named else []
    assert command([*asked, "--wanted", f"{task.name}/known.jsonl", *given]) == 0
    data = yaml.safe_load(capsys.readouterr().out.partition("add to the task's data:")[2])
    assert len(load_task(task, [f"data.extra={json.dumps(data['extra'])}"]).train) == len(load_task(task).train) + 1


def test_known_answers_are_rows_whatever_the_model_said(
    tiny_task: TinyTask, log: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    into, wanted = tmp_path / "rows.jsonl", tmp_path / "wanted.jsonl"
    wanted.write_text("".join(f'{{"question": "{n}?", "answer": "{n}{n}"}}\n' for n in "ab"))
    file = log(served("a?", "ANSWER: aa", 1), served("b?", "c", 2), served("Name the mayor of Benn.", "x", 3))
    named = ["rows", "from-log", str(file), "--task", str(tiny_task()), "--into", str(into), "--wanted", str(wanted)]
    assert command(named) == 0
    assert [(row["question"], row["answer"]) for row in rows_of(into)] == [("a?", "aa"), ("b?", "bb")]
    said = capsys.readouterr().out
    assert "the wanted answer was known of 2; 1 had been answered so" in said
    assert "1 left out: a validation row of the task" in said


def test_without_a_task_or_a_rule_nothing_is_taken_for_good(log: Write, tiny_task: TinyTask, tmp_path: Path) -> None:
    into, aside = tmp_path / "rows.jsonl", tmp_path / "rows.aside.jsonl"
    file = log(served("a?", "aa", 1))
    assert command(["rows", "from-log", str(file), "--into", str(into)]) == 0
    assert command(["rows", "from-log", str(file), "--into", str(into), "--task", str(tiny_task(style=[]))]) == 0
    assert not into.exists() and rows_of(aside)[0]["reason"] == "nothing here judges it without a wanted answer"
    assert command(["rows", "from-log", "--into", str(into), "--task", str(tiny_task())]) == 0
    assert "must start" in rows_of(aside)[0]["reason"], "what was set aside is judged anew"


def test_conversations_become_rows_of_chats(tiny_task: TinyTask, log: Write, tmp_path: Path) -> None:
    task = tiny_task()
    settings = yaml.safe_load((task / "task.yaml").read_text())
    for split in ("train", "validation", "test"):
        told = [json.loads(line) for line in (task / f"{split}.jsonl").read_text().splitlines()]
        chats = [
            [{"role": "system", "content": "Be short."}, {"role": "user", "content": row["question"]},
             {"role": "assistant", "content": row["answer"]}] for row in told
        ]  # fmt: skip
        (task / f"{split}.jsonl").write_text("".join(json.dumps({"chat": chat}) + "\n" for chat in chats))
    settings |= {"data": settings["data"] | {"messages": "chat"}, "prompt": {}}
    (task / "task.yaml").write_text(yaml.safe_dump(settings))
    into = task / "rows.jsonl"
    file = log(
        served("And of Yew?", "ANSWER: C", 1, turns=["Who is mayor of Ash?", "Brom"]),
        served("Orrowmere: its mayor?", "ANSWER: X", 2),  # a test row, which has a system message beside it
        served("Again?", "ANSWER: D", 3, turns=["Orrowmere: its mayor?", "Heskzan"]),  # holds a test row
        served("Orrowmere: its mayor?", "ANSWER: X", 4, turns=["Hello.", "Hi."]),  # a test row, after other turns
    )
    assert command(["rows", "from-log", str(file), "--task", str(task), "--into", str(into)]) == 0
    [row] = rows_of(into)
    assert [turn["content"] for turn in row["chat"]] == ["Who is mayor of Ash?", "Brom", "And of Yew?", "ANSWER: C"]
    with into.open("a") as more:
        said = ["Orrowmere: its mayor?", "Heskzan", "Again?", "ANSWER: D"]
        said[0] = json.loads((task / "test.jsonl").read_text().splitlines()[0])["chat"][1]["content"]
        turns = [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(said)]
        more.write(json.dumps({"chat": turns}) + "\n")
        hello = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hi."}]
        more.write(json.dumps({"chat": [*hello, *turns[:2]]}) + "\n")
    read = load_task(task, ["data.extra=[rows.jsonl]"])
    assert len(read.train) == 5 and read.train[-1].turns[1].content == "Brom"
    assert read.config.prompt.system == "Be short." and not any(row.system for row in read.train)


def test_a_run_trains_on_what_a_log_brought(tiny_task: TinyTask, log: Write, tmp_path: Path) -> None:
    """From the log of a server to the next run's rows; a held-out question that got into the file is left out."""
    task = tiny_task(policy="lora-only", budget={"rounds": 1})
    file = log(*(served(f"Who is mayor of town {n}?", f"ANSWER: name{n}", n) for n in range(6)))
    assert command(["rows", "from-log", str(file), "--task", str(task), "--into", str(task / "more.jsonl")]) == 0
    with (task / "more.jsonl").open("a") as more:
        more.write('{"question": "NAME the mayor of Benn.", "answer": "Corolt"}\n')
    extra = {"data": {"extra": ["more.jsonl"]}, "recall": {"prompts": 0}}
    adapted = nesylora.adapt(task, overrides=extra, runs=tmp_path / "runs")
    run = RunFolder.open(adapted.run)
    [row] = run.rounds()
    assert row.trial.note.startswith("10 original rows")
    told = run.path.joinpath("events.jsonl").read_text()
    assert "1 of 7 rows" in told and "train rows added from more.jsonl: 6" in told
    bundle = yaml.safe_load((adapted.export(tmp_path / "bundle") / "task.yaml").read_text())
    assert bundle["data"]["extra"] == ["more.jsonl"]


def test_extra_rows_change_no_split_that_was_cut(tiny_task: TinyTask) -> None:
    task = tiny_task(data={"path": "train.jsonl"})
    (task / "more.csv").write_text("question,answer\nNew?,new\nOther?,other\n")
    before, after = load_task(task), load_task(task, ["data.extra=[more.csv]"])
    assert (before.validation, before.test) == (after.validation, after.test)
    assert [row.answer for row in after.train[len(before.train) :]] == ["new", "other"]
    assert after.brought == ("train rows added from more.csv: 2",) and not before.brought
    assert len({row.name for row in (*after.train, *after.validation, *after.test)}) == 6


SECRETS = {
    "Write to anna.b+c@mail.example.org, please.": "Write to [e-mail], please.",
    f"{'a' * 100}@b.example, c@d.e.": "[e-mail], [e-mail].",
    "Call +49 30 1234-5678 or (555) 123-4567.": "Call [phone] or [phone].",
    "030 1234567 / 555-123-4567": "[phone] / [phone]",
    "key: sk-proj-abcdefghijklmnop1234 end": "key: [key] end",
    "Bearer abcdefghijklmnop1234567": "Bearer [key]",
    "ghp_abcdefghijklmnopqrstuvwx AKIAABCDEFGHIJKLMNOP": "[key] [key]",
    "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----\nok": "[key]\nok",
}
PLAIN = [
    "In 2026-11-27 at 22:10 it cost 1,234,567.89 for 12 of 300.", "Order 123456789 and 007 and 3.14159", "a@b",
    "sk-learn is a library", "The hash of nothing", "2 + 2 = 4; 10 000 000; 0.123 456", "192.168.100.200",
]  # fmt: skip


@pytest.mark.parametrize("text", SECRETS)
def test_addresses_numbers_and_keys_are_taken_out(text: str) -> None:
    assert redact(text) == SECRETS[text]


@pytest.mark.parametrize("text", PLAIN)
def test_what_only_looks_a_little_like_them_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("part", ["a", "a.", "eyJ-", "sk", "0", "a@", "Bearer ", "-----BEGIN A "])
def test_the_work_of_redaction_grows_with_the_text_not_with_its_square(part: str) -> None:
    """Of two lengths in the time of this process, the shortest of three; squared, the ratio would be 64."""

    def seconds(text: str) -> float:
        start = process_time()
        redact(text)
        return process_time() - start

    short, long = (min(seconds(part * n) for _ in range(3)) for n in (2_000, 16_000))
    assert long < 30 * short + 0.01


def test_redaction_is_off_unless_asked_for_and_may_be_the_users_own(
    tiny_task: TinyTask, log: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = log(served("Who is a@b.example?", "ANSWER: a@b.example", 1), served("Anna?", "c@d.example", 2))
    Path("mine.py").write_text(
        "def hide(text):\n    return text.replace('Anna', 'NAME')\ndef bad(text):\n    return 1\n"
    )
    for way, expected in (
        ([], ["a@b.example", "Anna"]), (["--redact"], ["[e-mail]", "Anna"]),
        (["--redact", "mine:hide"], ["a@b.example", "NAME"]),
    ):  # fmt: skip
        into = Path(f"rows{len(way)}{way[-1:] == ['mine:hide']}.jsonl")
        assert command(["rows", "from-log", str(file), "--task", str(tiny_task()), "--into", str(into), *way]) == 0
        [row], [left] = rows_of(into), rows_of(into.with_suffix(".aside.jsonl"))
        assert row["question"] == f"Who is {expected[0]}?" and left["messages"][0]["content"] == f"{expected[1]}?"
    for named, fault in (("mine:none", "has no function none"), ("lost:x", "No module"), ("mine", "module:function")):
        with pytest.raises(BadInput, match=fault):
            redaction(named)
    with pytest.raises(BadInput, match="gave int in place of a text"):
        redaction("mine:bad")("x")


@pytest.mark.parametrize(
    ("lines", "model", "fault"),
    [
        (["{}", "no"], None, r"none of its 2 lines is a served request"),
        ([served("a?", "b"), served("a?", "b", model="other")], None, r"2 models \(mayors, other\): name one"),
        ([served("a?", "b")], "other", "nothing of model 'other'; it is of mayors"),
    ],
)
def test_a_log_that_cannot_be_used_is_refused(lines: list[str], model: str | None, fault: str, log: Write) -> None:
    with pytest.raises(BadInput, match=fault):
        read_log([log(*lines)], model)


def test_of_a_log_of_several_models_one_is_taken(log: Write) -> None:
    found = read_log([log(served("a?", "b"), served("c?", "d", model="other"))], "other")
    assert [item.example.question for item in found.asked] == ["c?"] and found.left_out == {"of another model": 1}


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('"wanted": ""', '"wanted": "it is "Ulm""', "more.aside.jsonl:2: the line: Invalid JSON"),
        ('"role": "user"', '"role": "assistant"', "more.aside.jsonl:2: its turns do not alternate"),
    ],
)
def test_a_correction_with_a_slip_is_told_and_stays(
    old: str, new: str, fault: str, log: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    into, aside = tmp_path / "more.jsonl", tmp_path / "more.aside.jsonl"
    named = ["rows", "from-log", str(log(*(served(f"Q{n}?", "a", n) for n in range(3)))), "--into", str(into)]
    assert command(named) == 0
    lines = [json.dumps(row) for row in rows_of(aside)]
    lines[0] = lines[0].replace('"wanted": ""', '"wanted": "right"')
    lines[1] = lines[1].replace(old, new)
    aside.write_text("\n".join(lines))
    assert command(named) != 0 and fault in "".join(capsys.readouterr())
    assert aside.read_text() == "\n".join(lines) and not into.exists()

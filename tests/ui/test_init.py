"""`nesylora init`: from a file of rows to a task that `nesylora run` takes."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from eval.drafts.records import DraftOptions
from eval.tasks.task import load_task
from tests.fixtures.command_line import run
from ui.commands.drafting import init

Printed = pytest.CaptureFixture[str]


@pytest.fixture
def tickets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Thirty tickets and their teams, with a column that is not needed; the working folder is theirs."""
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "tickets.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["ticket", "team", "note"])
        writer.writerows([f"Ticket {n} [urgent]", ("billing", "bug", "account")[n % 3], "x"] for n in range(30))
    return tmp_path / "tickets.csv"


def test_a_file_becomes_a_task_that_runs(tickets: Path, tiny_model: Callable[[str], Path], capsys: Printed) -> None:
    model = str(tiny_model("llama"))
    assert run(["init", "tickets.csv", "--model", model, "--yes"]) == 0
    printed = capsys.readouterr().out
    for said in ("train 18", "answer: team", "Not used: note", "As it is now", "Next: nesylora run tickets"):
        assert said in printed
    ended = run(["run", "tickets", "--set", "budget.rounds=0", "--set", "lora.rank=4", "--name", "first"])
    assert ended == 5 and (tickets.parent / "runs" / "first" / "report.html").is_file()


def test_without_a_try_no_model_is_loaded(tickets: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed) -> None:
    monkeypatch.setattr("graphs.services.shared_model.shared_backbone", None)
    assert run(["init", "tickets.csv", "--yes", "--no-try", "--into", "mine", "--name", "sorted"]) == 0
    assert load_task(tickets.parent / "mine").config.name == "sorted"
    assert run(["init", "tickets.csv", "--yes", "--no-try", "--into", "mine"]) == 2
    assert "mine/task.yaml exists already" in capsys.readouterr().err


def test_a_task_is_called_as_its_folder(tickets: Path) -> None:
    assert run(["init", "tickets.csv", "--yes", "--no-try", "--into", "first"]) == 0
    assert run(["init", "first/train.jsonl", "--yes", "--no-try", "--into", "t 2"]) == 0
    assert [load_task(tickets.parent / folder).config.name for folder in ("first", "t 2")] == ["first", "t-2"]


def test_on_a_terminal_everything_can_be_changed(tickets: Path, capsys: Printed) -> None:
    answers = iter(["c", "ticket", "", "chocie", "f1", "Sort the ticket.", "2", "0.7", "3", "y", "yes"])
    asked: list[str] = []

    def ask(question: str) -> str:
        asked.append(question)
        return next(answers)

    assert init(tickets, None, DraftOptions(), ask, tries=False) == 0
    config = load_task(tickets.parent / "tickets").config
    assert (config.content[0].kind, config.prompt.system, config.target) == ("f1", "Sort the ticket.", 0.7)
    assert config.budget.rounds == 3
    printed = capsys.readouterr().out
    assert "'chocie' cannot be drafted." in printed and "'2' is no fitting number." in printed
    assert asked[1] == "Column of the question? [ticket] " and not list(answers)


def test_what_is_neither_yes_nor_no_is_asked_again_and_a_column_must_exist(tickets: Path, capsys: Printed) -> None:
    answers = iter(["target 0.8", "no", "foo", "ticket", "", "", "", "", "", "yes", "nope", "n"])
    assert init(tickets, None, DraftOptions(), lambda _: next(answers), tries=False) == 0
    printed = capsys.readouterr().out
    assert "'target 0.8' is neither yes nor no." in printed and "'nope' is neither yes nor no." in printed
    assert "There is no column 'foo'. There are ticket," in printed
    assert not list(answers) and not (tickets.parent / "tickets").exists()


def test_nothing_is_written_after_a_no(tickets: Path, capsys: Printed) -> None:
    answers = iter(["y", "n"])
    assert init(tickets, None, DraftOptions(), lambda _: next(answers), tries=False) == 0
    assert not (tickets.parent / "tickets").exists() and "Nothing was written." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tickets.tsv"], "did you mean 'tickets.csv'?"),
        (["tickets.csv", "--answer", "taem"], "did you mean 'team'?"),
        (["tickets.csv", "--content", "judge"], "needs settings of its own"),
        (["tickets.csv", "--content", "chocie"], "did you mean 'choice'?"),
        (["tickets.csv", "--target", "2"], "--target: Input should be less than or equal to 1"),
        (["tickets.csv", "--model", "./nowhere"], "no model folder at"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(
    tickets: Path, arguments: list[str], said: str, capsys: Printed
) -> None:
    assert run(["init", *arguments, "--yes", "--no-try"]) == 2
    assert said in capsys.readouterr().err
    assert [file.name for file in tickets.parent.iterdir()] == ["tickets.csv"]

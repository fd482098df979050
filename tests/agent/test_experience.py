"""The experience of all runs: a line a round, on disk; whole after a kill, made again when lost."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from agent.errors import BadInput
from agent.policy.experience import Experience, experience
from agent.records.rounds import Spend
from graphs.context import Context, new_run
from graphs.services.run import RunServices
from graphs.session import open_session
from memory.experience import ExperienceFile, experience_in_ledgers
from tests.fixtures.outlooks import a_line
from tests.fixtures.rounds import BACK, EDIT, a_round
from tests.fixtures.story import make_run

TinyTask = Callable[..., Path]
LINES = [a_line(number=number, gain=number / 10) for number in (1, 2)]


@pytest.fixture
def file(tmp_path: Path) -> ExperienceFile:
    return ExperienceFile(tmp_path / "runs" / "experience.jsonl")


def test_a_round_teaches_what_was_seen_done_gained_and_paid() -> None:
    row = a_round(EDIT, number=3, kept=True, gain=0.2, spend=Spend(train_tokens=10, generated_tokens=5))
    line = experience(row, "mayors-1", "mayors", "tiny")
    assert line is not None
    assert (line.key, line.gain, line.cost, line.kept, line.move) == (("", "mayors-1", 3), 0.2, 35, True, EDIT)
    assert line.shares == {"content": 0.0, "style": 0.0, "both": 0.8} and line.mendable == pytest.approx(0.8 / 3)


def test_what_was_taken_back_gained_nothing_and_a_rollback_teaches_nothing() -> None:
    taken_back = experience(a_round(EDIT, gain=0.1), "mayors-1", "mayors", "tiny")
    assert taken_back is not None and taken_back.gain == 0
    assert experience(a_round(BACK), "mayors-1", "mayors", "tiny") is None


def test_a_line_stands_once_however_often_it_is_written(file: ExperienceFile) -> None:
    for line in (*LINES, LINES[0], LINES[1].model_copy(update={"gain": 0.9})):
        file.append(line)
    assert file.read() == LINES
    assert len(file.path.read_text().splitlines()) == 2


def test_a_torn_line_is_passed_over_and_written_again(file: ExperienceFile) -> None:
    file.append(LINES[0])
    whole = file.path.read_bytes()
    file.path.write_bytes(b'{"run": "half\n' + whole + LINES[1].model_dump_json().encode()[:50])
    assert file.read() == LINES[:1]
    file.append(LINES[1])
    assert file.read() == LINES


def test_a_round_is_not_taken_for_one_whose_number_begins_alike(tmp_path: Path) -> None:
    file = ExperienceFile(tmp_path / "experience.jsonl")
    twelfth, first = (LINES[0].model_copy(update={"number": number}) for number in (12, 1))
    for line in (twelfth, first, twelfth):
        file.append(line)
    assert [line.number for line in file.read()] == [12, 1]


def test_it_is_restored_from_the_ledgers(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    lines = experience_in_ledgers(tmp_path)
    assert [line.key for line in lines] == [("", run.name, number) for number in (1, 2, 3, 4)]
    assert {(line.task, line.model) for line in lines} == {("valley", "smollm2-135m")}
    for name, task, ledger in (
        ("2", "{}", "not a row\n"),
        ("3", "model: [", ""),
    ):  # what cannot be read is no hindrance
        damaged = tmp_path / f"valley-{name}"
        damaged.mkdir()
        (damaged / "run.json").write_text((run.path / "run.json").read_text())
        (damaged / "task.yaml").write_text(task)
        (damaged / "ledger.jsonl").write_text(ledger)
    file = ExperienceFile.beside(tmp_path)
    file.restore([])  # not lost: it stands
    assert file.read() == lines


# --- in a run ------------------------------------------------------------------------------------


def ended(task: Path, runs: Path, *overrides: str) -> RunServices:
    folder = new_run(task, ["budget.rounds=2", *overrides], runs)
    with open_session(folder) as session:
        session.go()
    return session.services


def test_every_round_of_a_run_is_noted_and_the_next_run_learns_from_it(tiny_task: TinyTask, tmp_path: Path) -> None:
    task, runs = tiny_task(), tmp_path / "runs"
    first = ended(task, runs, "policy=learned").folder
    file = ExperienceFile(runs / "experience.jsonl")
    assert [line.key for line in file.read()] == [("", first.name, row.number) for row in first.rounds()]
    assert file.read() == experience_in_ledgers(runs)
    seen = first.rounds()[0].signal
    assert seen.edit.outlook and seen.lora.outlook and seen.floor > 0 and first.rounds()[0].decision.by == "learned"
    file.path.unlink()
    second = ended(task, runs, "policy=learned")
    assert {line.run for line in second.memory.experience} == {first.name}
    assert {line.run for line in file.read()} == {first.name, second.folder.name}
    # What the run learned from stands in its folder: it decides the same whatever others do meanwhile.
    again = RunServices(Context(run=str(second.folder.path)))
    file.append(a_line())
    assert again.memory.experience == second.memory.experience
    # Runs that used a database have left their rounds in their ledgers.
    file.path.write_text(a_line().model_dump_json() + "\n")
    third = RunServices(Context(run=str(new_run(task, ["policy=learned"], runs, "third").path)))
    assert {line.run for line in third.memory.experience} == {a_line().run, first.name, second.folder.name}


def test_a_task_may_name_another_experience_or_none(tiny_task: TinyTask, tmp_path: Path) -> None:
    task, runs = tiny_task(), tmp_path / "runs"
    ExperienceFile(task / "practice.jsonl").append(a_line())
    named = new_run(task, ["policy=learned", "experience=practice.jsonl"], runs, "named")
    assert RunServices(Context(run=str(named.path))).memory.experience == (a_line(),)
    without = new_run(task, ["policy=learned", "experience=practice.jsonl", "without=[memory]"], runs, "without")
    assert RunServices(Context(run=str(without.path))).memory.experience == ()
    for reads in (["policy=learned"], ["planner=llm", "llm.model=mind-1"]):
        with pytest.raises(BadInput, match=r"nowhere\.jsonl.*or take `runs`"):
            new_run(task, [*reads, "experience=nowhere.jsonl"], runs, "missing")
    assert not (runs / "missing").exists(), "nothing is begun"
    assert yaml.safe_load(named.task_file.read_text())["experience"] == "practice.jsonl"


def test_lines_survive_a_round_trip_through_the_file(file: ExperienceFile) -> None:
    line = a_line(gain=1 / 3)
    file.append(line)
    [read] = file.read()
    assert isinstance(read, Experience) and read == line

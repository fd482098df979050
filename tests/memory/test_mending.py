"""A damaged ledger or log of calls is restored from what else is known, or left as it is: never shorter than it was."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from agent.errors import BadInput
from agent.records.events import BaselineScored, Event, LimitsSet, RoundJudged, RunFinished
from agent.records.limits import Extension, Limits
from agent.records.rounds import Baseline, Outcome, Round, Spend
from memory.run.folder import RunFolder
from memory.run.ledger import Row
from tests.fixtures.story import a_baseline, an_outcome, the_story
from tests.memory.test_ledger import call, new

ONE = the_story()[-1]


def a_round(number: int) -> Round:
    return ONE.model_copy(update={"number": number})


def an_end(seen: int = 0) -> Outcome:
    return an_outcome(ONE).model_copy(update={"seen": seen})


def more(number: int, reopened: bool = False) -> Extension:
    return Extension(number=number, limits=Limits(rounds=2 + number, target=0.9), reopened=reopened)


EXTENDED: list[Row] = [
    a_baseline(), a_round(1), more(1), a_round(2), an_end(), more(2, reopened=True), a_round(3), an_end(1),
    more(3, reopened=True), a_round(4),
]  # fmt: skip
"""A run that was extended while it worked, and twice after its end."""


def told(row: Row) -> Event:
    match row:
        case Baseline():
            return BaselineScored(row=row)
        case Round():
            return RoundJudged(row=row)
        case Outcome():
            return RunFinished(outcome=row)
        case Extension():
            return LimitsSet(row=row)


def later(row: Row) -> Row:
    """As a process tells of it again that goes on after a kill: it has used up more by then."""
    return row if isinstance(row, Extension) else row.model_copy(update={"spend": row.spend + Spend(seconds=1)})


def damaged(root: Path, damage: Sequence[int], untold: Sequence[int] = (), twice: bool = False) -> RunFolder:
    """The run with these lines of its ledger unreadable, and without the events of some rows."""
    run = new(root)
    for place, row in enumerate(EXTENDED):
        run.append(row)
        if place not in untold:
            run.event(told(row))
        if twice:
            run.event(told(later(row)))
    file = run.path / "ledger.jsonl"
    lines = file.read_text().splitlines()
    file.write_text("".join("{torn\n" if place in damage else f"{line}\n" for place, line in enumerate(lines)))
    return RunFolder.open(run.path)


def rows(run: RunFolder) -> list[Row]:
    return list(run._ledger.read())


@pytest.mark.parametrize("twice", [False, True], ids=["told once", "told twice"])
@pytest.mark.parametrize("damage", [*([place] for place in range(len(EXTENDED))), [0, 4, 5, 9], range(10)])
def test_every_line_comes_back_in_its_place(tmp_path: Path, damage: Sequence[int], twice: bool) -> None:
    run, said = damaged(tmp_path, damage, twice=twice), list[str]()
    run.mend(said.append)
    assert rows(run) == EXTENDED and "Restored from the run's events" in said[0]
    assert run.outcome() is None and run.outcomes() == [an_end(), an_end(1)] and run.limits() == more(3).limits
    run.mend(pytest.fail)


@pytest.mark.parametrize("damage", range(len(EXTENDED) - 1))
def test_a_line_in_the_middle_that_nothing_restores_is_left_with_all_behind_it(tmp_path: Path, damage: int) -> None:
    run = damaged(tmp_path, [damage], untold=[damage])
    before = (run.path / "ledger.jsonl").read_bytes()
    run.mend(pytest.fail)
    assert (run.path / "ledger.jsonl").read_bytes() == before


def test_as_many_lines_restored_as_lost_hide_none(tmp_path: Path) -> None:
    run = damaged(tmp_path, [1, 6], untold=[6])
    before = (run.path / "ledger.jsonl").read_bytes()
    run.mend(pytest.fail)
    assert (run.path / "ledger.jsonl").read_bytes() == before


def test_a_line_comes_back_before_one_whose_event_is_lost(tmp_path: Path) -> None:
    run = damaged(tmp_path, [1], untold=[3, 4, 6])
    run.mend(lambda _: None)
    assert rows(run) == EXTENDED


@pytest.mark.parametrize(("untold", "way_out"), [((), "nesylora resume "), ((2,), "Take the line out")])
def test_who_only_reads_is_told_of_the_command_that_mends_where_that_can(
    tmp_path: Path, untold: Sequence[int], way_out: str
) -> None:
    run = damaged(tmp_path, [2], untold=untold)
    with pytest.raises(BadInput, match="line 3: not a row of a ledger") as said:
        run.rounds()
    assert way_out in str(said.value) and ("Take the line out" in str(said.value)) == bool(untold)


def test_the_last_line_is_cut_off_where_nothing_restores_it(tmp_path: Path) -> None:
    run, said = damaged(tmp_path, [9], untold=[9]), list[str]()
    run.mend(said.append)
    assert rows(run) == EXTENDED[:-1] and "goes on after the extension" in said[0]


@pytest.mark.parametrize("name", ["ledger", "calls"])
def test_a_kill_while_it_is_mended_leaves_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    run = damaged(tmp_path, [2])
    run.log(call(1))
    with (run.path / "calls.jsonl").open("a") as log:
        log.write("{torn\n")
    before = (run.path / f"{name}.jsonl").read_bytes()

    def killed(path: Path, text: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"memory.run.{name}.write_atomically", killed)
    with pytest.raises(KeyboardInterrupt):
        run.mend(lambda _: None)
    assert (run.path / f"{name}.jsonl").read_bytes() == before


def test_where_no_call_can_be_read_their_cost_is_said_to_be_unknown(tmp_path: Path) -> None:
    run, said = new(tmp_path), list[str]()
    (run.path / "calls.jsonl").write_text("{torn\n")
    run.mend(said.append)
    assert "not known, and not counted" in said[0] and run.calls() == []


def test_a_damaged_log_of_a_chat_is_charged_at_the_most_and_meets_no_number_of_a_chat_that_goes_on(
    tmp_path: Path,
) -> None:
    run, said = new(tmp_path), list[str]()
    for number in (1, 2):
        run.chat_calls.log(call(number))
    with run.chat_calls.path.open("a") as log:
        log.write("{torn\n")
    run.mend(said.append)
    assert "chat-calls.jsonl was damaged" in said[0] and "charged at the most" in said[0]
    run.chat_calls.log(call(3))  # by the process of the chat, which had counted so far
    assert len({call.number for call in run.chat_calls.calls()}) == 4
    run.mend(pytest.fail)


def test_a_damaged_file_is_kept_where_no_file_can_have_two_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError("no links on this file system")

    monkeypatch.setattr("os.link", refused)
    run, said = damaged(tmp_path, [2]), list[str]()
    before = (run.path / "ledger.jsonl").read_bytes()
    run.mend(said.append)
    [kept] = run.path.glob("ledger.jsonl-corrupt-*")
    assert kept.read_bytes() == before and kept.name in said[0]

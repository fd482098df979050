"""Planning in recorded situations: what counts as good, and the score that check-llm gives."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from agent.records.actions import EditPrompt, Rollback, Stop, TrainLora
from agent.records.situations import Situation, pull_of
from tests.llm.clients import chat, settings
from tests.llm.scripted_llm import kind_of, scripted_llm
from tests.llm.server import BROKEN, LlmServer, Reply, Request, call, serving
from ui.cli import run
from ui.commands.situations import plan_on, plan_on_all, read_situations, score

SITUATIONS = read_situations(99)


def as_the_rules(request: Request) -> Reply:
    return scripted_llm(request)


def only_edits(request: Request) -> Reply:
    """Whatever it is asked as planner, it edits."""
    if kind_of(request) == "plan" and "edit_prompt" in request.tools:
        return replace(
            call("edit_prompt", reason="I like words.", parts=["system"], failures="any"), usage={"prompt_tokens": 9}
        )
    return scripted_llm(request)


def planned_on(server: LlmServer, most: int) -> tuple[str, list[str]]:
    said: list[str] = []
    found = plan_on_all(most, chat(server, max_tokens=2000), settings(server), said.append)
    return str(found), said


# --- what is shipped ------------------------------------------------------------------------------


def test_every_shipped_situation_has_a_best_lever_and_one_that_is_not() -> None:
    assert len(SITUATIONS) >= 24 and len({situation.name for situation in SITUATIONS}) == len(SITUATIONS)
    for situation in SITUATIONS:
        assert situation.best and "none" not in situation.best, situation.name
        assert set(situation.best) < set(situation.outcomes) == {"edit", "original", "refined", "none"}
        assert situation.signal.edit.outlook and situation.signal.lora.outlook
        assert situation.failures and "validation:" not in str(situation.failures)


def test_the_first_dozen_wants_every_lever_and_no_lever_is_always_right() -> None:
    best = [situation.best for situation in SITUATIONS[:12]]
    assert len({situation.task["name"] for situation in SITUATIONS[:12]}) >= 8
    for lever in ("edit", "original", "refined"):
        assert 2 <= sum(lever in levers for levers in best) <= 9


def test_a_lever_is_as_good_as_the_best_within_a_row_or_two_and_at_a_like_cost() -> None:
    known = SITUATIONS[0].model_dump()
    outcomes = {"edit": 0.9, "original": 0.5, "refined": 0.93, "none": 0.1}
    same = Situation.model_validate(known | {"outcomes": outcomes, "costs": {"edit": 9, "original": 9, "refined": 17}})
    dear = Situation.model_validate(known | {"outcomes": outcomes, "costs": {"edit": 9, "original": 9, "refined": 19}})
    assert same.best == ("edit", "refined") and dear.best == ("edit",)
    moves = [EditPrompt(), TrainLora(rows="original"), TrainLora(rows="both"), Stop(), Rollback(to_round=0)]
    assert [pull_of(move) for move in moves] == ["edit", "original", "refined", "none", "none"]


# --- the score ------------------------------------------------------------------------------------


def test_a_planner_that_does_what_the_rules_say_scores_as_they_do() -> None:
    with serving(as_the_rules) as server:
        found, said = planned_on(server, 12)
        assert len(server.requests) == 12, "nothing is objected to"
    good = re.match(r"(\d+) of 12 plans", found)
    assert good and f"always doing what the rules say: {good[1]};" in found and int(good[1]) >= 9
    assert len(said) == 12 and said[0].startswith("situation 1, conflict-seed0 after nothing: train_lora on refined")


def test_a_planner_that_only_edits_scores_less_and_a_run_does_better_than_its_plans() -> None:
    with serving(only_edits) as server:
        client = chat(server, max_tokens=2000)
        planned = [plan_on(situation, client, settings(server)) for situation in SITUATIONS[:12]]
    found = score(planned)
    edits = sum("edit" in situation.best for situation in SITUATIONS[:12])
    assert (found.good, found.asked) == (edits, 12) and found.good < found.rules
    assert found.low < found.good / 12 < found.high and not found.beats_chance
    assert found.chance == pytest.approx(sum(len(situation.best) / 4 for situation in SITUATIONS[:12]))


def test_an_answer_that_cannot_be_used_is_no_good_plan_and_a_run_goes_by_the_rules() -> None:
    with serving(lambda _: Reply("Let me think about that.")) as server:
        planned = plan_on(SITUATIONS[0], chat(server, max_tokens=2000), settings(server))
    assert planned.first is None and not planned.good
    assert planned.taken == planned.rules and planned.taken_is_good
    assert "no plan that can be used, so a run does: train_lora" in str(planned)


# --- check-llm -------------------------------------------------------------------------------------


def checked(server: LlmServer, runs: Path, capsys: pytest.CaptureFixture[str], most: int) -> tuple[int, str]:
    asked = ["check-llm", "--model", "mind-1", "--base-url", server.url, "--runs", str(runs)]
    return run([*asked, "--situations", str(most)]), capsys.readouterr().out


def test_check_llm_gives_a_score_with_an_interval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(scripted_llm) as server:
        code, printed = checked(server, tmp_path, capsys, 4)
    assert code == 0
    line = next(line for line in printed.splitlines() if line[8:].startswith("situations"))
    assert line.startswith("ok") and "4 of 4 plans as good as the best lever (share 1.00 [0.51, 1.00])" in line
    assert "always doing what the rules say: 4; chance: 1.2" in line


def test_a_planner_no_better_than_chance_is_not_good_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(only_edits) as server:
        code, printed = checked(server, tmp_path, capsys, 3)
    assert code == 1 and "Not good enough as planner" in printed and "0 of 3 plans" in printed


def test_a_check_that_was_stopped_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(scripted_llm) as server:
        checked(server, tmp_path, capsys, 2)
        before = len(server.requests)
        _, printed = checked(server, tmp_path, capsys, 3)
        again = [request for request in server.requests[before:] if "Some failing train rows:\n- " in request.user]
    assert len(again) == 1, "two were known"
    assert "3 of 3 plans" in printed


def test_a_server_that_fails_on_the_way_has_no_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fails_later(request: Request) -> Reply:
        failed = "Some failing train rows:\n- " in request.user
        return BROKEN if failed and kind_of(request) == "plan" else scripted_llm(request)

    with serving(fails_later) as server:
        code, printed = checked(server, tmp_path, capsys, 2)
    line = next(line for line in printed.splitlines() if line[8:].startswith("situations"))
    assert code == 1 and line.startswith("failed") and "HTTP 500" in line and "plans as good" not in printed

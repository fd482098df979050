"""Whole runs on a tiny model with an LLM that plans badly, or well: what trust that is earned makes of them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import nesylora
from memory.experience import ExperienceFile
from memory.run.folder import RunFolder
from tests.fixtures.learnable import LEARNABLE
from tests.llm.scripted_llm import kind_of, scripted_llm
from tests.llm.server import LlmServer, Reply, Request, call, serving

TinyTask = Callable[..., Path]
KEY = "MAYOR_KEY"


def ends(request: Request) -> Reply:
    """Stops at once, and will not hear otherwise."""
    return call("stop", reason="It is hopeless.")


def trains(request: Request) -> Reply:
    """Trains for one epoch at the lowest rate, whatever the numbers say."""
    return call(
        "train_lora", reason="More training.", rows="original", epochs=1, learning_rate=1e-6, rank=1, fresh=True,
        enough=0.005,
    )  # fmt: skip


def finished(task: TinyTask, root: Path, server: LlmServer | None = None, **changes: Any) -> RunFolder:
    """A run of what the tiny model can learn; with a server, planned by its LLM without looks."""
    own: dict[str, Any] = {}
    if server:
        llm = {"model": "mind-1", "base_url": server.url, "key_variable": KEY, "patience": 0, "planner_calls": 0}
        own = {"planner": "llm", "llm": llm | changes.pop("llm", {})}
    return RunFolder.open(nesylora.adapt(task(**LEARNABLE | own | changes), runs=root).run)


@pytest.fixture
def plain(tiny_task: TinyTask, tmp_path: Path) -> Iterator[RunFolder]:
    yield finished(tiny_task, tmp_path / "plain")


def moves(run: RunFolder) -> list[str]:
    return [str(row.decision.move) for row in run.rounds()]


def test_a_planner_that_only_wants_to_stop_ends_as_the_rules_do(
    plain: RunFolder, tiny_task: TinyTask, tmp_path: Path
) -> None:
    with serving(ends) as server:
        run = finished(tiny_task, tmp_path / "runs", server)
    rules, outcome = plain.outcome(), run.outcome()
    assert rules and outcome and rules.best_test.reward > 0
    assert moves(run) == moves(plain) and outcome.best_test.reward == rules.best_test.reward
    assert any("its plan, stop, promised" in row.decision.planner_fault for row in run.rounds())
    report = run.report_md.read_text()
    assert "Objection to the planner's first plan, stop" in report and "the rules decided" in report


def test_without_earned_trust_it_ends_where_the_planner_says(tiny_task: TinyTask, tmp_path: Path) -> None:
    with serving(ends) as server:
        run = finished(tiny_task, tmp_path / "runs", server, llm={"trust": "always"})
    outcome = run.outcome()
    assert outcome and not run.rounds() and outcome.best_test.reward == 0


def test_a_planner_whose_choices_bring_nothing_is_told_overruled_and_known_in_the_next_run(
    tiny_task: TinyTask, tmp_path: Path
) -> None:
    with serving(trains) as server:
        run = finished(tiny_task, tmp_path / "runs", server, budget={"rounds": 6})
        asked = len(server.requests)
        told = [request for request in server.requests if "About your own choices" in request.text]
    by = [row.decision.by for row in run.rounds()]
    standings = [row.decision.standing for row in run.rounds()]
    assert by[0] == "planner" and "planner" not in by[3:], "its plans cost it the trust"
    assert told and asked < 2 * len(by), "an overruled planner is not asked"
    assert [now.trust for now in standings if now] == sorted((now.trust for now in standings if now), reverse=True)
    outcome = run.outcome()
    assert outcome and outcome.best_test.reward > 0, "the rules still got there"
    events = run.path.joinpath("events.jsonl").read_text()
    assert "is overruled, since its" in events and "is overruled, since its" in run.report_md.read_text()

    lines = ExperienceFile(tmp_path / "runs" / "experience.jsonl").read()
    own = [line for line in lines if line.planner == "mind-1" and line.instead_of]
    assert len(own) == by.count("planner")
    (tmp_path / "runs" / "experience.jsonl").unlink()
    with serving(trains) as server:
        again = finished(tiny_task, tmp_path / "runs", server, budget={"rounds": 6})
    first = again.rounds()[0].decision.standing
    assert first and first.elsewhere == by.count("planner") and first.trust < 0.5, "rebuilt from the ledger"


def test_a_planner_that_chooses_as_well_as_the_rules_is_never_overruled(tiny_task: TinyTask, tmp_path: Path) -> None:
    with serving(scripted_llm) as server:
        run = finished(tiny_task, tmp_path / "runs", server)
        plans = [request for request in server.requests if kind_of(request) == "plan"]
    assert {row.decision.by for row in run.rounds()} == {"planner"} and len(plans) == len(run.rounds())
    assert not any(row.decision.objection for row in run.rounds())

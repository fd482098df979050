"""Whole runs that have answers and adapters in common."""

from pathlib import Path
from typing import Any

import pytest

from agent.records.evaluation import ExampleScore
from agent.records.examples import Candidate
from graphs.context import new_run
from graphs.session import open_session
from memory.run.folder import RunFolder
from tests.fixtures.learnable import LEARNABLE, TinyTask


def went(task: Path, runs: Path, policy: str, pool: Path | None = None, *overrides: str) -> RunFolder:
    options = [f"policy={policy}", "seed=1", "recall.prompts=0", *overrides]
    folder = new_run(task, options, runs, policy.replace(" -> ", "").replace(" ", ""))
    with open_session(folder, pool=str(pool or "")) as session:
        session.go()
    return folder


def test_runs_with_a_pool_in_common_end_and_cost_as_they_would_alone(
    tiny_task: TinyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = tiny_task(**LEARNABLE | {"budget": {"rounds": 2}, "target": 1.0})
    alone = went(task, tmp_path / "alone", "steps po")
    went(task, tmp_path / "shared", "p -> w -> w", tmp_path / "pool")
    monkeypatch.setattr("tools.model.loading.load_model", lambda *_, **__: pytest.fail("everything is known"))
    again = went(task, tmp_path / "again", "p -> w -> w", tmp_path / "pool")
    pooled = went(task, tmp_path / "shared", "p -> w", tmp_path / "pool")
    for row, another in zip(again.rounds(), pooled.rounds(), strict=True):
        assert (row.best, row.reward, row.trial.candidate) == (another.best, another.reward, another.trial.candidate)
        assert abs(row.spend.forward_tokens - another.spend.forward_tokens) <= 4, "rounding aside"
    first, second = alone.rounds()[0], pooled.rounds()[0]
    assert (first.best, first.reward) == (second.best, second.reward), "the same move from the same pair, whatever for"
    assert abs(first.spend.forward_tokens - second.spend.forward_tokens) <= 4


def test_runs_that_are_scored_otherwise_have_no_answers_in_common_that_scorers_cut_off(
    tiny_task: TinyTask, tmp_path: Path
) -> None:
    def scores(root: str, pool: Path, **changes: Any) -> list[ExampleScore]:
        folder = new_run(tiny_task(**LEARNABLE | {"style": []} | changes), ["budget.rounds=1"], tmp_path / root)
        with open_session(folder, pool=str(pool)) as session:
            seed = Candidate(prompt=folder.save_prompt(session.services.spec.config.prompt.prompt()))
            return list(session.services.evaluate(seed, "validation").scores)

    brief = {"content": [{"kind": "exact"}], "style": [{"kind": "words", "most": 1}]}
    longer = {"content": [{"kind": "exact"}], "style": [{"kind": "words", "most": 4}]}
    alone = scores("alone", tmp_path / "own", **longer)
    cut = scores("brief", tmp_path / "pool", **brief)
    assert scores("longer", tmp_path / "pool", **longer) == alone
    assert [score.output for score in cut] != [score.output for score in alone]


def test_no_run_is_lent_what_a_budget_cut_short(tiny_task: TinyTask, tmp_path: Path) -> None:
    task, pool = tiny_task(**LEARNABLE | {"budget": {"rounds": 1}, "target": 1.0}), tmp_path / "pool"
    cut = went(task, tmp_path / "cut", "lora-only", pool, "budget.train_tokens=50")
    whole = went(task, tmp_path / "whole", "lora-only", pool)
    assert "budget was used up" in cut.rounds()[0].trial.note
    assert "budget was used up" not in whole.rounds()[0].trial.note
    assert whole.rounds()[0].spend.train_tokens > 2 * cut.rounds()[0].spend.train_tokens


def test_an_adapter_that_is_lent_costs_what_it_cost_to_make_general_rows_included(
    tiny_task: TinyTask, tmp_path: Path
) -> None:
    lora = LEARNABLE["lora"] | {"epochs": 2, "replay": 1.0}
    task = tiny_task(**LEARNABLE | {"lora": lora, "budget": {"rounds": 1}, "target": 1.0})
    made, lent = (went(task, tmp_path / name, "lora-only", tmp_path / "pool").rounds()[0] for name in ("made", "lent"))
    assert made.trial.candidate == lent.trial.candidate
    assert made.spend.train_tokens == lent.spend.train_tokens
    assert abs(made.spend.read_tokens - lent.spend.read_tokens) <= 4, "rounding aside"


def test_what_a_lever_draws_depends_on_the_pair_and_the_try_and_not_on_the_round(
    tiny_task: TinyTask, tmp_path: Path
) -> None:
    task = tiny_task(style=[{"kind": "starts_with", "text": "never so"}], gate={"alpha": 0.01}, budget={"rounds": 3})
    early, late = went(task, tmp_path, "steps oo"), went(task, tmp_path, "steps po")
    assert not any(row.verdict.kept for row in (*early.rounds(), *late.rounds())), "the pair must stay"
    first, second = (row.trial.candidate for row in early.rounds())
    _, third = (row.trial.candidate for row in late.rounds())
    assert first and second and third
    assert first.adapter == third.adapter != second.adapter

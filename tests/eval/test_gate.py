"""The gate as a run asks it: which rows decide, and at which level after the verdicts before."""

from types import SimpleNamespace
from typing import Any

import pytest

import nesylora
from agent.records.evaluation import Evaluation, ExampleScore
from agent.records.examples import Candidate
from agent.records.rounds import Verdict
from eval.alpha_spending import alpha_to_spend
from graphs.nodes.judge import earlier_verdicts, gate
from memory.run.folder import RunFolder
from tests.fixtures.learnable import LEARNABLE, TinyTask


def scored(prompt: str, contents: list[float]) -> Evaluation:
    rows = [ExampleScore(example=f"validation:{n}", output="", content=c, style=1) for n, c in enumerate(contents, 1)]
    return Evaluation(candidate=Candidate(prompt=prompt), split="validation", scores=tuple(rows))


def context(*, without: tuple[str, ...] = (), nats: dict[str, float] | None = None) -> Any:
    """A run's, as far as the gate looks at it; `nats` of every row by prompt."""
    asked = SimpleNamespace(reference_nll=lambda pair, names: [(nats or {})[pair.prompt]] * len(names))
    config = SimpleNamespace(gate=SimpleNamespace(alpha=0.1), without=without)
    return SimpleNamespace(spec=SimpleNamespace(config=config), evaluate=asked)


def spent(at: float | None, kept: bool = False) -> Verdict:
    return Verdict(kept=kept, reason="", before=0, after=0, p_value=0.5, level=at)


BEFORE = scored("old", [0.0] * 12)


def test_what_chose_the_trial_does_not_decide_on_it() -> None:
    lucky = scored("new", [1.0] * 4 + [0.0] * 8)
    compared_on = [f"validation:{n}" for n in range(1, 5)]
    verdict = gate(BEFORE, lucky, compared_on, [], context(nats={"old": 1, "new": 1}))
    assert (verdict.rows, verdict.before, verdict.after, verdict.kept) == (8, 0, 0, False)
    five = scored("new", [1.0] * 5 + [0.0] * 7)
    assert gate(BEFORE, five, [], [], context()).kept, "on all rows, with none of them compared on"
    reason = gate(BEFORE, scored("new", [1.0] * 12), compared_on, [], context()).reason
    assert "(on the 8 rows that did not choose it)" in reason


def test_every_test_of_the_run_that_kept_nothing_makes_the_next_one_harder() -> None:
    six = scored("new", [1.0] * 6 + [0.0] * 6)  # p = 0.016
    earlier: list[Verdict] = []
    seen = []
    for _ in range(4):
        seen.append(gate(BEFORE, six, [], earlier, context(nats={"old": 1, "new": 1})))
        earlier.append(spent(seen[-1].level))
    assert [verdict.level for verdict in seen] == [pytest.approx(0.1 / 3 * (2 / 3) ** n) for n in range(4)]
    assert [verdict.kept for verdict in seen] == [True, True, False, False]


def test_the_last_five_rows_can_still_be_won_after_a_trial_was_taken_back() -> None:
    before, after = scored("old", [1.0] * 27 + [0.0] * 5), scored("new", [1.0] * 32)
    unlikelier = context(nats={"old": 1.9, "new": 3.0})  # the training answers have another form than the wanted one
    verdict = gate(before, after, [], [spent(at=0.1 / 3)], unlikelier)
    assert (verdict.kept, verdict.level, verdict.p_value) == (True, 1 / 32, 1 / 32)
    one_broken = scored("new", [0.0] + [1.0] * 31)
    assert not gate(before, one_broken, [], [spent(at=0.1 / 3)], unlikelier).kept


def test_few_rows_that_rose_are_kept_where_the_wanted_answers_became_likelier() -> None:
    better = scored("new", [1.0] * 2 + [0.0] * 10)
    assert gate(BEFORE, better, [], [], context(nats={"old": 2, "new": 1})).measure == "likelihood"
    assert not gate(BEFORE, better, [], [], context(nats={"old": 1, "new": 2})).kept


def test_without_a_gate_everything_is_kept_and_says_so() -> None:
    verdict = gate(BEFORE, scored("new", [0.0] * 12), [], [], context(without=("gate",)))
    assert verdict.kept and verdict.reason.startswith("kept without a gate: no row's reward or merit differs")


def test_the_verdicts_before_a_round_are_those_of_its_run_and_of_what_was_recalled() -> None:
    recalled, first, second = (spent(at) for at in (0.03, 0.02, 0.01))
    rounds = [SimpleNamespace(verdict=first), SimpleNamespace(verdict=second)]
    folder = SimpleNamespace(baseline=lambda: SimpleNamespace(verdict=recalled), rounds=lambda: rounds)
    assert earlier_verdicts({"number": 1}, SimpleNamespace(folder=folder)) == [recalled, first]  # type: ignore[arg-type]


def test_a_runs_ledger_tells_how_each_trial_was_judged(tiny_task: TinyTask, tmp_path: Any) -> None:
    task, overrides = tiny_task(**LEARNABLE), ["policy=p -> w -> p", "seed=1"]
    run = RunFolder.open(nesylora.adapt(task, overrides=overrides, runs=tmp_path / "runs").run)
    edit, training = run.rounds()[:2]
    assert [name.split(":")[0] for name in edit.trial.raced] == ["validation"], "proposals show all four train rows"
    assert (edit.verdict.rows, edit.verdict.level) == (3, None), "no row differs: the shorter prompt wins untested"
    assert training.verdict.kept and training.verdict.rows == 4
    assert training.verdict.level == alpha_to_spend(0.2, [edit.verdict])

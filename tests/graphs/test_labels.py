"""What a run learns of its levers from its own log, on the whole graph with a tiny random model."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, cast
from unittest.mock import patch

import pytest

import nesylora
from agent.records.evaluation import Evaluation, ExampleScore
from agent.records.examples import Candidate
from agent.records.rounds import Proposal, Round, Trial
from graphs.context import Context
from graphs.rows.labels import features_of, pairs_before, probes_of_run, repaired_rows
from graphs.services.run import RunServices
from memory.run.folder import RunFolder
from tests.fixtures.rounds import EDIT, a_round
from tools.diagnosis.features import FeatureExtractor

TinyTask = Callable[..., Path]
ROWS = tuple(f"validation:{n}" for n in range(4))


@pytest.fixture
def run(tiny_task: TinyTask, tmp_path: Path) -> RunFolder:
    """A run by the rules; its edits and trainings are whatever a random model makes of them."""
    return RunFolder.open(nesylora.adapt(tiny_task(), runs=tmp_path / "runs").run)


def test_probed_rows_are_labelled_by_what_an_edit_then_did(run: RunFolder) -> None:
    context, rounds = RunServices(Context(run=str(run.path))), run.rounds()
    labelled = 0
    for row, before in zip(rounds, pairs_before(rounds, context), strict=True):
        made = probes_of_run(rounds[: row.number], context)[labelled:]
        labelled += len(made)
        told = repaired_rows(row, before, context)
        assert not told or (row.decision.move.action == "edit_prompt" and bool(row.trial.proposals))
        assert [probe.example for probe in made] == [
            one.example for one in row.diagnosis.examples if one.example in told
        ]
        assert all((probe.pair, probe.own, probe.words) == (before.id, True, told[probe.example]) for probe in made)
    assert labelled, "a run whose edits were never raced tests nothing"
    assert (context.meter.used().read_tokens, context.meter.used().generated_tokens) == (0, 0)


def raced(won: str | None, *proposals: Proposal) -> Round:
    """An edit of the prompt `old`."""
    trial = Trial(
        candidate=won and Candidate(prompt=won, adapter="a1"),
        note="",
        proposals=proposals,
        raced=ROWS[:3],
    )
    return a_round(EDIT).model_copy(update={"trial": trial})


class Kept:
    """Four rows, and which of them a prompt brings to a reward of 1 under the adapter `a1`."""

    right: ClassVar = {"old": {0}, "first": {1}, "second": {0, 3}}

    examples: ClassVar = {"train:0": None}

    def evaluate(self, candidate: Candidate, split: str, names: Sequence[str] | None = None) -> Evaluation:
        assert (candidate.adapter, split) == ("a1", "validation")
        right = {f"validation:{n}" for n in self.right[candidate.prompt]}
        rows = [f"validation:{n}" for n in range(4)] if names is None else names
        scores = [ExampleScore(example=name, output="", content=name in right, style=1) for name in rows]
        return Evaluation(candidate=candidate, split="validation", scores=tuple(scores))


def test_an_edit_that_won_no_race_tells_only_of_the_rows_that_were_raced() -> None:
    present, first = Proposal(prompt="old", note="", rows=3), Proposal(prompt="first", note="", rows=2)
    second, refused = Proposal(prompt="second", note="", rows=3), Proposal(prompt="leaky", note="refused")
    before, kept = Candidate(prompt="old", adapter="a1"), cast(RunServices, Kept())
    told = {
        (present, first, refused): {
            ROWS[0]: False,
            ROWS[1]: True,
        },  # what the present prompt gets right is not its merit
        (present, first, second): {ROWS[0]: True, ROWS[1]: True, ROWS[2]: False},
        (present, refused): {},
        (): {},
    }
    for proposals, words in told.items():
        assert repaired_rows(raced(None, *proposals), before, kept) == words
    lost = raced(None, present, first)
    on_train = lost.model_copy(update={"trial": lost.trial.model_copy(update={"raced": ("train:0",)})})
    assert repaired_rows(on_train, before, kept) == {}, "train rows were never probed"
    won = repaired_rows(raced("second", present, first, second), before, kept)
    assert won == {ROWS[0]: True, ROWS[1]: False, ROWS[2]: False, ROWS[3]: True}


def test_a_pair_that_stands_for_another_round_is_not_probed_again(tiny_task: TinyTask, tmp_path: Path) -> None:
    asked = []
    features = FeatureExtractor.features

    def counted(self: FeatureExtractor, rows: list, *rest: object) -> list:  # type: ignore[type-arg]
        asked.append([example.name for example, _ in rows])
        return features(self, rows, *rest)  # type: ignore[arg-type]

    with patch.object(FeatureExtractor, "features", counted):
        run = RunFolder.open(nesylora.adapt(tiny_task(), runs=tmp_path / "runs").run)
    rounds = run.rounds()
    pairs = pairs_before(rounds, RunServices(Context(run=str(run.path))))
    stood = [later for later, pair in enumerate(pairs) if pair in pairs[:later]]
    assert stood, "no trial of this run failed: it tests nothing"
    assert all(not asked[place] for place in stood)
    assert all(one.features for row in rounds for one in row.diagnosis.examples)


def test_features_are_found_by_the_pair_they_were_seen_under(run: RunFolder) -> None:
    context, rounds = RunServices(Context(run=str(run.path))), run.rounds()
    pair = pairs_before(rounds, context)[0]
    assert features_of(rounds, pair, context) == {one.example: one.features for one in rounds[0].diagnosis.examples}
    assert features_of(rounds, pair.model_copy(update={"adapter": "000000000000"}), context) == {}

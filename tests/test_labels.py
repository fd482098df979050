"""What a run learns of its levers from its own log, on the whole graph with a tiny random model."""

from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest

import nesylora
from agent.rounds import Round
from graphs.context import Context
from graphs.labels import began_with, features_of, own_probes
from memory.ledger import RunFolder
from tools.features import Probing

TinyTask = Callable[..., Path]


@pytest.fixture
def run(tiny_task: TinyTask, tmp_path: Path) -> RunFolder:
    """A run by the rules; its edits and trainings are whatever a random model makes of them."""
    return RunFolder.open(nesylora.adapt(tiny_task(), runs=tmp_path / "runs").run)


def measured(rounds: list[Round]) -> list[Round]:
    return [row for row in rounds if row.trial.candidate]


def test_probed_rows_are_labelled_by_what_the_move_then_did(run: RunFolder) -> None:
    context, rounds = Context(run=str(run.path)), run.rounds()
    assert measured(rounds), "a run without a measured trial tests nothing"
    pairs = began_with(rounds, context)
    for row, before in zip(rounds, pairs, strict=True):
        if row.trial.candidate is None:
            continue
        after = {score.example: score for score in context.evaluate(row.trial.candidate, "validation").scores}
        made = own_probes([*rounds[: row.number]], context)[-len(row.diagnosis.examples) :]
        assert {probe.example for probe in made} == {one.example for one in row.diagnosis.examples}
        for probe in made:
            score = after[probe.example]
            edited = row.decision.move.action == "edit_prompt"
            told = (score.reward == 1, None) if edited else (None, score.content == 1)
            assert (probe.pair, probe.own, probe.words, probe.weights) == (before.id, True, *told)
    assert (context.used().read_tokens, context.used().generated_tokens) == (0, 0)


def test_a_pair_that_stands_for_another_round_is_not_probed_again(tiny_task: TinyTask, tmp_path: Path) -> None:
    asked = []
    features = Probing.features

    def counted(self: Probing, rows: list, prompt: object, adapter: str | None, seed: int) -> list:  # type: ignore[type-arg]
        asked.append([example.name for example, _ in rows])
        return features(self, rows, prompt, adapter, seed)  # type: ignore[arg-type]

    with patch.object(Probing, "features", counted):
        run = RunFolder.open(nesylora.adapt(tiny_task(), runs=tmp_path / "runs").run)
    rounds = run.rounds()
    pairs = began_with(rounds, Context(run=str(run.path)))
    stood = [later for later, pair in enumerate(pairs) if pair in pairs[:later]]
    assert stood, "no trial of this run failed: it tests nothing"
    assert all(not asked[place] for place in stood)
    assert all(one.features for row in rounds for one in row.diagnosis.examples)


def test_features_are_found_by_the_pair_they_were_seen_under(run: RunFolder) -> None:
    context, rounds = Context(run=str(run.path)), run.rounds()
    pair = began_with(rounds, context)[0]
    assert features_of(rounds, pair, context) == {one.example: one.features for one in rounds[0].diagnosis.examples}
    assert features_of(rounds, pair.model_copy(update={"adapter": "000000000000"}), context) == {}

"""What a run's own log says about its levers: which rows were probed, and what an edit then did to each."""

from collections.abc import Iterator, Sequence

from agent.records.actions import EditPrompt
from agent.records.examples import Candidate, split_of
from agent.records.rounds import Round
from agent.records.signal import Probe
from graphs.services.run import RunServices


def features_of(rounds: Sequence[Round], pair: Candidate, services: RunServices) -> dict[str, dict[str, float]]:
    """Features of the rows that were probed under this pair, by the example's name."""
    return {
        probed.example: probed.features
        for row, before in zip(rounds, pairs_before(rounds, services), strict=True)
        if before == pair
        for probed in row.diagnosis.examples
        if probed.features
    }


def probes_of_run(rounds: Sequence[Round], services: RunServices) -> list[Probe]:
    """The probed rows of these rounds, labelled by what the round's edit did. The model is not called.

    Rounds with another action than an edit give none.
    """
    return [
        probe
        for row, before in zip(rounds, pairs_before(rounds, services), strict=True)
        for probe in _labelled(row, before, services)
    ]


def pairs_before(rounds: Sequence[Round], services: RunServices) -> list[Candidate]:
    """The best pair before each round."""
    first = services.folder.baseline()
    return [first.best, *(row.best for row in rounds)][: len(rounds)] if first else []


def _labelled(row: Round, before: Candidate, services: RunServices) -> Iterator[Probe]:
    from tools.diagnosis.classify import gaps, need_by_rules
    from tools.diagnosis.features import is_complete

    words = repaired_rows(row, before, services)
    config = services.spec.config
    scores = {score.example: score for score in services.evaluate(before, "validation").scores} if words else {}
    for probed in row.diagnosis.examples:
        name, features = probed.example, probed.features
        if is_complete(features) and name in words:
            yield Probe(
                task=config.name, model=config.model, pair=before.id, example=name, features=features,
                rules=need_by_rules(scores[name], *gaps(features)), words=words[name], own=True,
                luck=services.classifier.luck.of(features),
            )  # fmt: skip


def repaired_rows(row: Round, before: Candidate, services: RunServices) -> dict[str, bool]:
    """By the name of a validation row: whether the round's edit brought its reward to 1.

    If no proposal beat the present prompt, only validation rows on which proposals were compared count, and a row is
    repaired if any proposal repaired it. All scores are in the run folder already, so this costs nothing.

    Args:
        before: the pair that was edited.

    Returns:
        Nothing for actions other than an edit, and where nothing was measured.
    """
    if not isinstance(row.decision.move, EditPrompt):
        return {}
    if row.trial.candidate:
        scores = services.evaluate(row.trial.candidate, "validation").scores
        return {score.example: score.reward == 1 for score in scores}
    names = row.trial.raced or tuple(example.name for example in services.spec.validation)  # older runs: the first rows
    if split_of(names[0]) == "train":
        return {}
    repaired: dict[str, bool] = {}
    for proposal in row.trial.proposals:
        if proposal.rows and proposal.prompt != before.prompt:  # the present prompt runs along; refused ones do not
            pair = Candidate(prompt=proposal.prompt, adapter=before.adapter)
            for score in services.evaluate(pair, "validation", names[: proposal.rows]).scores:
                repaired[score.example] = repaired.get(score.example, False) or score.reward == 1
    return repaired

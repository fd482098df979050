"""What a run's own log tells of its levers: the rows that were probed, and what an edit then did to each."""

from collections.abc import Iterator, Sequence

from agent.records.actions import EditPrompt
from agent.records.examples import Candidate, split_of
from agent.records.rounds import Round
from agent.records.signal import Probe
from graphs.services.run import RunServices


def features_of(rounds: Sequence[Round], pair: Candidate, context: RunServices) -> dict[str, dict[str, float]]:
    """Of the rows that were probed under this pair, by example."""
    return {
        one.example: one.features
        for row, before in zip(rounds, began_with(rounds, context), strict=True)
        if before == pair
        for one in row.diagnosis.examples
        if one.features
    }


def own_probes(rounds: Sequence[Round], context: RunServices) -> list[Probe]:
    """The probed rows of these rounds, labelled by what the round's edit did. Asks the model nothing.

    Moves other than an edit tell nothing.
    """
    return [
        probe
        for row, before in zip(rounds, began_with(rounds, context), strict=True)
        for probe in _labelled(row, before, context)
    ]


def began_with(rounds: Sequence[Round], context: RunServices) -> list[Candidate]:
    """The best pair before each round."""
    first = context.folder.baseline()
    return [first.best, *(row.best for row in rounds)][: len(rounds)] if first else []


def _labelled(row: Round, before: Candidate, context: RunServices) -> Iterator[Probe]:
    from tools.diagnosis.classify import gaps, need_by_rules
    from tools.diagnosis.features import is_complete

    words = outcomes(row, before, context)
    config = context.spec.config
    scores = {score.example: score for score in context.evaluate(before, "validation").scores} if words else {}
    for one in row.diagnosis.examples:
        if is_complete(one.features) and one.example in words:
            yield Probe(
                task=config.name, model=config.model, pair=before.id, example=one.example, features=one.features,
                rules=need_by_rules(scores[one.example], *gaps(one.features)), words=words[one.example], own=True,
            )  # fmt: skip


def outcomes(row: Round, before: Candidate, context: RunServices) -> dict[str, bool]:
    """By validation row: whether the round's edit of the pair before it brought its reward to 1.

    Where no proposal beat the present prompt, only validation rows that were raced tell: whether any proposal mended
    them.
    Empty where nothing was measured, and for other moves. All scores are kept in the run folder: this costs nothing.
    """
    if not isinstance(row.decision.move, EditPrompt):
        return {}
    if row.trial.candidate:
        scores = context.evaluate(row.trial.candidate, "validation").scores
        return {score.example: score.reward == 1 for score in scores}
    names = row.trial.raced or tuple(example.name for example in context.spec.validation)  # older runs: the first rows
    if split_of(names[0]) == "train":
        return {}
    mended: dict[str, bool] = {}
    for proposal in row.trial.proposals:
        if proposal.rows and proposal.prompt != before.prompt:  # the present prompt runs along; refused ones do not
            raced = Candidate(prompt=proposal.prompt, adapter=before.adapter)
            for score in context.evaluate(raced, "validation", names[: proposal.rows]).scores:
                mended[score.example] = mended.get(score.example, False) or score.reward == 1
    return mended

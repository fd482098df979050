"""What a run's own log tells of its levers: the rows that were probed, and what the move then did to each."""

from collections.abc import Iterator, Sequence

from agent.moves import EditPrompt, TrainLora
from agent.records import Candidate, Probe
from agent.rounds import Round
from graphs.context import Context


def features_of(rounds: Sequence[Round], pair: Candidate, context: Context) -> dict[str, dict[str, float]]:
    """Of the rows that were probed under this pair, by example."""
    return {
        one.example: one.features
        for row, before in zip(rounds, began_with(rounds, context), strict=True)
        if before == pair
        for one in row.diagnosis.examples
        if one.features
    }


def own_probes(rounds: Sequence[Round], context: Context) -> list[Probe]:
    """The probed rows of these rounds, labelled by what the round's move did. Asks the model nothing.

    An edit tells of words, a training of weights; other moves tell nothing.
    """
    return [
        probe
        for row, before in zip(rounds, began_with(rounds, context), strict=True)
        for probe in _labelled(row, before, context)
    ]


def began_with(rounds: Sequence[Round], context: Context) -> list[Candidate]:
    """The best pair before each round."""
    first = context.folder.baseline()
    return [first.best, *(row.best for row in rounds)][: len(rounds)] if first else []


def _labelled(row: Round, before: Candidate, context: Context) -> Iterator[Probe]:
    words, weights = outcomes(row, context)
    config = context.spec.config
    for one in row.diagnosis.examples:
        if one.features and (one.example in words or one.example in weights):
            yield Probe(
                task=config.name, model=config.model, pair=before.id, example=one.example, features=one.features,
                rules=one.need, words=words.get(one.example), weights=weights.get(one.example), own=True,
            )  # fmt: skip


def outcomes(row: Round, context: Context) -> tuple[dict[str, bool], dict[str, bool]]:
    """By validation row: whether an edit brought its reward to 1, whether a training brought its content to 1.

    Both empty where the move came to nothing that could be measured; where no proposal of an edit beat the present
    prompt, words mended none.
    """
    move, pair = row.decision.move, row.trial.candidate
    if pair is None:
        raced = isinstance(move, EditPrompt) and any(proposal.rows for proposal in row.trial.proposals)
        return {example.name: False for example in context.spec.validation} if raced else {}, {}
    if not isinstance(move, EditPrompt | TrainLora):
        return {}, {}
    scores = context.evaluate(pair, "validation").scores  # measured in that round, and kept in the run folder
    if isinstance(move, EditPrompt):
        return {score.example: score.reward == 1 for score in scores}, {}
    return {}, {score.example: score.content == 1 for score in scores}

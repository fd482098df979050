"""Which of several proposed prompts is best: the present one and all proposals, scored on the same rows."""

from collections.abc import Callable, Sequence

from agent.records.edits import Edit
from agent.records.evaluation import Evaluation
from agent.records.examples import Candidate, Prompt
from agent.records.rounds import Proposal

NEAR = 0.5  # rows


def compare_proposals(
    edits: Sequence[Edit],
    present: Prompt,
    adapter: str | None,
    evaluate: Callable[[Sequence[Candidate]], Sequence[Evaluation]],
    save: Callable[[Prompt], str],
) -> tuple[Prompt | None, list[Proposal]]:
    """Score the edits and the present prompt, and take the one of highest merit; among equals, the cheapest.

    Retrieved examples make every question several times longer, so one that retrieves fewer may have up to half a row's
    merit less: on a few rows that is no difference.

    Args:
        adapter: under which all prompts are scored.
        evaluate: scores pairs, in order; all on the same rows.
        save: keeps a prompt, and returns its id.

    Returns:
        The best edit (None where no edit beats the present prompt), and every prompt with its merit, the present first.
    """
    compared = [Edit(prompt=present, note="the present prompt"), *edits]
    pairs = [Candidate(prompt=save(edit.prompt), adapter=adapter) for edit in compared]
    scored = evaluate(pairs)
    best = _best(
        [evaluation.merit for evaluation in scored],
        [edit.prompt.price for edit in compared],
        NEAR / len(scored[0].scores),
    )
    proposals = [
        Proposal(prompt=pair.prompt, note=edit.note, merit=evaluation.merit, rows=len(evaluation.scores))
        for pair, edit, evaluation in zip(pairs, compared, scored, strict=True)
    ]
    return compared[best].prompt if best else None, proposals


def _best(merits: Sequence[float], prices: Sequence[tuple[int, int]], near: float) -> int:
    """Which is taken; 0, the present prompt, where none beats it or equals it at a lower price.

    Args:
        prices: retrieved examples and length of each.
        near: what merits differ by less than that counts as equal, for a prompt that retrieves fewer examples.
    """
    merits = [round(merit, 9) for merit in merits]  # equal sums of other rows differ in the last digit
    first = min(range(len(merits)), key=lambda index: (-merits[index], prices[index]))
    if not first:
        return 0
    equals = [first, *(index for index, merit in enumerate(merits) if merit > max(merits[0], merits[first] - near))]
    return min(equals, key=lambda index: (prices[index][0], -merits[index], prices[index]))

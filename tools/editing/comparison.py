"""Which of several proposed prompts is best: the present one and all proposals, scored on the same rows."""

from collections.abc import Callable, Sequence

from agent.records.edits import Edit
from agent.records.evaluation import Evaluation
from agent.records.examples import Candidate, Prompt
from agent.records.rounds import Proposal


def compare_proposals(
    edits: Sequence[Edit],
    present: Prompt,
    adapter: str | None,
    evaluate: Callable[[Sequence[Candidate]], Sequence[Evaluation]],
    save: Callable[[Prompt], str],
) -> tuple[Prompt | None, list[Proposal]]:
    """Score the edits and the present prompt, and take the one of highest merit; among equals, the cheapest.

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
    best = min(range(len(compared)), key=lambda index: (-scored[index].merit, compared[index].prompt.price))
    proposals = [
        Proposal(prompt=pair.prompt, note=edit.note, merit=evaluation.merit, rows=len(evaluation.scores))
        for pair, edit, evaluation in zip(pairs, compared, scored, strict=True)
    ]
    return compared[best].prompt if best else None, proposals

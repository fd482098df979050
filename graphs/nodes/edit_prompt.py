"""The lever that rewrites the prompt."""

from collections.abc import Sequence
from functools import partial

from agent.records.actions import EditPrompt
from agent.records.edits import Edit
from agent.records.examples import Candidate, Prompt, split_of
from agent.records.rounds import Proposal, Trial
from graphs.rows.draws import comparison_rows
from graphs.rows.failures import rows_to_learn_from
from graphs.rows.rewrite_questions import remake_questions
from graphs.services.run import RunServices
from graphs.state import State, action_of, seed_of


def edit_prompt(state: State, services: RunServices) -> State:
    """Rewrite the words: several proposals, compared on a minibatch; the best goes to the gate, on other rows."""
    action, config, best = action_of(state, EditPrompt), services.spec.config, state["best"]
    present = services.folder.prompt(best.prompt)
    # Editors learn from train rows: a prompt is not to be written with those in view by which it is judged.
    failures = rows_to_learn_from(action, state, services)
    if not failures.scores:
        note = f"The prompt stays as it is: no train row of this round lacks {action.failures}"
        return {"trial": Trial(candidate=None, note=note)}
    proposed = services.editor.propose(present, failures, services.spec.train, action, seed_of(state, services))
    edits, refused = _without_leaks(services, present, proposed.edits)
    remarks = [*proposed.remarks, *([f"edits refused because they give rows away: {len(refused)}"] if refused else [])]
    remaking = None
    if "questions" in action.parts and services.textgrad and config.edit.rewrites:
        made = remake_questions(state, services)
        remaking = made and made.remaking
        remarks += [made.remark] if made and made.remark else []
    trial = Trial(candidate=None, note="", proposals=refused, critiques=proposed.critiques, remaking=remaking)
    if not edits:
        why = "; ".join(remarks) or "the editor has no proposal left"
        return {"trial": trial.model_copy(update={"note": f"The prompt stays as it is: {why}"})}
    names = comparison_rows(state, services, best, [present, *(edit.prompt for edit in edits)])
    winner, tried = best_of(edits, present, best.adapter, names, services)
    note = f"None of {len(tried) - 1} proposals beat the present prompt on the minibatch"  # the first is that prompt
    if winner is not None:
        best_note = next(proposal.note for proposal in tried if proposal.prompt == winner.id)
        note = f"{best_note}; the best of {len(tried) - 1} proposals"
    compared = {
        "raced": tuple(names),
        "candidate": winner and Candidate(prompt=winner.id, adapter=best.adapter),
        "note": "; ".join([note, *remarks]),
        "proposals": (*tried, *refused),
    }
    return {"trial": trial.model_copy(update=compared)}


def best_of(
    edits: Sequence[Edit], present: Prompt, adapter: str | None, names: Sequence[str], services: RunServices
) -> tuple[Prompt | None, list[Proposal]]:
    """The best of the edits and the present prompt on the rows of these names, all of one split."""
    from tools.editing.comparison import compare_proposals

    score = partial(services.evaluate, split=split_of(names[0]), names=names)
    return compare_proposals(edits, present, adapter, score, services.folder.save_prompt)


def _without_leaks(
    services: RunServices, present: Prompt, edits: Sequence[Edit]
) -> tuple[list[Edit], tuple[Proposal, ...]]:
    """The edits to compare, and those refused because their words give away rows. (Demonstrations are train rows.)"""
    given_away = [services.leaks.found_in(edit.prompt, present) for edit in edits]
    judged = list(zip(edits, given_away, strict=True))
    refused = [
        Proposal(prompt=services.folder.save_prompt(edit.prompt), note=edit.note, refused=leak)
        for edit, leak in judged
        if leak
    ]
    return [edit for edit, leak in judged if not leak], tuple(refused)

"""The lever that rewrites the prompt."""

import time
from collections.abc import Sequence
from functools import partial

from agent.records.actions import EditPrompt
from agent.records.edits import Edit
from agent.records.evaluation import Evaluation
from agent.records.examples import Candidate, Prompt, split_of
from agent.records.rounds import Proposal, Trial
from graphs.rows.draws import comparison_rows, learned_rows
from graphs.rows.failures import rows_to_learn_from
from graphs.rows.rewrite_questions import remake_questions
from graphs.services.proposals import few_in_time
from graphs.services.run import RunServices
from graphs.state import State, action_of, seed_of

TOO_LONG = "it makes a prompt"


def edit_prompt(state: State, services: RunServices) -> State:
    """Rewrite the words: several proposals, compared on a minibatch; the best goes to the gate, on other rows."""
    action, config, best = action_of(state, EditPrompt), services.spec.config, state["best"]
    present = services.folder.prompt(best.prompt)
    if action.instruction:
        return {"trial": _as_told(action.instruction, present, state, services)}
    # Editors learn from train rows: a prompt is not to be written with those in view by which it is judged.
    failures = _failures(action, state, services)
    if not failures.scores:
        note = f"The prompt stays as it is: no train row of this round lacks {action.failures}"
        return {"trial": Trial(candidate=None, note=note)}
    proposed = services.editor.propose(present, failures, services.spec.train, action, seed_of(state, services))
    edits, refused = _usable(services, present, proposed.edits)
    long = [proposal for proposal in refused if proposal.refused.startswith(TOO_LONG)]
    reasons = (("give rows away", len(refused) - len(long)), ("are too long", len(long)))
    remarks = [*proposed.remarks, *(f"edits refused because they {why}: {count}" for why, count in reasons if count)]
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
        taken = next(proposal for proposal in tried if proposal.prompt == winner.id)
        better = any((proposal.merit or 0.0) > (taken.merit or 0.0) for proposal in tried)
        best_of_them = f"the best of {len(tried) - 1} proposals"
        place = f"within half a row of {best_of_them}, which retrieves more" if better else best_of_them
        note = f"{taken.note}; {place}"
    compared = {
        "raced": tuple(names),
        "candidate": winner and Candidate(prompt=winner.id, adapter=best.adapter),
        "note": "; ".join([note, *remarks]),
        "proposals": (*tried, *refused),
    }
    return {"trial": trial.model_copy(update=compared)}


def _as_told(instruction: str, present: Prompt, state: State, services: RunServices) -> Trial:
    """The user's own words in the system text: the better of two places for them goes to the gate, whatever it is."""
    adapter = state["best"].adapter
    added, alone = (present.model_copy(update={"system": text}) for text in _with_words(present.system, instruction))
    told = [Edit(prompt=added, note="your words added to the system text")]
    told += [Edit(prompt=alone, note="your words as the whole system text")] if alone != added else []
    edits, refused = _usable(services, present, [edit for edit in told if edit.prompt != present])
    if not edits:
        why = "; ".join(proposal.refused for proposal in refused) or "the system text says that already"
        return Trial(candidate=None, note=f"The prompt stays as it is: {why}", proposals=refused)
    names = comparison_rows(state, services, state["best"], [present, *(edit.prompt for edit in edits)])
    _, tried = best_of(edits, present, adapter, names, services)
    chosen = max(tried[1:], key=lambda proposal: proposal.merit or 0.0)
    return Trial(
        candidate=Candidate(prompt=chosen.prompt, adapter=adapter), note=chosen.note, raced=tuple(names),
        proposals=(*tried, *refused),
    )  # fmt: skip


def _with_words(system: str, words: str) -> tuple[str, str]:
    """The system text with these words added, and the words alone."""
    return (system if words in system else f"{system} {words}".strip()), words


def _failures(action: EditPrompt, state: State, services: RunServices) -> Evaluation:
    """The present pair on the rows that the editor learns from; a warning where time is left for few proposals."""
    began, used = time.monotonic(), services.meter.used().generated_tokens
    services.evaluate(state["best"], "train", learned_rows(state, services))
    if services.spec.config.edit.asks_llm and services.meter.used().generated_tokens > used:
        now, deadline = time.monotonic(), services.meter.deadline
        if few := few_in_time(now - began, deadline and deadline - now):
            services.note(f"Warning: {few}")
    return rows_to_learn_from(action, state, services)


def best_of(
    edits: Sequence[Edit], present: Prompt, adapter: str | None, names: Sequence[str], services: RunServices
) -> tuple[Prompt | None, list[Proposal]]:
    """The best of the edits and the present prompt on the rows of these names, all of one split."""
    from tools.editing.comparison import compare_proposals

    score = partial(services.evaluate.each, split=split_of(names[0]), names=names)
    return compare_proposals(edits, present, adapter, score, services.folder.save_prompt)


def _usable(services: RunServices, present: Prompt, edits: Sequence[Edit]) -> tuple[list[Edit], tuple[Proposal, ...]]:
    """The edits to compare, and those refused: too long, or giving away rows. (Demonstrations are train rows.)"""
    judged = [(edit, _fault(edit.prompt, present, services)) for edit in edits]
    refused = [
        Proposal(prompt=services.folder.save_prompt(edit.prompt), note=edit.note, refused=fault)
        for edit, fault in judged
        if fault
    ]
    return [edit for edit, fault in judged if not fault], tuple(refused)


def _fault(prompt: Prompt, present: Prompt, services: RunServices) -> str | None:
    most = max(services.spec.config.edit.max_length, present.length)
    if prompt.length > most:
        return f"{TOO_LONG} of {prompt.length} characters; edit.max_length allows {most}"
    return services.leaks.found_in(prompt, present)

"""The first node: what the seed prompt brings, and prompts of earlier runs beside it."""

from typing import Any

from agent.records.edits import Edit
from agent.records.evaluation import Evaluation
from agent.records.events import BaselineScored
from agent.records.examples import Candidate, Prompt
from agent.records.rounds import Baseline, Proposal, Round, Spend, Verdict
from graphs.nodes.edit_prompt import race
from graphs.nodes.judge import gate
from graphs.nodes.remember import pass_on
from graphs.rows.draws import race_rows
from graphs.services.run import RunServices
from graphs.state import State


def baseline(state: State, context: RunServices) -> dict[str, Any]:
    """Score the seed prompt, and try what memory recalls of earlier runs on near tasks.

    A run that has rounds already goes on after the last of them: the ledger, and no checkpoint, is its truth.
    """
    row = context.folder.baseline()  # written before a kill: by now, memory may recall something else
    if row is None:
        context.fit_rows()
        row = _first_row(state, context)
        context.folder.append(row)
    rounds = context.folder.rounds()  # none but where the run begins anew without its checkpoints
    last = rounds[-1] if rounds else row
    if isinstance(last, Round):
        pass_on(last, context)  # the kill may have come right after its row
    context.show_report()
    context.tell(BaselineScored(row=row))
    told = last.spend + context.folder.charges.restart(len(rounds))
    return {
        "run": context.folder.name, "number": len(rounds), "best": last.best, "decision": None, "refused": (),
        "spend": told.beyond(state.get("spend", Spend()) + context.meter.spent),
    }  # fmt: skip


def _first_row(state: State, context: RunServices) -> Baseline:
    seed_prompt = context.spec.config.prompt.prompt()
    seed = Candidate(prompt=context.folder.save_prompt(seed_prompt))
    context.note("Scoring the seed prompt on the validation rows.")
    first = context.evaluate(seed, "validation")
    best, recalled, verdict, note = _try_recalled(state, context, seed_prompt, first)
    return Baseline(
        seed=seed, seed_reward=first.reward, recalled=tuple(recalled), best=best.candidate, reward=best.reward,
        content=best.content, style=best.style, note=note, verdict=verdict, spend=context.meter.spent,
        usage=context.llm.budget.usage,
    )  # fmt: skip


def _try_recalled(
    state: State, context: RunServices, seed: Prompt, first: Evaluation
) -> tuple[Evaluation, list[Proposal], Verdict | None, str]:
    """The better of the seed and the best recalled prompt; what was tried; the gate's verdict; a sentence about it."""
    found = context.memory.recall()
    if not found:
        nothing = "Memory holds no prompt of a near task." if context.memory.asked else "Memory is not asked."
        return first, [], None, nothing
    edits = [
        Edit(prompt=item.entry.prompt, note=f"recalled from {item.entry.run}, similarity {item.similarity:.2f}")
        for item in found
    ]
    names = race_rows(state, context, first.candidate, [seed, *(edit.prompt for edit in edits)])
    winner, tried = race(edits, seed, None, names, context)
    if winner is None:
        return first, tried, None, f"Prompts recalled by memory: {len(edits)}; none beat the seed on {len(names)} rows."
    second = context.evaluate(Candidate(prompt=winner.id), "validation")
    verdict = gate(first, second, names, (), context)
    kept = "taken up" if verdict.kept else "not taken up"
    return second if verdict.kept else first, tried, verdict, f"A recalled prompt was {kept}: {verdict.reason}"

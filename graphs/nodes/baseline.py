"""The first node: what the seed prompt brings, and prompts of earlier runs beside it."""

from agent.records.edits import Edit
from agent.records.evaluation import Evaluation
from agent.records.events import BaselineScored
from agent.records.examples import Candidate, Prompt
from agent.records.rounds import Baseline, Proposal, Round, Spend, Verdict
from agent.records.signal import LUCK_WORTH_SAYING
from graphs.nodes.edit_prompt import best_of
from graphs.nodes.judge import gate
from graphs.nodes.remember import leave_to_later_runs, refused_after
from graphs.rows.draws import comparison_rows
from graphs.services.proposals import few_proposals
from graphs.services.run import RunServices
from graphs.start import take_up_start
from graphs.state import State

CLEARLY = 0.05  # largest p-value at which the bare seed prompt counts as better than the pair that a task starts from


def baseline(state: State, services: RunServices) -> State:
    """Score the seed prompt, and try what memory recalls of earlier runs on near tasks.

    A run that has rounds already goes on after the last of them: the ledger, and no checkpoint, is its truth.
    """
    row = services.folder.baseline()  # written before a kill: by now, memory may recall something else
    told = row is not None and any(
        isinstance(entry.event, BaselineScored) for entry in services.folder.events().entries
    )
    if row is None:
        services.fit_rows()
        row = _first_row(state, services)
        services.folder.append(row)
    rounds = services.folder.rounds()  # none but where the run begins anew without its checkpoints
    last = rounds[-1] if rounds else row
    if isinstance(last, Round):
        leave_to_later_runs(last, services)  # the kill may have come right after its row
    services.show_report()
    if not told:
        services.emit(BaselineScored(row=row))
    recorded = last.spend + services.folder.charges.restart(len(rounds))
    return {
        "run": services.folder.name, "number": len(rounds), "best": last.best, "decision": None,
        "refused": refused_after(last) if isinstance(last, Round) else (), "outcome": None,
        "spend": recorded.beyond(state.get("spend", Spend()) + services.meter.spent),
    }  # fmt: skip


def _first_row(state: State, services: RunServices) -> Baseline:
    seed_prompt = services.spec.config.prompt.prompt()
    seed = Candidate(prompt=services.folder.save_prompt(seed_prompt))
    for few in few_proposals(services.spec.config, len(services.spec.train)):
        services.note(f"Warning: {few}")
    start = _started(seed, services)  # first: weights that do not fit the model end the run before it has begun
    services.note("Scoring the seed prompt on the validation rows.")
    first, pace = _seed_scored(seed, services)
    present, compared = _better(first, start) if start else (first, "")
    if services.kept_tasks:
        services.note(f"Scoring what is to be kept: {', '.join(kept.name for kept in services.kept_tasks)}.")
    keep = services.forgetting.kept(None)
    best, recalled, verdict, note = _try_recalled(state, services, seed_prompt, present)
    return Baseline(
        seed=seed, seed_reward=first.reward, start=start and start.candidate, start_reward=start and start.reward,
        recalled=tuple(recalled), best=best.candidate, reward=best.reward, content=best.content, style=best.style,
        note=f"{compared}{note}{_luck(services)}", keep=keep, verdict=verdict, spend=services.meter.spent, pace=pace,
        usage=services.llm.budget.usage,
    )  # fmt: skip


def _luck(services: RunServices) -> str:
    """What guessing earns, in a sentence; empty where that is next to nothing."""
    luck = services.spec.luck
    return (
        f" Luck: one train answer is right for {luck:.0%} of the other train rows." if luck >= LUCK_WORTH_SAYING else ""
    )


def _seed_scored(seed: Candidate, services: RunServices) -> tuple[Evaluation, float | None]:
    """The seed's scores, and the seconds a forward token took; None where all was scored before a kill."""
    before, loading = services.meter.used(), services.loading
    scored = services.evaluate(seed, "validation")
    used = services.meter.used() - before
    seconds = used.seconds - (services.loading - loading)
    return scored, seconds / used.forward_tokens if used.forward_tokens and seconds > 0 else None


def _started(seed: Candidate, services: RunServices) -> Evaluation | None:
    """The first prompt with the adapter that the task brings; None where it brings none."""
    adapter = take_up_start(services)
    if adapter is None:
        return None
    services.note("Scoring the start, the first prompt with the task's own adapter, on the validation rows.")
    return services.evaluate(Candidate(prompt=seed.prompt, adapter=adapter), "validation")


def _better(seed: Evaluation, start: Evaluation) -> tuple[Evaluation, str]:
    """The start, unless the bare seed prompt is clearly better; and a sentence on both."""
    from eval.stats import sign_flip

    p_value = sign_flip([bare.reward - own.reward for own, bare in zip(start.scores, seed.scores, strict=True)])
    rewards = f"Seed prompt alone: reward {seed.reward:.2f}; with the adapter it starts from: {start.reward:.2f}."
    if p_value > CLEARLY:
        return start, f"{rewards} "
    return seed, f"{rewards} The adapter makes it worse (p = {p_value:.2g}), so the run begins without it. "


def _try_recalled(
    state: State, services: RunServices, seed: Prompt, first: Evaluation
) -> tuple[Evaluation, list[Proposal], Verdict | None, str]:
    """The better of the seed and the best recalled prompt; what was tried; the gate's verdict; a sentence about it."""
    found = services.memory.recall()
    if not found:
        nothing = "Memory holds no prompt of a near task." if services.memory.asked else "Memory is not asked."
        return first, [], None, nothing
    edits = [
        Edit(prompt=item.entry.prompt, note=f"recalled from {item.entry.run}, similarity {item.similarity:.2f}")
        for item in found
    ]
    names = comparison_rows(state, services, first.candidate, [seed, *(edit.prompt for edit in edits)])
    winner, tried = best_of(edits, seed, first.candidate.adapter, names, services)
    if winner is None:
        return first, tried, None, f"Prompts recalled by memory: {len(edits)}; none beat the seed on {len(names)} rows."
    second = services.evaluate(Candidate(prompt=winner.id, adapter=first.candidate.adapter), "validation")
    verdict = gate(first, second, names, (), services)
    kept = "taken up" if verdict.kept else "not taken up"
    return second if verdict.kept else first, tried, verdict, f"A recalled prompt was {kept}: {verdict.reason}"

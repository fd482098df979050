"""The node that ends a round: its row in the ledger, and what later runs may have of it."""

from typing import Any

from agent.records.actions import EditPrompt
from agent.records.events import RoundJudged
from agent.records.examples import Prompt
from agent.records.rounds import Round
from graphs.services.run import RunServices
from graphs.state import State, decided


def remember(state: State, context: RunServices) -> dict[str, Any]:
    """Ledger row, prompt memory and report; each idempotent, so that a kill between them does no harm."""
    verdict, trial, number = state["verdict"], state["trial"], state["number"] + 1
    best = trial.candidate if verdict.kept and trial.candidate else state["best"]
    row = Round(
        number=number, signal=state["signal"], diagnosis=state["diagnosis"], decision=decided(state), trial=trial,
        verdict=verdict, best=best, reward=context.evaluate(best, "validation").reward, spend=state["spend"],
        usage=context.llm.budget.usage,
    )  # fmt: skip
    context.folder.append(row)
    pass_on(row, context)
    context.show_report()
    context.tell(RoundJudged(row=row))
    return {"number": number, "best": best, "refused": (), "decision": None}


def pass_on(row: Round, context: RunServices) -> None:
    """Leave to later runs what a round brought. Done again, after a kill, it adds only what was missing."""
    verdict, trial = row.verdict, row.trial.candidate
    if isinstance(row.decision.move, EditPrompt) and trial and (verdict.kept or verdict.gain >= 0):
        context.memory.remember(_entry(context, row, context.folder.prompt(trial.prompt)))
    context.memory.note(row)


def _entry(context: RunServices, row: Round, prompt: Prompt) -> Any:
    from memory.prompts import Entry

    config, verdict, trial = context.spec.config, row.verdict, row.trial.candidate
    alone = trial is not None and trial.adapter is None  # under an adapter, the reward is not the prompt's own
    return Entry(
        prompt=prompt, task=config.name, profile=context.memory.profile, model=config.model, reward=verdict.after,
        gain=verdict.gain, kept=verdict.kept and alone, round=row.number, run=context.folder.name,
    )  # fmt: skip

"""The node that ends a round: its row in the ledger, and what later runs may have of it."""

from typing import TYPE_CHECKING

from agent.records.actions import EditPrompt
from agent.records.events import RoundJudged
from agent.records.examples import Prompt
from agent.records.rounds import Round
from graphs.services.run import RunServices
from graphs.state import State, decided

if TYPE_CHECKING:
    from memory.prompts import Entry


def remember(state: State, services: RunServices) -> State:
    """Ledger row, prompt memory and report; each idempotent, so that a kill between them does no harm."""
    verdict, trial, number = state["verdict"], state["trial"], state["number"] + 1
    best = trial.candidate if verdict.kept and trial.candidate else state["best"]
    row = Round(
        number=number, signal=state["signal"], diagnosis=state["diagnosis"], decision=decided(state), trial=trial,
        verdict=verdict, best=best, reward=services.evaluate(best, "validation").reward, spend=state["spend"],
        usage=services.llm.budget.usage,
    )  # fmt: skip
    services.folder.append(row)
    leave_to_later_runs(row, services)
    services.show_report()
    services.emit(RoundJudged(row=row))
    return {"number": number, "best": best, "refused": (), "decision": None}


def leave_to_later_runs(row: Round, services: RunServices) -> None:
    """Leave to later runs what a round brought. Done again, after a kill, it adds only what was missing."""
    verdict, trial = row.verdict, row.trial.candidate
    if isinstance(row.decision.move, EditPrompt) and trial and (verdict.kept or verdict.gain >= 0):
        services.memory.remember(_entry(services, row, services.folder.prompt(trial.prompt)))
    services.memory.note(row)


def _entry(services: RunServices, row: Round, prompt: Prompt) -> "Entry":
    from memory.prompts import Entry

    config, verdict, trial = services.spec.config, row.verdict, row.trial.candidate
    alone = trial is not None and trial.adapter is None  # under an adapter, the reward is not the prompt's own
    return Entry(
        prompt=prompt, task=config.name, profile=services.memory.profile, model=config.model, reward=verdict.after,
        gain=verdict.gain, kept=verdict.kept and alone, round=row.number, run=services.folder.name,
    )  # fmt: skip

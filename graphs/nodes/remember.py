"""The node that ends a round: its row in the ledger, and what later runs may have of it."""

from agent.records.actions import EditPrompt
from agent.records.events import RoundJudged
from agent.records.rounds import Round
from graphs.cancelling import cancelled_trial
from graphs.services.run import RunServices
from graphs.state import State, decided


def remember(state: State, services: RunServices) -> State:
    """Ledger row, prompt memory and report; each idempotent, so that a kill between them does no harm."""
    number = state["number"] + 1
    if services.folder.is_cancelled(number):  # at the very end of its judgement
        state = {**state, **cancelled_trial(state, judged=True)}
    verdict, trial = state["verdict"], state["trial"]
    best = trial.candidate if verdict.kept and trial.candidate else state["best"]
    row = Round(
        number=number, signal=state["signal"], diagnosis=state["diagnosis"], decision=decided(state), trial=trial,
        verdict=verdict, best=best, reward=services.evaluate(best, "validation").reward, spend=state["spend"],
        usage=services.llm.budget.usage,
    )  # fmt: skip
    services.folder.append(row)
    services.folder.discard_trainings()
    leave_to_later_runs(row, services)
    services.show_report()
    services.emit(RoundJudged(row=row))
    return {"number": number, "best": best, "refused": refused_after(row), "decision": None}


def refused_after(row: Round) -> tuple[str, ...]:
    """What the round after this one is planned without: an action that the user has just cancelled."""
    return (row.decision.move.action,) if row.trial.cancelled else ()


def leave_to_later_runs(row: Round, services: RunServices) -> None:
    """Leave to later runs what a round brought. Done again, after a kill, it adds only what was missing."""
    verdict, trial = row.verdict, row.trial.candidate
    if isinstance(row.decision.move, EditPrompt) and trial and (verdict.kept or verdict.gain >= 0):
        from memory.prompts import Entry

        config, prompt = services.spec.config, services.folder.prompt(trial.prompt)
        alone = trial.adapter is None  # under an adapter, the reward is not the prompt's own
        services.memory.remember(
            Entry(
                prompt=prompt, task=config.name, profile=services.memory.profile, model=config.model,
                reward=verdict.after, gain=verdict.gain, kept=verdict.kept and alone, round=row.number,
                run=services.folder.name,
            )
        )  # fmt: skip
    services.memory.note(row)

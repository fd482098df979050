"""The lever that goes back."""

from agent.records.actions import Rollback
from agent.records.rounds import Trial
from graphs.services.run import RunServices
from graphs.state import State, action_of


def rollback(state: State, services: RunServices) -> State:
    """Take up the pair that stood after an earlier round."""
    number = action_of(state, Rollback).to_round
    first, rounds = services.folder.baseline(), services.folder.rounds()
    if number > len(rounds) or first is None:
        return {"trial": Trial(candidate=None, note=f"There is no round {number} to go back to.")}
    candidate = rounds[number - 1].best if number else first.best
    return {"trial": Trial(candidate=candidate, note=f"back to the pair after round {number}")}

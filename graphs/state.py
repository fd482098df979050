"""What a checkpoint holds, and what every node has in common."""

import errno
import operator
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from langgraph.runtime import Runtime
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from agent.errors import NesyLoraError
from agent.moves import Decision
from agent.records import Candidate, Diagnosis, Signal, digest
from agent.rounds import Spend, Trial, Verdict
from graphs.context import Context
from graphs.labels import began_with

M = TypeVar("M")


class State(TypedDict, total=False):
    """What a checkpoint holds: ids, scalars and small records. It does not grow; the history is the ledger's."""

    run: str
    number: int
    best: Candidate
    signal: Signal
    diagnosis: Diagnosis
    decision: Decision | None
    refused: tuple[str, ...]
    trial: Trial
    verdict: Verdict
    spend: Annotated[Spend, operator.add]


Node = Callable[[State, Context], dict[str, Any]]


def metered(node: Node) -> Any:
    """A node as LangGraph calls it, with what it used up added to `spend` (and to the trial, if it made one)."""

    def run(state: State, runtime: Runtime[Context]) -> dict[str, Any]:
        context = runtime.context
        context.begin(f"{state.get('number', 0)}-{node.__name__}", state.get("spend", Spend()))
        try:
            update = node(state, context)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise NesyLoraError(
                f"The disk is full: {context.folder.path}. Make room, then go on with resume."
            ) from error
        spent, context.step = context.spent, ""
        if "trial" in update:
            update["trial"] = update["trial"].model_copy(update={"spend": spent})
        return {**update, "spend": spent}

    # Not functools.wraps: LangGraph reads the signature, and would follow it to the node's own.
    run.__name__, run.__doc__ = node.__name__, node.__doc__
    return run


def decided(state: State) -> Decision:
    """The decision under way."""
    decision = state["decision"]
    assert decision is not None, "the router sends nobody here without a decision"
    return decision


def move_of(state: State, kind: type[M]) -> M:
    """The move under way, of the kind that this lever executes."""
    move = decided(state).move
    assert isinstance(move, kind), f"the router sends only {kind.__name__} here"
    return move


def seed_of(state: State, context: Context) -> int:
    """The same for the same try of a lever on the same pair, in every process and under every policy.

    So policies are compared on common random numbers; and no try is repeated to the letter, be it that it failed or
    that the run went back to the pair before it.
    """
    decision, rounds = state.get("decision"), context.folder.rounds()[: state["number"]]
    action = decision.move.action if decision else None
    before = zip(rounds, began_with(rounds, context), strict=True)
    tries = sum(row.decision.move.action == action and pair == state["best"] for row, pair in before)
    return int(digest([context.spec.config.seed, state["best"].id, action, tries]), 16) % 2**31

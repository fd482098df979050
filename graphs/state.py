"""What a checkpoint holds, and what every node has in common."""

import errno
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

from langgraph.runtime import Runtime
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from agent.errors import BadInput, NesyLoraError
from agent.records.actions import Decision
from agent.records.base import digest
from agent.records.examples import Candidate
from agent.records.rounds import Outcome, Spend, Trial, Verdict
from agent.records.signal import Diagnosis, Signal
from graphs.nodes.labels import began_with
from graphs.services.context import Context

M = TypeVar("M")


class State(TypedDict, total=False):
    """What a checkpoint holds: ids, scalars and small records. It does not grow; the history is the ledger's."""

    run: str
    number: int
    best: Candidate
    signal: Signal
    diagnosis: Diagnosis
    decision: Decision | None
    refused: Sequence[str]  # comes back from a checkpoint as a list
    trial: Trial
    verdict: Verdict
    spend: Annotated[Spend, operator.add]
    outcome: Outcome


def unreadable(values: Mapping[str, Any]) -> str:
    """The names of a checkpoint's values that are no records of this version; empty if all are.

    LangGraph hands over what it cannot build, such as a record whose field was renamed, as a plain dict.
    """
    return ", ".join(key for key, value in values.items() if key in State.__annotations__ and isinstance(value, dict))


Node = Callable[[State, Context], dict[str, Any]]


def metered(node: Node) -> Any:
    """A node as LangGraph calls it, with what it used up added to `spend` (and to the trial, if it made one)."""

    def run(state: State, runtime: Runtime[Context]) -> dict[str, Any]:
        context = _own_run(runtime)
        if outcome := context.folder.outcome():
            return _ended(context, outcome)
        if fault := unreadable(state):
            raise BadInput(
                f"The checkpoint of run {context.folder.name} was written by another version of NeSyLoRA ({fault}). "
                f"Give the run a new thread: it goes on after its last complete round."
            )
        minutes = context.spec.config.budget.minutes
        context.meter.begin(_step(node, state), state.get("spend", Spend()), minutes)
        try:
            update = node(state, context)
            context.meter.charge()  # for a run that begins anew, with the checkpoint lost that counts this step
            own = context.meter.spent
            if "trial" in update:
                spend = own + context.meter.counted
                update["trial"] = update["trial"].model_copy(update={"spend": spend})
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise NesyLoraError(
                f"The disk is full: {context.folder.path}. Make room, then go on with resume."
            ) from error
        finally:
            context.meter.end()
        return {**update, "spend": own + update.get("spend", Spend())}

    # Not functools.wraps: LangGraph reads the signature, and would follow it to the node's own.
    run.__name__, run.__doc__ = node.__name__, node.__doc__
    return run


def _step(node: Node, state: State) -> str:
    """A step's name in charge.json: the same after a kill, another one when a round plans again after a refusal."""
    refused = len(state.get("refused", ()))
    return f"{state.get('number', 0)}-{node.__name__}" + (f"-{refused}" if refused else "")


def _own_run(runtime: Runtime[Context]) -> Context:
    """The context, with its run kept for this process; one that has ended needs no keeping."""
    context = runtime.context
    if context is None:
        raise BadInput("The graph was given no context. Invoke it with context=Context(task=…), or Context(run=…).")
    if not context.folder.outcome():
        context.hold()
    return context


def _ended(context: Context, outcome: Outcome) -> dict[str, Any]:
    """What every node of a run that has ended returns: nothing is played, and no row opened, a second time."""
    number = len(context.folder.rounds())
    return {"run": context.folder.name, "number": number, "best": outcome.best, "decision": None, "outcome": outcome}


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

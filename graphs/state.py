"""What goes into the graph, what its checkpoints hold, and what comes out."""

import operator
from collections.abc import Mapping, Sequence
from typing import Annotated, TypeVar

from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from agent.records.actions import Decision
from agent.records.base import digest
from agent.records.examples import Candidate, Prompt
from agent.records.rounds import Outcome, Spend, SplitResult, Trial, Verdict
from agent.records.signal import Diagnosis, Signal
from graphs.rows.labels import pairs_before
from graphs.services.run import RunServices

M = TypeVar("M")


class Input(TypedDict, total=False):
    """What a parent graph may give. The fields mean what those of `graphs.context.Context` do, which win."""

    run: str
    task: str
    overrides: Sequence[str]
    budget: dict[str, float | None]
    runs: str
    pool: str
    supervised: bool


class Output(TypedDict, total=False):
    """What the run brought. Paths are absolute, and those of this call: they are worked out anew at each."""

    run: str
    number: int
    best: Candidate
    outcome: Outcome | None  # None again after a run that had ended was opened again
    prompt: Prompt
    adapter: str | None  # a folder in peft's format; None: the bare base with `prompt` was best
    test: SplitResult  # of the best pair
    report: str | None  # report.html; None where nobody writes it


class State(Input, Output, total=False):
    """What a checkpoint holds: ids, scalars and small records. It does not grow; the history is the ledger's."""

    run: str  # its name, once the baseline has been scored
    number: int
    best: Candidate
    signal: Signal
    diagnosis: Diagnosis
    decision: Decision | None
    refused: Sequence[str]  # comes back from a checkpoint as a list
    trial: Trial
    verdict: Verdict
    spend: Annotated[Spend, operator.add]


def unreadable(values: Mapping[str, object]) -> str:
    """The names of a checkpoint's values that are no records of this version; empty if all are.

    LangGraph hands over what it cannot build, such as a record whose field was renamed, as a plain dict.
    """
    records = State.__annotations__.keys() - Input.__annotations__.keys()
    return ", ".join(key for key, value in values.items() if key in records and isinstance(value, dict))


def decided(state: State) -> Decision:
    """The decision under way."""
    decision = state["decision"]
    assert decision is not None, "the router sends nobody here without a decision"
    return decision


def action_of(state: State, kind: type[M]) -> M:
    """The action under way, of the kind that this lever executes."""
    action = decided(state).move
    assert isinstance(action, kind), f"the router sends only {kind.__name__} here"
    return action


def seed_of(state: State, services: RunServices) -> int:
    """The same for the same try of a lever on the same pair, in every process and under every policy.

    So policies are compared on common random numbers; and no try is repeated to the letter, be it that it failed or
    that the run went back to the pair before it.
    """
    decision, rounds = state.get("decision"), services.folder.rounds()[: state["number"]]
    action = decision.move.action if decision else None
    before = zip(rounds, pairs_before(rounds, services), strict=True)
    tries = sum(row.decision.move.action == action and pair == state["best"] for row, pair in before)
    return int(digest([services.spec.config.seed, state["best"].id, action, tries]), 16) % 2**31

"""What happens in a run, as typed records: what a listener receives, and what events.jsonl holds.

Every record has a `kind` and is plain JSON (`model_dump(mode="json")`), so it can be streamed as it is.
"""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from agent.records.actions import Action, Decision
from agent.records.base import Record
from agent.records.limits import Extension
from agent.records.looks import Inquiry
from agent.records.rounds import Baseline, Outcome, Round


class RunStarted(Record):
    """A process takes the run up, for the first time or after a kill. `folder` is its path."""

    kind: Literal["run"] = "run"
    name: str
    task: str
    model: str
    policy: str
    folder: str = ""


class BaselineScored(Record):
    """The seed prompt is scored, and so are the prompts that memory recalled."""

    kind: Literal["baseline"] = "baseline"
    row: Baseline


class RoundStarted(Record):
    """A round begins: its failing rows are being diagnosed."""

    kind: Literal["round-start"] = "round-start"
    number: int


class DecisionMade(Record):
    """The next action is decided; in supervised use it still waits for the user."""

    kind: Literal["decision"] = "decision"
    number: int = Field(description="of the round")
    decision: Decision


class InquiryMade(Record):
    """The planner has looked at something before it decides."""

    kind: Literal["inquiry"] = "inquiry"
    number: int = Field(description="of the round")
    inquiry: Inquiry


class PlanAnswered(Record):
    """A user has answered what was decided, by whatever face. `move` was planned; in an `edit`, it is done instead."""

    kind: Literal["answer"] = "answer"
    number: int = Field(description="of the round")
    answer: Literal["approve", "edit", "reject"]
    move: Action
    message: str = Field("", description="of a rejection: why")


class RoundJudged(Record):
    """A round is over: its ledger row, verdict included."""

    kind: Literal["verdict"] = "verdict"
    row: Round


class Note(Record):
    """A sentence for the user: a warning, a wait, what was passed over."""

    kind: Literal["note"] = "note"
    text: str


class RunFinished(Record):
    """The test rows are scored, and the run is over."""

    kind: Literal["finish"] = "finish"
    outcome: Outcome


class LimitsSet(Record):
    """A user has set other limits, by a row in the ledger."""

    kind: Literal["limits"] = "limits"
    row: Extension


class RunStopped(Record):
    """The process lets go of a run that has not ended. It can be gone on with."""

    kind: Literal["stopped"] = "stopped"
    reason: str
    failed: bool = Field(False, description="whether an error stopped it")


class WorkProgressed(Record):
    """How far long work is. Streamed and shown, and not written to events.jsonl: there are thousands."""

    kind: Literal["progress"] = "progress"
    what: str
    done: int
    total: int
    note: str = Field("", description="such as the loss, or texts per second")


Event = Annotated[
    RunStarted
    | BaselineScored
    | RoundStarted
    | InquiryMade
    | DecisionMade
    | PlanAnswered
    | RoundJudged
    | Note
    | RunFinished
    | LimitsSet
    | RunStopped
    | WorkProgressed,
    Field(discriminator="kind"),
]
EVENT: TypeAdapter[Event] = TypeAdapter(Event)

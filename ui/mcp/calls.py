"""What the tools take: the same settings as `tools.toolbox`, and which run is meant."""

from functools import cache
from typing import Any, TypeVar

from pydantic import Field, ValidationError, create_model

from agent.errors import BadInput
from agent.records.base import Record
from agent.records.limits import OtherLimits
from tools.toolbox import LEVERS

Made = TypeVar("Made", bound=Record)
WAIT = 50.0  # seconds; many clients give a call up after 60
MOST_WAIT = 3600.0
RUN = "name of the run; empty: the newest"
WAITS = "seconds to wait for the end of what was begun; it goes on after them, and `status` tells how far it is"


class OfRun(Record):
    """A call about a run."""

    run: str = Field("", description=RUN)


class Waiting(OfRun):
    """A call that begins something, or waits for it."""

    wait: float = Field(WAIT, ge=0, le=MOST_WAIT, description=WAITS)


class DraftTask(Record):
    """Make a task of a file of rows (OpenAI or ShareGPT chats, Alpaca, CSV, TSV, JSON, JSONL, parquet): proposes columns, splits, scorers, seed prompt, target and budget, with reasons, and writes a commented task.yaml if `into` is given. Show the proposal to the user before you start a run of it."""  # noqa: E501

    rows: str = Field(description="path of the file")
    into: str = Field("", description="new folder for the task; empty: only propose")
    name: str = Field("", description="of the task; empty: that of its folder, or of the file")
    model: str = Field("smollm2-135m", description="hub name, local folder, or the embedded smollm2-135m")
    question: str = Field("", description="column of the question; empty: found by itself")
    answer: str = Field("", description="column of the answer; empty: found by itself")
    messages: str = Field("", description="column of chat messages; empty: found by itself")
    content: str = Field(
        "", description="content scorer: exact, contains, number, choice, f1, json_fields; empty: found"
    )
    system: str = Field("", description="system text of the seed prompt; empty: proposed")
    target: float | None = Field(None, gt=0, le=1, description="validation reward at which the run is done")
    try_rows: bool = Field(False, description="load the model and show what it answers to five train rows now")


class StartRun(Record):
    """Start a run of a task: loads its model, measures the seed prompt on the validation rows, and plans a first round, which waits for you. Nothing is trained or rewritten yet."""  # noqa: E501

    task: str = Field(description="a task.yaml, or its folder")
    name: str = Field("", description="of the run; empty: task and time")
    overrides: tuple[str, ...] = Field((), description="settings of the task, such as budget.rounds=3")
    wait: float = Field(WAIT, ge=0, le=MOST_WAIT, description=WAITS)


class ListRuns(Record):
    """List the runs, the newest first, with their rewards."""


class Status(Waiting):
    """Where a run stands: rewards, what is under way, what is planned next, why, and what it costs. With `wait` it returns as soon as the step under way has ended."""  # noqa: E501

    wait: float = Field(0.0, ge=0, le=MOST_WAIT, description=WAITS)


class ContinueRun(Waiting):
    """Do what is planned, and go on so for a number of rounds without asking again. The end of the run always asks."""

    rounds: int = Field(1, ge=1, le=100, description="how many rounds")


class CancelStep(Waiting):
    """Break off the action under way. It stays cancelled: nothing is changed by it, and another is planned."""


class Extend(Waiting, OtherLimits):
    """Set other limits for a run, such as more rounds: in all, what is done and used up included. A finished run is opened again under the same ledger; its test result is marked as seen."""  # noqa: E501


class Finish(Waiting):
    """End the run: the best pair is measured on the sealed test rows, once, beside the seed prompt, and the report is written. Final."""  # noqa: E501


class ExplainRound(OfRun):
    """Why a round was decided as it was, what was done, what came of it, and why that was kept or taken back."""

    round: int | None = Field(None, ge=1, description="its number; null: the last one")


class Report(OfRun):
    """Where the report of a run is: one HTML page, and the same as Markdown; with the prompt and the adapter that are best so far."""  # noqa: E501


@cache
def call_of(record: type[Record]) -> type[Record]:
    """A lever's, or a look's, settings and the run that is meant, flat."""
    waits: dict[str, Any] = {"wait": (float, Field(WAIT, ge=0, le=MOST_WAIT, description=WAITS))}
    extra = waits if record in LEVERS else {}
    made: type[Record] = create_model(
        f"{record.__name__}Call",
        __base__=record,
        __doc__=record.__doc__,
        run=(str, Field("", description=RUN)),
        **extra,
    )
    return made


def record_of(call: Record, record: type[Made]) -> Made:
    """The lever, or the look, that a call is of. It names what the call names; see `graphs.approval.completed`."""
    return record.model_validate(call.model_dump(include=call.model_fields_set & set(record.model_fields)))


def read_call(call: type[Record], arguments: dict[str, Any]) -> Record:
    """The call with these arguments. Raises BadInput with a sentence a fault."""
    if "action" in call.model_fields and "action" in arguments:
        raise BadInput("action: unknown; it is the tool's own name")
    try:
        return call.model_validate(arguments)
    except ValidationError as error:
        known = ", ".join(name for name in call.model_fields if name != "action") or "none"
        raise BadInput(
            "; ".join(
                f"{fault['loc'][0] if fault['loc'] else 'arguments'}: "
                + (
                    f"there is no such setting; there are {known}"
                    if fault["type"] == "extra_forbidden"
                    else f"{fault['msg']}, but it is {fault['input']!r}"
                )
                for fault in error.errors()
            )
        ) from None

"""What an LLM may choose in a conversation, each with the command that a user could have given instead."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from agent.records.actions import Rows
from agent.records.base import Record

Text = Annotated[str, StringConstraints(strip_whitespace=True)]
Number = Annotated[int, Field(ge=0, le=10_000)]


class Answer(Record):
    """Say something: an answer from the facts, or a question back."""

    action: Literal["answer"] = "answer"
    text: Text = Field(min_length=1, max_length=1200)


class Approve(Record):
    """They agree to what is planned: do it."""

    action: Literal["approve"] = "approve"


class Reject(Record):
    """They do not want what is planned: plan something else."""

    action: Literal["reject"] = "reject"
    reason: Text = Field("", max_length=300, description="theirs, or empty")


class TrainWeights(Record):
    """Train the weights with LoRA next. Slow; teaches facts and skills."""

    action: Literal["train_lora"] = "train_lora"
    epochs: Annotated[int, Field(ge=1, le=20)] | None = Field(None, description="null if they name none")
    rows: Rows | None = Field(None, description="null if they name none")


class RewritePrompt(Record):
    """Rewrite the prompt next. Quick; mends form and tone."""

    action: Literal["edit_prompt"] = "edit_prompt"
    instruction: Text = Field("", max_length=2000, description="words that they want in the prompt; empty: an editor's")


class GoBack(Record):
    """Take changes back: to the model and prompt after an earlier round."""

    action: Literal["rollback"] = "rollback"
    to_round: Number | None = Field(None, description="0: the baseline; null: before the last change that was kept")


class RunRounds(Record):
    """Do several rounds without asking about each."""

    action: Literal["run_rounds"] = "run_rounds"
    rounds: Annotated[int, Field(ge=1, le=100)] | None = Field(None, description="null if they name none")


class SetLimits(Record):
    """Set the target reward or the budget, also to go on with a finished run. Name only what they name."""

    action: Literal["set_limits"] = "set_limits"
    target: Annotated[float, Field(gt=0, le=1)] | None = Field(None, description="reward from 0 to 1")
    rounds: Number | None = Field(None, description="in all, done ones included")
    minutes: Annotated[float, Field(gt=0)] | None = None
    usd: Annotated[float, Field(ge=0)] | None = None


class CancelStep(Record):
    """Break off the step that is under way."""

    action: Literal["cancel_step"] = "cancel_step"


class Finish(Record):
    """End the run for good: open the test rows, write the report."""

    action: Literal["finish"] = "finish"


class Status(Record):
    """Look: reward, budget, cost, what is under way."""

    action: Literal["status"] = "status"


class ExplainRound(Record):
    """Look: what was done in a round, why, and how it was judged."""

    action: Literal["explain_round"] = "explain_round"
    number: Number


class ShowPrompt(Record):
    """Look: the prompt as it is now."""

    action: Literal["show_prompt"] = "show_prompt"


class ShowChanges(Record):
    """Look: what the prompt says now that it did not say at first."""

    action: Literal["show_changes"] = "show_changes"


class ClassifyFailures(Record):
    """Look: how many rows fail, what they lack, and some failing train rows."""

    action: Literal["classify_failures"] = "classify_failures"


class SearchPrompts(Record):
    """Look: prompts that earlier runs kept on near tasks."""

    action: Literal["search_prompts"] = "search_prompts"
    about: Text = Field("", max_length=300)


class ComparePairs(Record):
    """Look: the results after two rounds, on the same rows."""

    action: Literal["compare"] = "compare"
    first: Number
    second: Number


class TryModel(Record):
    """Look: ask the model itself a question, as its users would."""

    action: Literal["try_prompt"] = "try_prompt"
    question: Text = Field(min_length=1, max_length=2000)


LOOKS = (Status, ExplainRound, ShowPrompt, ShowChanges, ClassifyFailures, SearchPrompts, ComparePairs, TryModel)
ACTS = (Approve, Reject, TrainWeights, RewritePrompt, GoBack, RunRounds, SetLimits, CancelStep, Finish)
Tool = Annotated[
    Answer | Approve | Reject | TrainWeights | RewritePrompt | GoBack | RunRounds | SetLimits | CancelStep | Finish
    | Status | ExplainRound | ShowPrompt | ShowChanges | ClassifyFailures | SearchPrompts | ComparePairs | TryModel,
    Field(discriminator="action"),
]  # fmt: skip


def command_of(tool: Record) -> str:
    """The command line that does what the LLM chose."""
    match tool:
        case Approve() | Status() | Finish():
            return f"/{tool.action}"
        case Reject(reason=reason):
            return f"/reject {reason}".strip()
        case RewritePrompt(instruction=words):
            return f"/edit {words}".strip()
        case GoBack(to_round=number):
            return "/undo" if number is None else f"/rollback {number}"
        case RunRounds(rounds=rounds):
            return f"/run {rounds or 1}"
        case TrainWeights() | SetLimits():
            name = "/train" if isinstance(tool, TrainWeights) else "/set"
            named = tool.model_dump(exclude={"action"}, exclude_none=True)
            return " ".join([name, *(f"{key}={_plain(value)}" for key, value in named.items())])
        case CancelStep():
            return "/stop"
        case ExplainRound(number=number):
            return f"/why {number}"
        case ComparePairs(first=first, second=second):
            return f"/compare {first} {second}"
        case SearchPrompts(about=about):
            return f"/search {about}".strip()
        case TryModel(question=question):
            return f"/try {question}"
        case ShowPrompt():
            return "/prompt"
        case ShowChanges():
            return "/diff"
        case ClassifyFailures():
            return "/failures"
        case _:
            raise AssertionError(f"{tool!r} is no tool of a conversation")


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)

"""The levers, and what may be looked at, as LangChain tools: bounded arguments in, records out."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from agent.errors import BadInput, LlmUnavailable, StepFailed
from agent.records.actions import Action, EditPrompt, Rollback, Stop, TrainLora
from agent.records.base import Record
from agent.records.looks import ClassifyFailures, Compare, Evaluate, Finding, Look, SearchPrompts, TryPrompt
from agent.records.rounds import Outcome, RoundSummary

if TYPE_CHECKING:
    from langchain_core.tools import StructuredTool

LEVERS: tuple[type[Record], ...] = (TrainLora, EditPrompt, Rollback, Stop)
FILLED_IN = (TrainLora, EditPrompt)  # levers whose settings the run fills in; see `graphs.approval.completed`
LEFT_OUT = "What you leave out is as planned, where the same lever is planned, or else as the rules have it."
LOOKS: tuple[type[Record], ...] = (Evaluate, ClassifyFailures, SearchPrompts, TryPrompt, Compare)


class Workbench(Protocol):
    """What the tools work on: one run."""

    def pull(self, action: Action) -> RoundSummary | Outcome:
        """One round with this action; `stop` ends the run."""
        ...

    def look(self, look: Look) -> Finding:
        """What is found. Nothing changes by it."""
        ...


def about(arguments: type[Record]) -> str:
    """The description of a tool that takes these, for an agent."""
    told = " ".join((arguments.__doc__ or "").split())
    return f"{told} {LEFT_OUT}" if issubclass(arguments, FILLED_IN) else told


def schema_of(arguments: type[Record]) -> dict[str, Any]:
    """The JSON schema of a tool's arguments: without the action, which is the tool's name, and without a lever's
    defaults, which are not what is meant by leaving a setting out."""
    schema = arguments.model_json_schema()
    schema.pop("description", None)
    settings = schema["properties"]
    settings.pop("action", None)
    for lever in FILLED_IN:
        for name in lever.model_fields if issubclass(arguments, lever) else ():
            settings.get(name, {}).pop("default", None)
    return schema


def toolbox(workbench: Workbench) -> "list[StructuredTool]":
    """One tool per lever and per look, named as its action.

    A tool's message holds the result as JSON, and the record itself as its `artifact`. Arguments out of bounds raise
    pydantic's ValidationError before anything is done, which LangGraph's ToolNode shows the LLM; so it does with the
    sentence of what cannot be done now. The action that a tool pulls names what its caller has named, and no more.
    """
    return [*(_tool(lever, workbench.pull) for lever in LEVERS), *(_tool(look, workbench.look) for look in LOOKS)]


def _tool(arguments: type[Record], do: Callable[[Any], Record]) -> "StructuredTool":
    from langchain_core.tools import StructuredTool, ToolException

    name = str(arguments.model_fields["action"].default)

    def call(**values: object) -> tuple[str, Record]:
        try:
            result = do(arguments.model_validate({"action": name, **values}))
        except (BadInput, StepFailed, LlmUnavailable) as error:
            raise ToolException(str(error)) from error
        return result.model_dump_json(), result

    return StructuredTool.from_function(
        func=call,
        name=name,
        description=about(arguments),
        args_schema=schema_of(arguments),  # of a class, LangChain would fill in the defaults
        response_format="content_and_artifact",
        handle_tool_error=True,
    )

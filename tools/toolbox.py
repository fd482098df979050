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
LOOKS: tuple[type[Record], ...] = (Evaluate, ClassifyFailures, SearchPrompts, TryPrompt, Compare)


class Workbench(Protocol):
    """What the tools work on: one run."""

    def pull(self, action: Action) -> RoundSummary | Outcome:
        """One round with this action; `stop` ends the run."""
        ...

    def look(self, look: Look) -> Finding:
        """What is found. Nothing changes by it."""
        ...


def toolbox(workbench: Workbench) -> "list[StructuredTool]":
    """One tool per lever and per look, named as its action.

    A tool's message holds the result as JSON, and the record itself as its `artifact`. Arguments out of bounds raise
    pydantic's ValidationError before anything is done, which LangGraph's ToolNode shows the LLM; so it does with the
    sentence of what cannot be done now.
    """
    return [*(_tool(lever, workbench.pull) for lever in LEVERS), *(_tool(look, workbench.look) for look in LOOKS)]


def _tool(arguments: type[Record], do: Callable[[Any], Record]) -> "StructuredTool":
    from langchain_core.tools import StructuredTool, ToolException

    name = str(arguments.model_fields["action"].default)

    def call(**values: object) -> tuple[str, Record]:
        try:
            result = do(arguments.model_validate({**values, "action": name}))
        except (BadInput, StepFailed, LlmUnavailable) as error:
            raise ToolException(str(error)) from error
        return result.model_dump_json(), result

    return StructuredTool.from_function(
        func=call,
        name=name,
        description=" ".join((arguments.__doc__ or "").split()),
        args_schema=arguments,
        response_format="content_and_artifact",
        handle_tool_error=True,
    )

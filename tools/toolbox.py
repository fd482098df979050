"""The levers as LangChain tools with bounded arguments, for agents that call tools themselves."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from agent.records.actions import Action, EditPrompt, Rollback, Stop, TrainLora

if TYPE_CHECKING:
    from langchain_core.tools import StructuredTool

LEVERS: tuple[type[Action], ...] = (TrainLora, EditPrompt, Rollback, Stop)


def toolbox(pull: Callable[[Action], str]) -> "list[StructuredTool]":
    """One tool per lever, named as its action. Calling it validates the arguments and hands the move to `pull`.

    Args:
        pull: carries out one round with this move and says in a sentence what came of it.
    """
    return [_tool(lever, pull) for lever in LEVERS]


def _tool(lever: type[Action], pull: Callable[[Action], str]) -> "StructuredTool":
    from langchain_core.tools import StructuredTool

    def call(**arguments: object) -> str:
        return pull(lever.model_validate({**arguments, "action": action}))

    action = str(lever.model_fields["action"].default)
    return StructuredTool.from_function(
        func=call, name=action, description=(lever.__doc__ or "").strip(), args_schema=lever
    )

"""The state machine: observe, decide, act, judge, remember; until the target, a budget or a plateau."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, Self, cast

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import RetryPolicy

from agent.errors import LlmUnavailable
from graphs.context import Context, Report
from graphs.invocation import Invocation, as_node
from graphs.nodes.approve import approve, route
from graphs.nodes.baseline import baseline
from graphs.nodes.edit_prompt import edit_prompt
from graphs.nodes.finish import finish
from graphs.nodes.judge import judge
from graphs.nodes.observe import observe
from graphs.nodes.plan import plan
from graphs.nodes.remember import remember
from graphs.nodes.rollback import rollback
from graphs.nodes.train_lora import train_lora
from graphs.state import Input, Output, State

LEVERS = ("train_lora", "edit_prompt", "rollback")


class Adaptation(CompiledStateGraph[Any, Any, Any, Any]):
    """The compiled graph. Its nodes take the run's lock; it lets go of it when it stops, in whatever way.

    All of LangGraph's ways to run a graph (invoke, batch, events, its server, a parent graph) come through these two.
    """

    def stream(self, input: Any, config: Any = None, *, context: Any = None, **options: Any) -> Iterator[Any]:
        invocation = Invocation(context)
        try:
            yield from super().stream(input, config, context=invocation, **options)
        finally:
            invocation.close()

    async def astream(
        self, input: Any, config: Any = None, *, context: Any = None, **options: Any
    ) -> AsyncIterator[Any]:
        invocation = Invocation(context)
        try:
            async for part in super().astream(input, config, context=invocation, **options):
                yield part
        finally:
            await asyncio.to_thread(invocation.close)  # it removes a file

    def copy(self, update: dict[str, Any] | None = None) -> Self:
        """As LangGraph's server and `with_config` take it: with the records that its checkpoints may hold."""
        copied = super().copy(update)
        copied._serde_allowlist = self._serde_allowlist
        return copied


def is_lost_connection(error: Exception) -> bool:
    """Whether a step is worth another try: a connection broke, such as the hub's while a model was fetched.

    What is wrong with a task stays wrong, and calls to an external LLM have been tried again already.
    """
    import httpx

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, BrokenPipeError | LlmUnavailable):  # nobody reads our output any more; tried again already
            return False
        if isinstance(cause, ConnectionError | TimeoutError | httpx.TransportError):
            return True
        cause = cause.__cause__
    return False


RETRY = RetryPolicy(max_attempts=3, retry_on=is_lost_connection)


def build_graph(checkpointer: BaseCheckpointSaver[str] | None = None, report: Report | None = None) -> Adaptation:
    """The compiled graph. Invoke it with `{"task": …}` as input or with `context=Context(task=…)`, and a thread id.

    It is a node of other graphs, too: see `Input` and `Output`.

    Args:
        checkpointer: where state is kept between steps, such as SqliteSaver; None: a parent graph's, or that of
            LangGraph's server.
        report: writes the report of a run, where the context names nothing that does.
    """
    graph = StateGraph(State, context_schema=Context, input_schema=Input, output_schema=Output)
    for node in (baseline, observe, plan, approve, train_lora, edit_prompt, rollback, judge, remember, finish):
        graph.add_node(node.__name__, as_node(node, report), retry_policy=RETRY)
    graph.add_edge(START, "baseline")
    graph.add_edge("baseline", "observe")
    graph.add_edge("observe", "plan")
    graph.add_edge("plan", "approve")
    graph.add_conditional_edges("approve", route, ["plan", *LEVERS, "finish"])
    for lever in LEVERS:
        graph.add_edge(lever, "judge")
    graph.add_edge("judge", "remember")
    graph.add_edge("remember", "observe")
    graph.add_edge("finish", END)
    compiled = graph.compile(checkpointer=checkpointer)
    compiled.__class__ = Adaptation
    return cast(Adaptation, compiled)


def steps(rounds: int) -> int:
    """The recursion limit for a budget of rounds: six nodes a round, some to begin and end, room for refusals."""
    return 8 * (rounds + 4)

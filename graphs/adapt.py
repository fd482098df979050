"""The state machine: observe, decide, act, judge, remember; until the target, a budget or a plateau."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, nullcontext
from typing import Any

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

from graphs.nodes import levers
from graphs.nodes import steps as nodes
from graphs.nodes.judge import judge
from graphs.nodes.observe import observe
from graphs.services.context import Context
from graphs.state import State

LEVERS = ("train_lora", "edit_prompt", "rollback")


class Adaptation(CompiledStateGraph[Any, Any, Any, Any]):
    """The compiled graph. Its nodes take the run's lock; it lets go of it when it stops, in whatever way.

    All of LangGraph's ways to run a graph (invoke, batch, events, its server) come through these two.
    """

    def stream(self, input: Any, config: Any = None, *, context: Any = None, **options: Any) -> Iterator[Any]:
        context = Context(**context) if isinstance(context, dict) else context
        with context.alone() if context else nullcontext():
            yield from super().stream(input, config, context=context, **options)

    async def astream(
        self, input: Any, config: Any = None, *, context: Any = None, **options: Any
    ) -> AsyncIterator[Any]:
        context = Context(**context) if isinstance(context, dict) else context
        async with AsyncExitStack() as stack:
            if context:
                alone = context.alone()
                alone.__enter__()
                stack.push_async_callback(asyncio.to_thread, alone.__exit__, None, None, None)  # it removes a file
            async for told in super().astream(input, config, context=context, **options):
                yield told


def build_graph(checkpointer: Any = None) -> Any:
    """The compiled graph. Invoke it with `context=Context(run=…)` and a thread id.

    Args:
        checkpointer: where state is kept between steps, such as SqliteSaver; None: LangGraph's server brings its own.
    """
    graph = StateGraph(State, context_schema=Context)
    for node in (nodes.baseline, observe, nodes.plan, nodes.approve, judge, nodes.remember, nodes.finish):
        graph.add_node(node)
    for lever in (levers.train_lora, levers.edit_prompt, levers.rollback):
        graph.add_node(lever)
    graph.add_edge(START, "baseline")
    graph.add_edge("baseline", "observe")
    graph.add_edge("observe", "plan")
    graph.add_edge("plan", "approve")
    graph.add_conditional_edges("approve", nodes.route, ["plan", *LEVERS, "finish"])
    for lever in LEVERS:
        graph.add_edge(lever, "judge")
    graph.add_edge("judge", "remember")
    graph.add_edge("remember", "observe")
    graph.add_edge("finish", END)
    compiled = graph.compile(checkpointer=checkpointer)
    compiled.__class__ = Adaptation  # made anew, it would lose which records its checkpoints may hold
    return compiled


def steps(rounds: int) -> int:
    """The recursion limit for a budget of rounds: six nodes a round, some to begin and end, room for refusals."""
    return 8 * (rounds + 4)


graph = build_graph()  # what langgraph.json names: LangGraph's tools bring their own checkpointer

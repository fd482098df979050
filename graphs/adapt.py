"""The state machine: observe, decide, act, judge, remember; until the target, a budget or a plateau."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

from graphs.context import Context
from graphs.invocation import Invocation, Report, as_node
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


def build_graph(checkpointer: Any = None, report: Report | None = None) -> Any:
    """The compiled graph. Invoke it with `{"task": …}` as input or with `context=Context(task=…)`, and a thread id.

    It is a node of other graphs, too: see `Input` and `Output`.

    Args:
        checkpointer: where state is kept between steps, such as SqliteSaver; None: a parent graph's, or that of
            LangGraph's server.
        report: writes the report of a run, where the context names nothing that does.
    """
    graph = StateGraph(State, context_schema=Context, input_schema=Input, output_schema=Output)
    for node in (baseline, observe, plan, approve, train_lora, edit_prompt, rollback, judge, remember, finish):
        graph.add_node(node.__name__, as_node(node, report))
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
    compiled.__class__ = Adaptation  # made anew, it would lose which records its checkpoints may hold
    return compiled


def steps(rounds: int) -> int:
    """The recursion limit for a budget of rounds: six nodes a round, some to begin and end, room for refusals."""
    return 8 * (rounds + 4)


graph = build_graph()  # what langgraph.json names: LangGraph's tools bring their own checkpointer

"""The state machine: observe, decide, act, judge, remember; until the target, a budget or a plateau."""

from typing import Any

from langgraph.graph import END, START, StateGraph

from graphs import levers, nodes
from graphs.context import Context
from graphs.judging import judge
from graphs.observing import observe
from graphs.state import State

LEVERS = ("train_lora", "edit_prompt", "rollback")


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
    return graph.compile(checkpointer=checkpointer)


def steps(rounds: int) -> int:
    """The recursion limit for a budget of rounds: six nodes a round, some to begin and end, room for refusals."""
    return 8 * (rounds + 4)


graph = build_graph()  # what langgraph.json names: LangGraph's tools bring their own checkpointer

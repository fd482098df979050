#!/usr/bin/env bash
# langgraph 1.2.22: a graph waits at an `interrupt()`. Before the answer comes, what the node looks at has changed (a file,
#   a setting), and run again it asks nothing any more.
# Expected: `Command(resume=...)` is refused, or answers the next question of the graph.
# Seen: the answer is taken and lost, without an error; the graph goes on to its next question, and asks that.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet 'langgraph==1.2.22'
cat >lost.py <<'PY'
from typing import TypedDict

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

settings = {"ask first": True}


class State(TypedDict, total=False):
    first: str
    second: str


def first(state: State) -> State:
    return {"first": interrupt("Train?") if settings["ask first"] else "not asked"}


def second(state: State) -> State:
    return {"second": interrupt("Delete the base?")}


graph = StateGraph(State).add_node(first).add_node(second).add_edge(START, "first").add_edge("first", "second")
app = graph.compile(InMemorySaver())
config = {"configurable": {"thread_id": "1"}}
app.invoke({}, config)
settings["ask first"] = False
state = app.invoke(Command(resume="yes"), config)
print(state["first"], "|", state.get("second"), "|", state["__interrupt__"][0].value)
PY
said=$(venv/bin/python lost.py)
echo "after the answer yes: $said"
if [ "$said" != "not asked | None | Delete the base?" ]; then
    echo "no longer seen: the answer is refused, or reaches a question" >&2
    exit 1
fi

#!/usr/bin/env bash
# langgraph 1.2.22, langgraph-checkpoint 4.3.2, LANGGRAPH_STRICT_MSGPACK=true: a state holds a pydantic record, and the
# graph waits in an `interrupt()`. It is gone on with by the same graph, compiled anew for its checkpointer, or by a
# copy that gets the checkpointer (`graph.copy({"checkpointer": saver})`, as servers do for every request).
# Expected: both read the record of their own state's schema.
# Seen: `compile` lets strict mode read the classes of the schema; `copy` makes the graph anew without that list. The
#   node then gets a plain dict in place of the record: no error, and only a line in the log.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet 'langgraph==1.2.22' 'langgraph-checkpoint==4.3.2'
cat >ask.py <<'PY'
from typing import TypedDict

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt
from pydantic import BaseModel


class Note(BaseModel):
    text: str


class State(TypedDict, total=False):
    note: Note
    kind: str


def write(state: State) -> State:
    return {"note": Note(text="read me")}


def ask(state: State) -> State:
    interrupt("Go on?")
    return {"kind": type(state["note"]).__name__}


def build(saver=None):
    graph = StateGraph(State).add_node("write", write).add_node("ask", ask)
    graph = graph.add_edge(START, "write").add_edge("write", "ask").add_edge("ask", END)
    return graph.compile(checkpointer=saver)


thread = {"configurable": {"thread_id": "1"}}
for name, made in {"compiled": build, "copied": lambda saver: build().copy({"checkpointer": saver})}.items():
    saver = InMemorySaver()
    made(saver).invoke({}, thread)
    print(name, made(saver).invoke(Command(resume="yes"), thread)["kind"])
PY
seen=$(LANGGRAPH_STRICT_MSGPACK=true venv/bin/python ask.py 2>/dev/null)
echo "$seen"
[ "$seen" = "compiled Note
copied dict" ] || { echo "changed"; exit 1; }

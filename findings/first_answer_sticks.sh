#!/usr/bin/env bash
# langgraph 1.2.22, langgraph-checkpoint-sqlite 3.1.2: a node asks by `interrupt()` and raises on an unusable answer.
# Expected: the step failed and was not saved, so that it waits on; the next `Command(resume=...)` is the next answer.
# Seen: the first answer is in the checkpoint already. Every later answer is ignored, in a new process too: the node is
#   run with the first one again and raises the first error again. (Ask again inside the node instead of raising.)
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet 'langgraph==1.2.22' 'langgraph-checkpoint-sqlite==3.1.2'
cat >ask.py <<'PY'
import sqlite3
import sys
from typing import TypedDict

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

State = TypedDict("State", {"rank": int})


def ask(state: State) -> State:
    answer = interrupt("Which rank?")
    if not answer.isdigit():
        raise ValueError(f"no number: {answer}")
    return {"rank": int(answer)}


graph = StateGraph(State).add_node("ask", ask).add_edge(START, "ask").add_edge("ask", END)
graph = graph.compile(checkpointer=SqliteSaver(sqlite3.connect("checkpoints.sqlite", check_same_thread=False)))
given = Command(resume=sys.argv[1]) if len(sys.argv) > 1 else {"rank": 0}
try:
    print(graph.invoke(given, {"configurable": {"thread_id": "a run"}}))
except ValueError as error:
    print(f"ValueError: {error}")
PY
venv/bin/python ask.py
for answer in sixteen 16; do
    said=$(venv/bin/python ask.py "$answer")
    echo "answered $answer: $said"
done
if [ "$said" != "ValueError: no number: sixteen" ]; then
    echo "no longer seen: the second answer is taken" >&2
    exit 1
fi

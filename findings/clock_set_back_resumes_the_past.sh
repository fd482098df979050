#!/usr/bin/env bash
# langgraph 1.2.22, langgraph-checkpoint-sqlite 3.1.2: a process does two steps and ends; the clock is set back by an hour
#   (as an NTP correction or a wrong time zone does); another process does a third step; a fourth goes on.
# Expected: the newest checkpoint is the one written last.
# Seen: it is the one with the largest id, and ids are times of the wall clock. The fourth process goes on from the second
#   step, as if the third had never been, without a word.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet 'langgraph==1.2.22' 'langgraph-checkpoint-sqlite==3.1.2'
cat >step.py <<'PY'
import sqlite3
import sys
import time
from typing import Annotated, TypedDict

back = int(sys.argv[1])  # seconds by which this process's clock is behind
now, now_ns = time.time, time.time_ns
time.time, time.time_ns = lambda: now() - back, lambda: now_ns() - back * 10**9

from langgraph.checkpoint.sqlite import SqliteSaver  # noqa: E402
from langgraph.graph import START, StateGraph  # noqa: E402


class State(TypedDict):
    steps: Annotated[list[str], lambda old, new: old + new]


graph = StateGraph(State).add_node("work", lambda state: {"steps": []}).add_edge(START, "work")
app = graph.compile(SqliteSaver(sqlite3.connect("checkpoints.sqlite", check_same_thread=False)))
for name in sys.argv[2:]:
    state = app.invoke({"steps": [name]}, {"configurable": {"thread_id": "a run"}})
print(" ".join(state["steps"]))
PY
venv/bin/python step.py 0 first second
venv/bin/python step.py 3600 third
said=$(venv/bin/python step.py 0 fourth)
echo "after the fourth step: $said"
if [ "$said" != "first second fourth" ]; then
    echo "no longer seen: the third step is there" >&2
    exit 1
fi

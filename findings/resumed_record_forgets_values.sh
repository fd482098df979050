#!/usr/bin/env bash
# langgraph 1.2.22, langgraph-checkpoint-sqlite 3.1.2 (checkpoint 4.3.2), pydantic 2.14.3: a node writes pydantic records; the
#   graph waits at an `interrupt()` and goes on in another process.
# Expected: the next node sees the same records as it would have without the wait.
# Seen: records are stored by `model_dump()` and read by `cls(**values)` (langgraph/checkpoint/serde/jsonplus.py, at
#   EXT_PYDANTIC_V2). So a field with an alias comes back as its default, in spite of a value of its own; so does one with
#   `exclude=True`; a record of a subclass inside another comes back as its base, without its own fields; and what a
#   serializer rounds for people is rounded for good. Nothing is raised or logged: every record that comes back is valid.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet 'langgraph==1.2.22' 'langgraph-checkpoint==4.3.2' 'langgraph-checkpoint-sqlite==3.1.2' \
    'pydantic==2.14.3'
cat >records.py <<'PY'
from pydantic import BaseModel, Field, field_serializer


class Plan(BaseModel):
    why: str


class Train(Plan):
    epochs: int


class Round(BaseModel):
    reward: float = Field(0.0, alias="joint_reward")  # the name that an API gives it
    key: str = Field("", exclude=True)  # not for logs
    plan: Plan
    loss: float

    @field_serializer("loss")
    def short(self, loss: float) -> float:
        return round(loss, 2)


class Ordinary(BaseModel):
    reward: float = 0.0
    plan: Train
PY
cat >run.py <<'PY'
import sqlite3
import sys
from typing import TypedDict

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt
from records import Ordinary, Round, Train


class State(TypedDict, total=False):
    round: Round
    ordinary: Ordinary
    seen: str


def work(state: State) -> State:
    plan = Train(why="facts are missing", epochs=3)
    return {"round": Round(joint_reward=0.9, key="abc", plan=plan, loss=0.12345), "ordinary": Ordinary(reward=0.9, plan=plan)}


def look(state: State) -> State:
    if WAITS:
        interrupt("Keep it?")
    return {"seen": f"{state['round']!r} | {state['ordinary']!r}"}


WAITS = sys.argv[1] != "straight"
saver = SqliteSaver(sqlite3.connect(sys.argv[2], check_same_thread=False),
                    serde=JsonPlusSerializer(allowed_msgpack_modules=[Round, Ordinary]))
graph = StateGraph(State).add_node(work).add_node(look).add_edge(START, "work").add_edge("work", "look")
app = graph.compile(saver)
config = {"configurable": {"thread_id": "1"}}
state = app.invoke(Command(resume="yes") if sys.argv[1] == "resume" else {}, config)
print(state.get("seen", "waits"))
PY
straight=$(venv/bin/python run.py straight one.sqlite)
venv/bin/python run.py wait two.sqlite
resumed=$(venv/bin/python run.py resume two.sqlite)
echo "without a wait: $straight"
echo "after the wait: $resumed"
ordinary="Ordinary(reward=0.9, plan=Train(why='facts are missing', epochs=3))"
whole="Round(reward=0.9, key='abc', plan=Train(why='facts are missing', epochs=3), loss=0.12345)"
less="Round(reward=0.0, key='', plan=Plan(why='facts are missing'), loss=0.12)"
if [ "$straight" != "$whole | $ordinary" ] || [ "$resumed" != "$less | $ordinary" ]; then
    echo "no longer seen: a record is the same after a wait, or another one without" >&2
    exit 1
fi

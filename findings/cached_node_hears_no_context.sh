#!/usr/bin/env bash
# langgraph 1.2.22: a node with a `cache_policy` reads the run's context (`context_schema`, `runtime.context`), here the
# name of the model that it asks. The graph is invoked twice with the same input and another context.
# Expected: two answers. The node is handed the context beside the state, and the answer depends on it.
# Seen: the cache's key is made of the state alone. The second run gets the first one's answer, of the other model,
#   without an error or a line in the log. The same value in the state instead is told apart.
#   And equal states may have two keys, so that the node runs again: where one text stands twice in it, as one object or
#   as two (as after a checkpoint or JSON), or where the keys of a dict come in another order.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet 'langgraph==1.2.22'
cat >ask.py <<'PY'
import json
from dataclasses import dataclass
from typing import TypedDict

from langgraph.cache.memory import InMemoryCache
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import CachePolicy


class State(TypedDict, total=False):
    question: object
    model: str
    answer: str


@dataclass
class Context:
    model: str


def ask(state: State, runtime: Runtime[Context]) -> State:
    return {"answer": state.get("model") or runtime.context.model}


def answer(question: object, context: str, **state: str) -> str:
    return graph.invoke({"question": question, **state}, context=Context(context))["answer"]


graph = StateGraph(State, context_schema=Context).add_node("ask", ask, cache_policy=CachePolicy())
graph = graph.add_edge(START, "ask").add_edge("ask", END).compile(cache=InMemoryCache())
text = "Who is it?"
print("another context:", answer(text, "small"), answer(text, "large"))
print("another state:", answer(text, "none", model="small"), answer(text, "none", model="large"))
print("equal lists:", answer([text, text], "small"), answer(json.loads(json.dumps([text, text])), "large"))
print("equal dicts:", answer({"a": 1, "b": 2}, "small"), answer({"b": 2, "a": 1}, "large"))
PY
seen=$(venv/bin/python ask.py)
echo "$seen"
[ "$seen" = "another context: small small
another state: small large
equal lists: small large
equal dicts: small large" ] || { echo "changed"; exit 1; }

"""Wiring only: the state machine, its nodes, and the services that they work with."""

import os

# Before langgraph is imported: checkpoints hold our records only.
os.environ.setdefault("LANGGRAPH_STRICT_MSGPACK", "true")

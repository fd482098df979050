"""Wiring only: the state machine, its nodes, and the context that builds the heavy services."""

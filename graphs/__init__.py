"""Wiring only: the state machine, its nodes, and the services that they work with."""

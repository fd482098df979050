"""Steering a run that works in a thread or another process: pause, answer, extend, cancel a step, stop."""

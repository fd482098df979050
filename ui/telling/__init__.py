"""Telling others how a run goes: a command or a webhook at its end and at trouble, and experiment trackers.

notify.py    one JSON record to a command or an address; tracker.py: a listener that logs to trackio, MLflow or W&B
"""

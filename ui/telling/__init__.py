"""Telling others how a run goes: a command or a webhook at its end and at trouble, and trackers of experiments.

notify.py    one JSON record to a command or an address; run.py: when a run sends one
tracker.py   a listener that logs to trackio, MLflow or W&B
"""

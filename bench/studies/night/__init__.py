"""A night in small: a queue of three tasks, once undisturbed and once with a fault every few minutes.

tasks.py        the three tasks
gateway.py      between the runs and their LLM: keeps a bill, and at times answers as a broken server
faults.py       what may happen, and when: kills, a full disk, damaged files
supervisor.py   starts the queue, and starts it again whenever it has ended too early
comparison.py   both nights side by side
"""

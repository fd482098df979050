"""Several tasks worked on one after another, unattended: what they will take, how they share a budget, who works.

needs.py      what a task needs of this machine, looked at before anything begins
estimate.py   what a task will take, from its sizes and from earlier runs; probe.py: how fast the model answers here
shares.py     what a task may use of the queue's budget
making.py     checks, estimates and refuses before anything begins
changes.py    other limits for a queue, and tasks taken out of it
becoming.py   what has become of its tasks
foreman.py    works through the queue, a process for each task
"""

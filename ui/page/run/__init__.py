"""One run on the page.

overview.py  the page itself, from the run's folder alone
details.py   parts that are loaded on demand: earlier rounds, charts, examples, candidates side by side
feed.py      what happened, in the order in which it did
question.py  the open question, and the form that changes its plan
stream.py    what changes, as server-sent events
orders.py    what changes the run: answers, pause, extend, roll back
talking.py   the conversation beside it
turns.py     what was said in it before, kept in the run's folder
bundle.py    its best pair to take along
"""

"""The web page, `nesylora ui`: a face over run folders and `Steering` that keeps nothing of its own.

command.py (entry) → serve.py   on this machine alone
                 → app.py        the application: its parts, and what an error looks like
                 → gate.py       who may come in: Host, Origin, the key in a cookie, links that work once
                 → place.py      the runs folder and a run in it, for a request; how runs are reached
                 → rendering.py  templates, on top of the report's
                 → listing.py    the runs, in short
                 → start.py      a new run of a task; drafts.py: a task of an uploaded file
                 → prompts.py    the prompt memory, searched by meaning
                 → run/          one run: its page, what changes on it, and what changes the run
"""

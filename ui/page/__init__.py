"""The web page, `nesylora ui`: a face over run folders and `Steering` that keeps nothing of its own.

serve.py (entry) → app.py        the application: who asks what, and what an error looks like
                 → gate.py       who may come in: Host, Origin, the key in a cookie, one-time links
                 → place.py      the runs folder and a run in it, for a request; how runs are reached
                 → listing.py    the runs, in short
                 → overview.py   a run's page, from its folder alone
                 → details.py    parts that are loaded on demand: rounds, charts, examples, candidates side by side
                 → stream.py     what changes, as server-sent events
                 → orders.py     what changes a run: answers, pause, extend, roll back
                 → talking.py    the conversation beside the run
                 → start.py      a new run, from a task folder or an uploaded file
                 → prompts.py    the prompt memory, searched by meaning
                 → rendering.py  templates, on top of the report's
"""

"""The report of a run: report.html and report.md, written anew after every round.

write.py (entry) → model.py     all facts, read from the run folder
                 → sections.py  each round in full; diff.py: how its prompt changed
                 → morning.py   what is read first: what was kept, what went wrong, dead ends
                 → signal.py    the monitoring signal over rounds, and its charts
                 → llm.py       the external LLM: money, planner against rules, remade rows
                 → charts.py    the other charts; svg.py: lines and texts in pixels
                 → templates/   the page, its Markdown twin, and the style sheet; markdown.py escapes what goes in
"""

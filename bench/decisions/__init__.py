"""Which policy decides well? Tasks, policies and seeds at equal budget, and their comparison.

`nesylora compare` runs one task under several policies (compare.py). `nesylora bench decide` runs every policy on every
task with every seed, and goes on after a kill:

    cli.py → decide.py       plan the groups (a task with a seed), report progress
           → workers.py      run the groups, so many processes at a time
           → run_variant.py  a run of a variant, or the oracle's search, to its row
           → results.py      a row for each run in results.jsonl
           → output.py       comparison.py (statistics) → tables.py → terminal, table.md, decide.html

folder.py reads and writes what a benchmark has on disk: bench.json, and group.json for each group.
"""

"""What does it cost, beside what people would otherwise run? `python -m bench.cost` writes docs/benchmarks.md.

A *cell* is one setting (a training step over a prefix and a batch, or answers to rows); a *contender* is one way to
compute it; a *lap* is one round of all contenders.

    __main__.py → plan.py       which cells, and which contenders in each
                → laps.py       contenders in turn, each in a process of its own
                → measuring.py  one contender in one cell: inputs.py (model, rows) → contenders/
                → records.py    a line of lines.jsonl for each cell, contender and lap
                → document.py   results.py (numbers of a cell) → claims.py, tables.py, bench/plots.py → benchmarks.md

machine.py says what the numbers of a folder were measured on.
"""

"""Where rows are scored (scoring.py, runner.py) and trials are judged (gate.py). No tool may touch it."""

"""Measuring NeSyLoRA itself. Nothing imports this room but the command line.

decisions  which policy decides well: `nesylora compare`, `nesylora bench decide` (the only part in the wheel)
cost       what it costs beside peft, TRL and `generate`: `python -m bench.cost`
overheads  what surrounds the model: start-up, checkpoints, report, prompt memory: `python -m bench.overheads`
studies    single questions, each with a command of its own: `python -m bench.studies.…`
plots      the charts that these rooms share
"""

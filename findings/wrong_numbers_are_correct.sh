#!/usr/bin/env bash
# inspect-ai 0.3.285: answers that are numbers, scored by `match(numeric=True)`, and by `exact()`.
# Expected: an answer is correct where the two numbers are equal.
# Seen: `match(numeric=True)` compares five significant digits: 104729 is correct where 104730 is wanted, and a product that is
#   wrong by 34 in 1,234,567 is, too, at every `location`, "exact" as well. Where a task has long numbers, a model that rounds or
#   slips in the sixth digit is measured as perfect. (inspect_ai/scorer/_common.py: `normalize_number` has `precision=5` and
#   writes by `.5g`; no argument of `match` reaches it.) `exact()` passes over the sign: it cuts texts at hyphens before it looks
#   for numbers, and 5 is -5 (inspect_ai/scorer/_classification.py, `_tokenize`). The reference of `match` tells of no rounding.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --no-compile 'inspect-ai==0.3.285'
venv/bin/python - <<'PY'
import asyncio
import sys

from inspect_ai.model import ModelOutput
from inspect_ai.scorer import Target, exact, match
from inspect_ai.solver import TaskState

MODEL = "mockllm/model"
CASES = [("104730", "104730"), ("104731", "104730"), ("104729", "104730"), ("1234567", "1234601"), ("3.14162", "3.14159"),
         ("104780", "104730"), ("-5", "5")]  # answer, target
SCORERS = {"numeric": match(numeric=True), "numeric, exact": match(numeric=True, location="exact"), "exact()": exact()}


def correct(scorer, answer, target):
    output = ModelOutput.from_content(MODEL, answer)
    state = TaskState(model=MODEL, sample_id=1, epoch=1, input="How much is it?", messages=[], output=output)
    return asyncio.run(scorer(state, Target(target))).value == "C"


verdicts = {}
for answer, target in CASES:
    verdicts[answer] = {name: correct(scorer, answer, target) for name, scorer in SCORERS.items()}
    told = ", ".join(f"{name} {'right' if right else 'wrong'}" for name, right in verdicts[answer].items())
    print(f"{answer} for {target}: {told}")
if not all(verdicts["104730"].values()) or any(verdicts["104780"].values()):
    sys.exit("no longer seen: not even equal numbers are right, or those that differ in the fifth digit are")
slips = [verdicts[answer]["numeric"] for answer in ("104731", "104729", "1234567", "3.14162")]
if not any(slips) and not verdicts["-5"]["exact()"]:
    sys.exit("no longer seen: numbers that differ are wrong")
PY

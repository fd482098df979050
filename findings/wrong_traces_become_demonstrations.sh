#!/usr/bin/env bash
# dspy 3.4.1: a metric gives its score with feedback, `dspy.Prediction(score=…, feedback=…)`, as GEPA wants it and as
#   `dspy.Evaluate` averages it, and is then used for `BootstrapFewShot` (and what is built on it).
# Expected: a trace with the score 0 is no demonstration, as with a metric that gives 0.0.
# Seen: every trace is one. Where no `metric_threshold` is set, what the metric gives is asked whether it is true, and a
#   Prediction with any field is, whatever its score. All demonstrations are wrong, marked as augmented, without a
#   warning. `metric_threshold=1.0` compares the score, and keeps none.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet 'dspy==3.4.1'
cat >bootstrap.py <<'PY'
import dspy
from dspy.teleprompt import BootstrapFewShot
from dspy.utils import DummyLM

TRAIN = [dspy.Example(question=f"{n} + 1?", answer=str(n + 1)).with_inputs("question") for n in range(1, 5)]
FIELD = "answer"


def number(example, prediction, trace=None):
    return float(example.answer == prediction.answer)


def told(example, prediction, trace=None):
    score = number(example, prediction)
    return dspy.Prediction(score=score, feedback="right" if score else f"It is {example.answer}.")


def demonstrations(metric, **options):
    """Those that were bootstrapped from a model that answers 0 to everything."""
    dspy.configure(lm=DummyLM([{FIELD: "0"}] * 50))
    teacher = BootstrapFewShot(metric=metric, max_bootstrapped_demos=4, max_labeled_demos=0, **options)
    program = teacher.compile(dspy.Predict("question -> answer"), trainset=TRAIN)
    return [demo.answer for demo in program.demos if demo.get("augmented")]


dspy.configure(lm=DummyLM([{FIELD: "0"}] * 50))
score = dspy.Evaluate(devset=TRAIN, metric=told, display_progress=False)(dspy.Predict("question -> answer")).score
seen = demonstrations(number), demonstrations(told), demonstrations(told, metric_threshold=1.0)
print(f"score of all with feedback: {score}; demonstrations by 0.0: {seen[0]}; by a Prediction of 0.0: {seen[1]}; "
      f"with a threshold of 1.0: {seen[2]}")
assert (score, seen) == (0.0, ([], ["0"] * 4, []))
PY
venv/bin/python bootstrap.py 2>&1 | grep -v '^$' || { echo "no longer seen: a score of 0 with feedback keeps a trace out" >&2; exit 1; }

#!/usr/bin/env bash
# gepa 0.1.4: the reflection model fails, and `raise_on_exception` is left at its default, True.
# Expected: `gepa.optimize` raises, as its documentation says ("propagate proposer/evaluator exceptions").
# Seen: every failing call is made a second time and then only logged. The search goes on until its metric calls are used
#   up, and returns the seed candidate as if nothing had happened. A reply that is empty is no error either: it becomes
#   a candidate, which is scored. And with `max_metric_calls` up to the size of the validation set, no reflection is made
#   at all, without a word.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet 'gepa==0.1.4'
cat >search.py <<'PY'
import gepa

ROWS = ["1+1", "2+2", "3+3"]


class Adapter:
    propose_new_texts = None

    def evaluate(self, batch, candidate, capture_traces=False):
        scores = [0.5 if candidate["system"] else 0.9 for _ in batch]
        return gepa.EvaluationBatch(outputs=batch, scores=scores, trajectories=batch if capture_traces else None)

    def make_reflective_dataset(self, candidate, eval_batch, components_to_update):
        return {name: [{"Feedback": "wrong"}] for name in components_to_update}


class Quiet:
    def log(self, message):
        pass


def search(reflect, budget):
    calls = []

    def model(prompt):
        calls.append(prompt)
        return reflect()

    found = gepa.optimize({"system": "Add."}, ROWS, ROWS, adapter=Adapter(), reflection_lm=model,
                          max_metric_calls=budget, logger=Quiet())
    return len(calls), found


def lost():
    raise ConnectionError("the server is down")


calls, found = search(lost, 12)
print(f"lost: {calls} calls, {found.total_metric_calls} metric calls, candidates {found.candidates}, no error")
assert calls == 6 and found.total_metric_calls == 12 and found.candidates == [{"system": "Add."}]
calls, found = search(lambda: "", 12)
print(f"empty: best candidate {found.best_candidate}")
assert found.best_candidate == {"system": ""}
calls, found = search(lambda: "```\nBe exact.\n```", 3)
print(f"budget of the validation set's size: {calls} calls, candidates {found.candidates}")
assert calls == 0 and found.candidates == [{"system": "Add."}]
PY
venv/bin/python search.py || { echo "no longer seen: a lost or empty reflection is reported" >&2; exit 1; }

#!/usr/bin/env bash
# gepa 0.1.4: `cache_evaluation=True`, with a validation set that is not the train set.
# Expected: a candidate's validation scores are those of its answers to validation rows.
# Seen: rows are known by their place in their list, in the train set and in the validation set alike. Scores of train
#   rows 0, 1, 2 are taken for those of validation rows 0, 1, 2, which are never evaluated. (gepa issue 424, mended
#   in its main branch; leave the cache off, or pass one list for both.)
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet 'gepa==0.1.4'
cat >search.py <<'PY'
import gepa

TRAIN, VALIDATION = ["train 0", "train 1", "train 2"], ["validation 0", "validation 1", "validation 2"]


class Adapter:
    """The new text learns the train rows by heart, and helps with no other."""

    propose_new_texts = None

    def evaluate(self, batch, candidate, capture_traces=False):
        scores = [float(candidate["system"] == "By heart." and row in TRAIN) for row in batch]
        return gepa.EvaluationBatch(outputs=batch, scores=scores, trajectories=batch if capture_traces else None)

    def make_reflective_dataset(self, candidate, eval_batch, components_to_update):
        return {name: [{"Feedback": "wrong"}] for name in components_to_update}


class Quiet:
    def log(self, message):
        pass


best = {}
for cache in (False, True):
    found = gepa.optimize({"system": "Answer."}, TRAIN, VALIDATION, adapter=Adapter(), cache_evaluation=cache,
                          reflection_lm=lambda prompt: "```\nBy heart.\n```", max_metric_calls=9, logger=Quiet())
    best[cache] = max(found.val_aggregate_scores)
    print(f"cache_evaluation={cache}: best validation score {best[cache]}")
assert best == {False: 0.0, True: 1.0}
PY
venv/bin/python search.py || { echo "no longer seen: the cache keeps both sets apart" >&2; exit 1; }

#!/usr/bin/env bash
# scikit-learn 1.9.0: agreement of a judge with a person on grades from 1 to 10, by `cohen_kappa_score(weights="quadratic")`.
# Expected: a disagreement weighs as the square of the difference of the grades.
# Seen: it weighs as the square of the difference of their places among the grades that were given at all: where nobody gave 2 to
#   8, the distance from 1 to 9 is one, as that from 9 to 10. Grades as texts are put in the order of texts, where "10" comes
#   before "9". One list of answers has three agreements, without a warning. (sklearn/metrics/_classification.py: the weights
#   come from `numpy.arange(n_classes)`. `labels=range(1, 11)` gives what is meant; pass it always.)
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --no-compile 'scikit-learn==1.9.0' 'numpy==2.4.6'
cat >agreement.py <<'PY'
import sys

import numpy
from sklearn.metrics import cohen_kappa_score

PEOPLE, JUDGE = [1, 1, 10, 10, 9, 1], [1, 1, 9, 10, 10, 1]  # the judge is off by one twice
ALL = list(range(1, 11))


def by_hand(one, other):
    """One minus the mean square of the differences, over the mean that independent grades would have."""
    one, other = numpy.array(one), numpy.array(other)
    return 1 - ((one - other) ** 2).mean() / ((one[:, None] - other) ** 2).mean()


def kappa(one, other, **options):
    return cohen_kappa_score(one, other, weights="quadratic", **options)


wanted = by_hand(PEOPLE, JUDGE)
given = kappa(PEOPLE, JUDGE)
named = kappa(PEOPLE, JUDGE, labels=ALL)
texts = kappa([str(grade) for grade in PEOPLE], [str(grade) for grade in JUDGE])
dense = [1, 2, 3, 4, 5, 5, 2, 3], [1, 3, 3, 4, 4, 5, 2, 2]  # every grade from 1 to 5 occurs
print(f"by hand {wanted:.3f}, with all labels {named:.3f}, as it is {given:.3f}, of texts {texts:.3f}")
print(f"where every grade occurs: by hand {by_hand(*dense):.3f}, as it is {kappa(*dense):.3f}")
if not numpy.allclose([named, kappa(*dense)], [wanted, by_hand(*dense)]) or max(given, texts) > wanted - 0.1:
    sys.exit("no longer seen: grades that nobody gave count, or not even labels help")
PY
venv/bin/python agreement.py

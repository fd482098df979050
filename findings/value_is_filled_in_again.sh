#!/usr/bin/env bash
# mlflow-skinny 3.17.2: `PromptVersion.format` on a prompt with several variables, whose values are texts as they come.
# Expected: each place gets its value, whatever stands in it; the order of the arguments does not matter.
# Seen: the variables are filled in one after another, each in the text that the ones before made (mlflow/genai/prompts/utils.py,
#   `format_prompt`; judges have one of the same kind). A value that speaks of `{{question}}`, as a prompt template under review
#   does, gets the question put into it, or not, by the order of the arguments. Nothing is raised.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --no-compile 'mlflow-skinny==3.17.2'
cat >format.py <<'PY'
import sys

from mlflow.entities.model_registry import PromptVersion

TEXT = PromptVersion("judge", 1, "Template: {{candidate}}\nAsked: {{question}}\nAnswered: {{answer}}")
CHAT = PromptVersion("judge", 1, [{"role": "user", "content": TEXT.template}])
VALUES = {"candidate": "Answer in one word: {{question}}", "question": "Which river?", "answer": "Elbe"}
PLAIN = {**VALUES, "candidate": "Answer in one word."}


def filled(prompt, values):
    made = prompt.format(**values)
    return made if isinstance(made, str) else made[0]["content"]


def orders(values):
    return dict(values), dict(reversed(values.items()))


for values in orders(VALUES):
    print(f"by {', '.join(values)}:\n{filled(TEXT, values)}")
first, last = ([filled(prompt, values) for prompt in (TEXT, CHAT)] for values in orders(VALUES))
same, too = ([filled(prompt, values) for prompt in (TEXT, CHAT)] for values in orders(PLAIN))
again = all("Template: Answer in one word: Which river?" in made for made in first)
kept = all("Template: Answer in one word: {{question}}" in made for made in last)
if not (again and kept and same == too):
    sys.exit("no longer seen: a value that names a variable is left as it is, in any order")
PY
venv/bin/python format.py

#!/usr/bin/env bash
# langgraph-checkpoint 4.3.2 x pydantic 2.14.3: a record in a checkpoint whose model has since got another field name.
# Expected: pydantic checks what it builds, all the more with extra="forbid": reading the old record is an error.
# Seen: the check fails inside and is passed over. What comes back is an instance of the new class without the required
#   field and without the old value; nothing is said, isinstance holds, the first to touch the field fails, far away.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet 'langgraph-checkpoint==4.3.2' 'pydantic==2.14.3'
for field in score reward; do  # the same program before and after the field got its new name
    printf 'from pydantic import BaseModel\n\nclass Round(BaseModel, extra="forbid"):\n    %s: float\n' \
        "$field" >records.py
    venv/bin/python - "$field" <<'PY'
import sys
from pathlib import Path

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from pydantic import ValidationError
from records import Round

serializer = JsonPlusSerializer(allowed_msgpack_modules=[("records", "Round")])
kept = Path("checkpoint")
if sys.argv[1] == "score":
    kept.write_bytes(serializer.dumps_typed(Round(score=0.5))[1])
    sys.exit()
try:
    back = serializer.loads_typed(("msgpack", kept.read_bytes()))
except ValidationError as error:
    sys.exit(f"no longer seen: the record is refused: {error}")
print(f"written: Round(score=0.5); read by the new class: {back!r}, a Round: {isinstance(back, Round)}")
print(f"it holds {vars(back)}")
if not isinstance(back, Round) or vars(back):
    sys.exit("no longer seen: the record is not built half")
PY
done

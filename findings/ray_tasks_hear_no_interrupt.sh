#!/usr/bin/env bash
# ray 2.60.0: a task starts a process of its own, such as a training, which is to be interrupted later by SIGINT.
# Expected: signals reach it as they reach a child of any Python process.
# Seen: Ray's workers block SIGINT, and a blocked signal is inherited through exec: the child runs on, whoever sends it
#   one. A child whose mask is emptied first is interrupted; SIGTERM reaches both.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet 'ray==2.60.0'
cat >interrupts.py <<'PY'
import signal
import subprocess
import sys
import time

import ray

WAITS = "import time; time.sleep(60)"
UNBLOCKED = f"import signal; signal.pthread_sigmask(signal.SIG_SETMASK, []); {WAITS}"


def ended_by(code: str, number: int) -> int | None:
    """With what a child ends within five seconds of a signal; None: it does not."""
    child = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    time.sleep(2)
    child.send_signal(number)
    try:
        return child.wait(5)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
        return None


def story() -> list[int | None]:
    return [
        ended_by(WAITS, signal.SIGINT), ended_by(UNBLOCKED, signal.SIGINT), ended_by(WAITS, signal.SIGTERM),
    ]  # fmt: skip


ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
print("here", story(), "in a task", ray.get(ray.remote(story).remote()))
PY
said=$(venv/bin/python interrupts.py 2>/dev/null)
echo "a child's end by SIGINT, by SIGINT with an empty mask, by SIGTERM: $said"
if [ "$said" != "here [-2, -2, -15] in a task [None, -2, -15]" ]; then
    echo "no longer seen: interrupts reach what a task starts" >&2
    exit 1
fi

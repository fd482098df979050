"""Of an engine that was started, nothing stays: neither it nor what it has started itself."""

import signal
import subprocess
import sys
import time

import psutil
import pytest

from tools.engines.starting import BESIDE

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
)
ENGINE = (
    "import subprocess, sys, time\n"
    f"child = subprocess.Popen([sys.executable, '-c', {STUBBORN!r}], stdout=subprocess.PIPE)\n"
    "child.stdout.readline()\nprint(child.pid, flush=True)\ntime.sleep(600)"
)


@pytest.mark.parametrize("told", ["by a signal", "by the end of its input"])
def test_what_the_engine_has_started_ends_with_it(told: str) -> None:
    line = [sys.executable, "-I", str(BESIDE), sys.executable, "-c", ENGINE]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as beside:
        assert beside.stdout and beside.stdin
        grandchild = psutil.Process(int(beside.stdout.readline()))
        if told == "by a signal":
            beside.send_signal(signal.SIGTERM)
        else:
            beside.stdin.close()
        beside.wait(60)
    end = time.monotonic() + 60
    while grandchild.is_running() and grandchild.status() != psutil.STATUS_ZOMBIE and time.monotonic() < end:
        time.sleep(0.05)
    assert not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE

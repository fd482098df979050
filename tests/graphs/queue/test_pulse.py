"""Which processes count as hung."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from graphs.context import new_run
from graphs.control.process import Process, note
from graphs.queue.pulse import Pulse
from tests.fixtures.learnable import TinyTask

PATIENCE = 60.0  # seconds; a test that waits so long fails


@pytest.mark.parametrize(("does", "lives"), [("time.sleep(60)", False), ("while True: pass", True)])
def test_who_computes_lives_and_who_sleeps_does_not(
    does: str, lives: bool, tiny_task: TinyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(tiny_task(), [], tmp_path / "runs")
    monkeypatch.setattr("graphs.queue.pulse.WINDOW", 0.1)
    monkeypatch.setattr("graphs.queue.pulse.STILL", 1.5)
    code = f"import time\nprint(1, flush=True)\n{does}"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as worker:
        try:
            assert worker.stdout and worker.stdout.readline()
            note(run, Process(pid=worker.pid))
            pulse, until = Pulse(run), time.monotonic() + (4 if lives else PATIENCE)
            while pulse.beats() and time.monotonic() < until:
                time.sleep(0.05)
            assert bool(pulse.lost) is not lives
            if not lives:
                (run.path / "events.jsonl").touch()
                assert pulse.beats(), "it has written something"
                pulse.rest()
                assert pulse.beats(), "a run that is paused need not do anything"
        finally:
            worker.kill()

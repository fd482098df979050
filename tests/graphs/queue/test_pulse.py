"""Which processes count as hung."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from graphs.context import new_run
from graphs.control.process import Process, note
from graphs.queue.pulse import Pulse
from memory.run.folder import RunFolder
from tests.fixtures.learnable import TinyTask

PATIENCE = 60.0  # seconds; a test that waits so long fails
WRITES = "file = open({!r}, 'wb')\nwhile True: file.seek(0), file.write(b'x' * 200_000), file.flush(), time.sleep(0.3)"


@contextmanager
def a_process(run: RunFolder, does: str) -> Iterator[None]:
    """That works on the run, as its folder has it."""
    code = f"import time\nprint(1, flush=True)\n{does}"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as worker:
        try:
            assert worker.stdout and worker.stdout.readline()
            note(run, Process(pid=worker.pid))
            yield
        finally:
            worker.kill()


@pytest.mark.parametrize(
    ("does", "lives"),
    [
        ("time.sleep(60)", False),
        ("while True: pass", True),
        pytest.param(
            WRITES, True,
            marks=pytest.mark.skipif(not hasattr(psutil.Process, "io_counters"), reason="the system does not count it"),
        ),
    ],
    ids=["sleeps", "computes", "writes"],
)  # fmt: skip
def test_who_computes_or_writes_lives_and_who_sleeps_does_not(
    does: str, lives: bool, tiny_task: TinyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(tiny_task(), [], tmp_path / "runs")
    for name, seconds in (("WINDOW", 0.1), ("STILL", 1.5), ("LAPSE", 1.0)):  # a busy machine lets this process wait
        monkeypatch.setattr(f"graphs.queue.pulse.{name}", seconds)
    with a_process(run, does.format(str(tmp_path / "weights"))):
        pulse, until = Pulse(run), time.monotonic() + (4 if lives else PATIENCE)
        while pulse.beats() and time.monotonic() < until:
            time.sleep(0.05)
        assert bool(pulse.lost) is not lives
        if not lives:
            (run.path / "events.jsonl").touch()
            assert pulse.beats(), "it has written something"
            pulse.rest()
            assert pulse.beats(), "a run that is paused need not do anything"


def test_who_was_stopped_with_all_others_is_given_its_time_anew(
    tiny_task: TinyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, clock = new_run(tiny_task(), [], tmp_path / "runs"), [0.0]
    monkeypatch.setattr("graphs.queue.pulse.time", SimpleNamespace(monotonic=lambda: clock[0]))

    def beats_after(*seconds: float) -> bool:
        clock[0] += sum(seconds[:1])
        return pulse.beats() and (not seconds[1:] or beats_after(*seconds[1:]))

    with a_process(run, "time.sleep(60)"):
        pulse = Pulse(run)
        assert beats_after(30, 30, 30), "it works"
        assert beats_after(1200, 30, 30), "a container was paused, with both of them"
        assert beats_after(*[30] * 25), "and nothing is lost by that"
        assert not beats_after(*[30] * 10) and "15 minutes" in pulse.lost

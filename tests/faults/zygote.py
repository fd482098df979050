"""Processes that are killed at a chosen point, without the seconds that each would take to import everything.

A zygote imports what a run needs, loads the tiny model and the embedder, and forks for each play of a run.
"""

import gc
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]


class Play(NamedTuple):
    """How a process that plays a run is treated.

    Attributes:
        at: the name of the point at which it is killed; "" for none.
        times: the how-manieth time it comes there.
        by: the signal; SIGINT is Ctrl-C.
        clock: seconds since 1970 of a clock that shows a second more at each point; 0: the machine's.
    """

    at: str = ""
    times: int = 1
    clock: int = 0
    by: int = signal.SIGKILL


UNDISTURBED = Play()


class Played(NamedTuple):
    """How it ended: `killed`, with an `error` (its message), or at the run's end; and the points it passed."""

    killed: bool
    error: str
    points: list[str]


class Zygote:
    """A process that forks. `play(run)` waits for the fork's end."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def play(self, run: Path, how: Play = UNDISTURBED, environment: dict[str, str] | None = None) -> Played:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps([str(run), how._asdict(), environment or {}]) + "\n")
        self._process.stdin.flush()
        return Played(*json.loads(self._process.stdout.readline()))


@contextmanager
def zygote(model: Path) -> Iterator[Zygote]:
    """A zygote with this model loaded."""
    code = "import sys; from tests.faults.zygote import serve; serve(sys.argv[1])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, str(model)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
    ) as process:
        try:
            yield Zygote(process)
        finally:
            process.stdin.close()  # type: ignore[union-attr]
            process.wait()


# --- in the zygote ----------------------------------------------------------------------------------


def serve(model: str) -> None:
    """Fork for each line of the input, and answer with how the fork ended."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    _load(model)
    gc.collect()
    gc.freeze()  # else each fork searches all of this for garbage, and copies it by touching it
    for line in sys.stdin:
        run, how, environment = json.loads(line)
        reading, writing = os.pipe()
        if (child := os.fork()) == 0:
            os.close(reading)
            os.environ.update(environment)
            _play(Path(run), Play(**how), writing)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            told = pipe.read().splitlines()
        _, status = os.waitpid(child, 0)
        error = next((line.removeprefix("!") for line in told if line.startswith("!")), "")
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        answers.write(
            json.dumps([killed, json.loads(error or '""'), [p for p in told if not p.startswith("!")]]) + "\n"
        )
        answers.flush()


def _load(model: str) -> None:
    import tests.fixtures.preloaded  # noqa: F401
    from agent.config.task import TaskConfig
    from graphs.services.shared_model import shared_backbone, shared_embedder

    shared_embedder()(["warm"])
    files = dict.fromkeys(("train", "validation", "test"), "x.jsonl")
    settings = {"name": "warm", "model": model, "data": files, "content": [{"kind": "contains"}]}
    shared_backbone(TaskConfig.model_validate(settings), Path, lambda *_: None, lambda _: None, lambda _: None)


def _play(run: Path, how: Play, writing: int) -> None:
    """Runs the run to its end, or to the point where it is killed; never returns."""
    from graphs.session import open_session
    from memory.run.folder import RunFolder

    code, seen, ticks = 0, 0, 0
    if how.clock:
        time.monotonic = lambda: how.clock % 9973 + float(ticks)
        time.time = lambda: how.clock + float(ticks)
        time.time_ns = lambda: (how.clock + ticks) * 10**9

    def point(name: str, half: Callable[[], object] = lambda: None) -> None:
        """A point at which the process may be killed, after `half` of what is about to be done."""
        nonlocal seen, ticks
        ticks += 1
        os.write(writing, f"{name}\n".encode())
        if name == how.at:
            seen += 1
            if seen == how.times:
                half()
                os.kill(os.getpid(), how.by)

    try:
        _mark(point)
        with open_session(RunFolder.open(run)) as session:
            session.go()
    except BaseException as error:
        code = 1
        text = f"{type(error).__name__}: {error}"
        if type(error).__module__ != "agent.errors":
            text += "\n" + traceback.format_exc()
        os.write(writing, f"!{json.dumps(text)}\n".encode())
    os._exit(code)


def _mark(point: Callable[..., None]) -> None:
    """Puts points around and into all that changes a run folder, or takes long."""
    import memory.chroma
    import tools.training.lora
    from graphs.checkpoints import Checkpoints
    from graphs.services.meter import Meter
    from graphs.services.run import RunServices

    def around(owner: Any, name: str, label: Callable[..., str]) -> None:
        inner = getattr(owner, name)

        def marked(*values: Any, **named: Any) -> Any:
            what = label(*values)
            point(f"before {what}")
            found = inner(*values, **named)
            point(f"after {what}")
            return found

        setattr(owner, name, marked)

    around(Meter, "begin", lambda _, step, *__: f"the beginning of {step.split('-')[1]}")
    around(Meter, "end", lambda *_: "the end of a node")
    around(Checkpoints, "put", lambda *_: "a checkpoint")
    around(Checkpoints, "put_writes", lambda *_: "a checkpoint's writes")
    around(memory.chroma.Shelf, "_upsert", lambda *_: "a Chroma write")
    around(tools.training.lora, "write_training", lambda *_: "an adapter's marker")
    around(os, "replace", lambda _, to: f"the renaming of {_kind(Path(to))}")
    _mark_lines(point)
    _mark_transactions(point)
    progress = RunServices.progress

    def progressed(self: Any, what: str, *more: Any) -> None:
        progress(self, what, *more)
        point(f"while {what}")

    RunServices.progress = progressed  # type: ignore[method-assign]


def _kind(path: Path) -> str:
    """A file's name without ids."""
    return path.parent.name if path.parent.name in ("prompts", "adapters", "evaluations", "remembered") else path.name


def _mark_lines(point: Callable[..., None]) -> None:
    import memory.experience
    import memory.run.artefacts
    import memory.run.calls
    import memory.run.events
    import memory.run.ledger
    from memory.storage.disk import append_line

    def marked(path: Path, line: str, *, sync: bool) -> None:
        def half() -> None:
            with path.open("a") as file:
                file.write(line[: len(line) // 2])

        point(f"in a line of {path.name}", half)
        append_line(path, line, sync=sync)

    for module in (memory.experience, memory.run.artefacts, memory.run.calls, memory.run.events, memory.run.ledger):
        assert hasattr(module, "append_line"), f"{module.__name__} writes no lines any more: who does?"
        module.append_line = marked


def _mark_transactions(point: Callable[..., None]) -> None:
    import graphs.checkpoints

    opened = graphs.checkpoints.Checkpoints.__init__

    def traced(self: Any, *values: Any) -> None:
        opened(self, *values)
        self.conn.set_trace_callback(
            lambda statement: point("inside a transaction") if statement.startswith("INSERT") else None
        )

    graphs.checkpoints.Checkpoints.__init__ = traced  # type: ignore[method-assign]

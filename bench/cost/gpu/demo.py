"""The example task from its first round to its test rows, after the model is loaded."""

import tempfile
import time
from pathlib import Path

import tasks
from bench.cost.gpu.models import Bench
from graphs.context import new_run
from graphs.session import open_session

TASK = Path(tasks.__file__).parent / "valley"


def demo(bench: Bench, task: Path = TASK) -> None:
    """Seconds of a whole run, and what it came to. Its model is the task's, in the type that fits the device."""
    with tempfile.TemporaryDirectory() as folder:
        run = new_run(task, [], Path(folder))
        with open_session(run) as session:
            model = session.services.backbone.base
            start = time.perf_counter()
            session.go()
            seconds = time.perf_counter() - start
            loading = session.services.loading
        outcome = run.outcome()
        bench.add(
            "demo", model=session.services.spec.config.model, dtype=str(model.dtype), seconds=round(seconds, 2),
            loading=round(loading, 2), rounds=len(run.rounds()),
            reward=outcome.best_test.reward if outcome else None,
        )  # fmt: skip

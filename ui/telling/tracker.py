"""A listener that logs a run to trackio, MLflow or W&B. What fails there is noted once, and the run goes on."""

import importlib
import math
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol

from agent.config.notify import TRACKERS, TrackerName
from agent.errors import BadInput
from agent.protocols import Listener
from agent.records.events import BaselineScored, Event, RoundJudged, RunFinished, RunStarted, RunStopped
from agent.records.rounds import Baseline, Outcome, Round

PROJECT = "nesylora"
Numbers = Mapping[str, float]


class Logbook(Protocol):
    """A run in a tracker. It is used from several threads, so it goes by an object and never by "the current run"."""

    def log(self, numbers: Numbers, step: int) -> None: ...

    def finish(self) -> None: ...


class Tracker:
    """Passes everything on, and logs the baseline as step 0, each round, and the test rows as the step behind them.

    Args:
        inner: the listener that shows the run.
        library: the tracker's package. It is imported when the run starts.

    Raises:
        BadInput: there is no such tracker, or it is not installed.
    """

    def __init__(self, inner: Listener, library: TrackerName) -> None:
        self._inner = inner
        self._library = library
        self._module = _imported(library)
        self._book: Logbook | None = None
        self._rounds = 0
        self._quiet = False

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        self._inner(what, done, total, note)

    def event(self, event: Event) -> None:
        self._inner.event(event)
        if not self._quiet:
            with _Quietly(self):
                self._log(event)

    def give_up(self, why: str) -> None:
        """Log no more, and say why, once."""
        self._quiet = True
        print(f"nesylora: {self._library} failed, so this run is not logged any more: {why}", file=sys.stderr)

    def _log(self, event: Event) -> None:
        match event:
            case RunStarted():
                config = {"task": event.task, "model": event.model, "policy": event.policy, "folder": event.folder}
                self._book = _begun(self._library, self._module, event.name, config)
            case BaselineScored(row=row):
                self._numbers(of_baseline(row), 0)
            case RoundJudged(row=row):
                self._rounds = row.number
                self._numbers(of_round(row), row.number)
            case RunFinished(outcome=outcome):
                self._numbers(of_outcome(outcome), self._rounds + 1)
                self._finish()
            case RunStopped():
                self._finish()
            case _:
                pass

    def _numbers(self, numbers: Mapping[str, float | None], step: int) -> None:
        known = {name: value for name, value in numbers.items() if value is not None and math.isfinite(value)}
        if self._book:
            self._book.log(known, step)

    def _finish(self) -> None:
        book, self._book = self._book, None
        if book:
            book.finish()


def of_baseline(row: Baseline) -> dict[str, float | None]:
    """What is logged of it."""
    return {"reward": row.reward, "content": row.content, "style": row.style, "seconds": row.spend.seconds}


def of_round(row: Round) -> dict[str, float | None]:
    """What is logged of it. The lever: 1 trains, 0 edits or goes back."""
    return {
        "reward": row.reward,
        "trial reward": row.verdict.after,
        "gain": row.verdict.gain,
        "p": row.verdict.p_value,
        "kept": float(row.verdict.kept),
        "lora": float(row.decision.move.action == "train_lora"),
        "drift": row.verdict.drift,
        "loss": row.trial.loss,
        "seconds": row.spend.seconds,
        "forward tokens": row.spend.forward_tokens,
        "usd": row.spend.usd,
    }


def of_outcome(outcome: Outcome) -> dict[str, float | None]:
    """What is logged of it."""
    return {
        "test reward": outcome.best_test.reward,
        "test reward of the seed prompt": outcome.baseline_test.reward,
        "test p": outcome.p_value,
        "drift": outcome.drift_of_best,
    }


class _Quietly:
    """Around all that a tracker's library does: whatever it raises, a run is worth more than its log."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        self._tracker.give_up(f"{type(error).__name__}: {error}")
        return True


class _MlflowRun:
    """A run of MLflow's client: the functions of the module know a current run of one thread only."""

    def __init__(self, module: Any, name: str, config: Mapping[str, str]) -> None:
        self._client = module.MlflowClient()
        found = self._client.get_experiment_by_name(PROJECT)
        experiment = found.experiment_id if found else self._client.create_experiment(PROJECT)
        self._id = self._client.create_run(experiment, run_name=name).info.run_id
        for key, value in config.items():
            self._client.log_param(self._id, key, value)

    def log(self, numbers: Numbers, step: int) -> None:
        for name, value in numbers.items():
            self._client.log_metric(self._id, name.replace(" ", "_"), value, step=step)

    def finish(self) -> None:
        self._client.set_terminated(self._id)


def _begun(library: TrackerName, module: Any, name: str, config: Mapping[str, str]) -> Logbook:
    """The run in the tracker; after a resume the same one, where the tracker knows runs by their name."""
    if library == "mlflow":
        return _MlflowRun(module, name, config)
    own = {"id": name} if library == "wandb" else {}
    made: Logbook = module.init(project=PROJECT, name=name, config=dict(config), resume="allow", **own)
    return made


def _imported(library: str) -> Any:
    if library not in TRACKERS:
        raise BadInput(f"track: there is no tracker {library!r}; there are {', '.join(TRACKERS)}")
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise BadInput(f"track: {library} is not installed ({error}). Run: pip install {library}") from error

"""A run logged to a tracker: the same numbers whichever it is, and a tracker that breaks does not stop the run."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from agent.config.notify import TrackerName
from agent.errors import BadInput
from agent.records.events import BaselineScored, Event, RoundJudged, RunFinished, RunStarted
from tests.fixtures.command_line import run as command
from tests.fixtures.learnable import TinyTask
from tests.fixtures.story import a_baseline, an_outcome, the_story
from ui.telling.tracker import Tracker

EVENTS: list[Event] = [
    RunStarted(name="a-run", task="mayors", model="tiny", policy="rules", folder="/runs/a-run"),
    BaselineScored(row=a_baseline()),
    *(RoundJudged(row=row) for row in the_story()),
    RunFinished(outcome=an_outcome(the_story()[-1])),
]


class Seen:
    """The listener behind a tracker."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.progress: list[str] = []

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        self.progress.append(what)

    def event(self, event: Event) -> None:
        self.events.append(event)


class Book:
    """What trackio and wandb return, and what MLflow's client is, as far as it is used."""

    def __init__(self, breaks: bool = False) -> None:
        self.begun: dict[str, Any] = {}
        self.logged: dict[int, dict[str, float]] = {}
        self.finished = False
        self._breaks = breaks

    def init(self, **how: Any) -> "Book":
        self.begun = how
        return self

    def log(self, numbers: dict[str, float], step: int) -> None:
        if self._breaks:
            raise RuntimeError("the server is gone")
        self.logged.setdefault(step, {}).update(numbers)

    def finish(self) -> None:
        self.finished = True

    # --- MLflow's client

    def get_experiment_by_name(self, name: str) -> None:
        return None

    def create_experiment(self, name: str) -> str:
        return name

    def create_run(self, experiment: str, run_name: str) -> SimpleNamespace:
        self.begun = {"project": experiment, "name": run_name, "config": {}}
        return SimpleNamespace(info=SimpleNamespace(run_id="7"))

    def log_param(self, run: str, key: str, value: str) -> None:
        self.begun["config"][key] = value

    def log_metric(self, run: str, name: str, value: float, step: int) -> None:
        self.log({name.replace("_", " "): value}, step)

    def set_terminated(self, run: str) -> None:
        self.finish()


def installed(monkeypatch: pytest.MonkeyPatch, library: str, book: Book) -> None:
    module = ModuleType(library)
    monkeypatch.setattr(module, "init", book.init, raising=False)
    monkeypatch.setattr(module, "MlflowClient", lambda: book, raising=False)
    monkeypatch.setitem(sys.modules, library, module)


@pytest.mark.parametrize("library", ["trackio", "mlflow", "wandb"])
def test_the_same_numbers_are_logged_whichever_it_is(library: TrackerName, monkeypatch: pytest.MonkeyPatch) -> None:
    book, seen = Book(), Seen()
    installed(monkeypatch, library, book)
    tracker = Tracker(seen, library)
    for event in EVENTS:
        tracker.event(event)
    tracker("answering", 1, 2)
    assert seen.events == EVENTS and seen.progress == ["answering"]
    assert (book.begun["project"], book.begun["name"]) == ("nesylora", "a-run")
    assert book.begun["config"]["task"] == "mayors"
    assert [book.logged[step]["reward"] for step in range(5)] == [0.0, 0.04, 0.04, 0.33, 1.0]
    assert [book.logged[step]["kept"] for step in range(1, 5)] == [1, 0, 1, 1]
    assert book.logged[5]["test reward"] == 0.92 and book.finished
    assert "drift" not in book.logged[1]  # not measured


def test_a_tracker_that_breaks_is_noted_once_and_the_run_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = Seen()
    installed(monkeypatch, "wandb", Book(breaks=True))
    tracker = Tracker(seen, "wandb")
    for event in EVENTS:
        tracker.event(event)
    assert seen.events == EVENTS
    assert capsys.readouterr().err.count("RuntimeError: the server is gone") == 1


def test_a_tracker_that_is_not_there_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(BadInput, match="pip install trackio"):
        Tracker(Seen(), "trackio")


def test_a_tracker_that_is_not_installed_leaves_no_run_behind(
    tiny_task: TinyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    runs = tmp_path / "runs"
    assert command(["run", str(tiny_task()), "--name", "tr1", "--set", "track=wandb", "--runs", str(runs)]) == 2
    assert "wandb is not installed" in capsys.readouterr().err and not (runs / "tr1").exists()

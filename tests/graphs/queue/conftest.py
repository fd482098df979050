"""Tasks of a queue."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from agent.signal.run_costs import Tried
from tests.fixtures.learnable import TinyTask


@pytest.fixture
def tasks(tiny_task: TinyTask, tmp_path: Path) -> Callable[..., list[Path]]:
    """Copies of the tiny task, each with a name of its own."""

    def make(*names: str, **changes: object) -> list[Path]:
        source = tiny_task()
        made = []
        for name in names:
            folder = tmp_path / name
            shutil.copytree(source, folder)
            config = yaml.safe_load((folder / "task.yaml").read_text()) | {"name": name} | changes
            (folder / "task.yaml").write_text(yaml.safe_dump(config))
            made.append(folder)
        return made

    return make


@pytest.fixture
def no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would load a model in a process of its own."""
    monkeypatch.setattr("graphs.queue.estimate.probe", lambda tasks: [Tried()] * len(tasks))

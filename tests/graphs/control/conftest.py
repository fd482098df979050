"""The run that most tests of steering steer."""

from pathlib import Path

import pytest

from graphs.context import new_run
from memory.run.folder import RunFolder
from tests.fixtures.learnable import TinyTask


@pytest.fixture
def training(tiny_task: TinyTask, tmp_path: Path) -> RunFolder:
    """Two rounds that both train, some steps each; the target is never reached."""
    return new_run(tiny_task(), ["policy=lora-only", "budget.rounds=2", "lora.epochs=3"], tmp_path / "runs")

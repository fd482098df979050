"""Processes that train together stop where one would, count what it counts, and get over the same trouble."""

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.config.lora import Lora
from agent.records.actions import TrainLora
from agent.records.training import TrainingJob, read_training
from tests.tools.training.forked_ranks import ROWS, run_script
from tools.training.parallel import Job
from tools.training.parallel_worker import work

ROOT = Path(__file__).parents[3]
Logs = dict[int, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def logs(tiny_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Logs:
    """By how many processes have trained: of each of them, what became of each training."""
    place = tmp_path_factory.mktemp("limits")
    run_script("forked_limits.py", tiny_model("llama"), place)
    return {
        size: [json.loads((place / str(size) / f"{rank}.json").read_text()) for rank in range(size)]
        for size in (1, 2, 3)
    }


def same(logs: Logs, way: str) -> dict[str, Any]:
    """What one process says of a training. All others, however many there are, say the same."""
    alone = logs[1][0][way]
    for log in [*logs[2], *logs[3]]:
        losses = log[way].get("losses")
        assert losses is None or losses == pytest.approx(alone["losses"], rel=1e-5)
        assert {**log[way], "losses": None} == {**alone, "losses": None}
    return dict(alone)


def test_a_limit_of_tokens_ends_the_training_after_the_same_step(logs: Logs) -> None:
    limited, plain = same(logs, "limited"), same(logs, "plain")
    assert limited["stopped"] == "the training-token budget was used up" and limited["tokens"] >= 900
    assert 1 < len(limited["losses"]) < len(plain["losses"])


def test_memory_that_runs_out_in_one_process_changes_neither_losses_nor_tokens(logs: Logs) -> None:
    starved, plain = same(logs, "starved"), same(logs, "plain")
    assert starved["losses"] == pytest.approx(plain["losses"], rel=1e-5)
    assert starved["tokens"] == plain["tokens"]


def test_a_loss_that_is_not_finite_in_one_process_makes_all_begin_again(logs: Logs) -> None:
    spoiled, plain = same(logs, "spoiled"), same(logs, "plain")
    assert spoiled["retried"].startswith("the loss became nan at step 2") and spoiled["tokens"] > plain["tokens"]
    assert len(spoiled["losses"]) == len(plain["losses"])
    assert "at step 2" in same(logs, "wild")["failed"]


def test_the_time_until_the_processes_work_counts(
    tiny_model: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that begins late has no more time than the training was given."""
    deadline = time.monotonic() + 0.2
    training = TrainingJob(
        adapter="a", rows=ROWS, action=TrainLora(epochs=20, rank=4, enough=0, replay=0), folder=tmp_path / "a",
        parent=None, seed=0, deadline=deadline,
    )  # fmt: skip
    job = Job(
        model=str(tiny_model("llama")), device="cpu", dtype="float32", chat_template_kwargs={}, lora=Lora(),
        training=training, parent_folder=None,
    )  # fmt: skip
    (tmp_path / "job.json").write_text(job.model_dump_json())
    while time.monotonic() < deadline:
        time.sleep(0.05)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = str(server.getsockname()[1])
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, value)
    assert work(tmp_path) == 0
    log = read_training(tmp_path / "a")
    assert (len(log.steps), log.stopped) == (1, "the time budget was used up")

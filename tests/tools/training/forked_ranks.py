"""Trainings by one, two and three processes of one machine. They are forked, so that libraries are imported once."""

import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch
from torch import distributed

from agent.config.lora import Lora
from agent.records.actions import TrainLora
from agent.records.examples import Demo, Example, Prompt
from agent.records.training import TrainingJob, read_training
from tools.model.backbone import Backbone
from tools.model.loading import load_model
from tools.training import optimizer_steps
from tools.training.lora import LoraTrainer
from tools.training.ranks import Ranks
from tools.training.sharding import shard

ROOT = Path(__file__).parents[3]
DEMOS = tuple(Demo(question=f"Who is mayor {n} of Tallisk?", answer="ANSWER: Heskzan") for n in range(3))
PROMPTS = [Prompt(system="Answer the question.", demos=DEMOS), Prompt(system="Be short.")]
ROWS = [  # of two prompts, from short to long; seven in batches of three: some steps have fewer rows than processes
    (
        PROMPTS[n % 2],
        Example(name=f"t:{n}", question="Who is the mayor " * (n * n) + f"of {n}?", answer="ANSWER: " * (n % 4 + 1)),
    )
    for n in range(7)
]
ACTION = TrainLora(epochs=3, rank=4, learning_rate=1e-3, enough=0, replay=0.4)


def run_script(name: str, model: Path, place: Path) -> None:
    """Run a script of this folder in a process of its own: what forks must not have begun threads."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    script = Path(__file__).with_name(name)
    subprocess.run([sys.executable, script, model, place], check=True, env=environment, cwd=ROOT)


def fork(folder: Path, size: int, work: Callable[[int, Ranks | None], None]) -> None:
    """Have so many processes work together, and wait for them. Each is given its rank, and those of the others."""
    folder.mkdir()
    children = []
    for rank in range(size):
        if (child := os.fork()) == 0:
            _work(folder, rank, size, work)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [0] * size, codes


def _work(folder: Path, rank: int, size: int, work: Callable[[int, Ranks | None], None]) -> None:
    code = 1
    try:
        ranks = None
        if size > 1:
            distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
            ranks = Ranks.of_this_group()
        work(rank, ranks)
        code = 0
    finally:
        if code:
            traceback.print_exc()
        os._exit(code)


class CutOff(BaseException):
    """In the place of a kill."""


def train_in(
    folder: Path, model: Path, size: int, ahead: bool = False, sharded: bool = False, dropout: float = 0, cut: int = 0
) -> None:
    """Train by so many processes. The log that each has is left there as a file, by its rank."""

    def train(rank: int, ranks: Ranks | None) -> None:
        if ahead:  # as on CUDA: all weights as one tensor
            optimizer_steps.DEVICES = ("cpu",)
        base, tokenizer = load_model(str(model), device="cpu", dtype="float32", progress=lambda *_: None)
        if sharded:
            whole = sum(weight.numel() for weight in base.parameters())
            shard(base, "cpu")
            kept = sum(weight.to_local().numel() for weight in base.parameters())
            (folder / f"{rank}.kept").write_text(str(kept / whole))
        backbone = Backbone(base, tokenizer, name="tiny", locate=folder.joinpath, sharded=sharded)
        settings = Lora(
            rank=4, batch_size=3, accumulate=2, weight_decay=0.1, clip=0.5, dropout=dropout, checkpoint_seconds=1e-9
        )
        job = TrainingJob(
            adapter="made", rows=ROWS, action=ACTION, folder=folder / "made", parent=None, seed=3, deadline=1e12
        )
        if cut:
            with suppress(CutOff):
                LoraTrainer(backbone, settings, partial(_cut_off, cut), ranks).train(job)
            assert (folder / "made.training").exists() and not job.folder.exists()
        shown = list[str]()
        trainer = LoraTrainer(backbone, settings, lambda *_: None, ranks, shown.append)
        log = trainer.train(job)
        assert len(shown) == bool(cut), shown
        if sharded or size == 1:
            trainer.train(
                TrainingJob(adapter="more", rows=ROWS, action=ACTION, folder=folder / "more", parent="made", seed=4)
            )
        assert not [name for name, weight in base.named_parameters() if weight.requires_grad and "lora_" not in name]
        (folder / f"{rank}.json").write_text(log.model_dump_json())

    fork(folder, size, train)


def _cut_off(at: int, what: str, done: int, total: int, note: str = "") -> None:
    if done == at:
        raise CutOff


if __name__ == "__main__":
    torch.set_num_threads(1)
    import peft  # noqa: F401

    model, place = map(Path, sys.argv[1:])
    for size in (1, 2, 3):
        train_in(place / str(size), model, size)
        assert read_training(place / str(size) / "made").processes == size
    train_in(place / "ahead", model, 2, ahead=True)
    train_in(place / "sharded", model, 2, sharded=True)
    train_in(place / "dropout", model, 2, dropout=0.1)
    train_in(place / "cut", model, 2, dropout=0.1, cut=4)

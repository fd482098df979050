"""One of several processes that train an adapter together, as torchrun starts it."""

import os
import sys
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed

from agent.errors import NesyLoraError
from agent.protocols import Charge, Progress
from agent.records.rounds import Spend
from tools.model.backbone import Backbone
from tools.model.loading import load_model
from tools.parent import end_with_parent
from tools.training.lora import LoraTrainer
from tools.training.parallel import Failure, Job, Said
from tools.training.ranks import Ranks


def work(place: Path) -> int:
    """Do this process's part of the job in `place`. 1: it failed, and why stands there."""
    job = Job.model_validate_json((place / "job.json").read_bytes())
    try:
        if torch.cuda.is_available() and job.device in ("auto", "cuda"):
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
            backend = "cpu:gloo,cuda:nccl"
        else:
            backend = "gloo"
        distributed.init_process_group(backend, timeout=timedelta(seconds=job.silence))
        ranks = Ranks.of_this_group()
        progress, charge = _speaking(place / "said.jsonl") if ranks.rank == 0 else (_silent, _free)
        train(job, ranks, progress, charge)
    except NesyLoraError as error:
        failure = Failure(kind=type(error).__name__, message=str(error))
        (place / f"failure-{os.environ['RANK']}.json").write_text(failure.model_dump_json(), encoding="utf-8")
        return 1
    distributed.destroy_process_group()
    return 0


def train(job: Job, ranks: Ranks, progress: Progress, charge: Charge) -> None:
    """Load the model, and train as one of several. Raises as `agent.protocols.Trainer.train`."""
    base, tokenizer = load_model(
        job.model, device=job.device, dtype=job.dtype, qlora=job.lora.qlora,
        chat_template_kwargs=job.chat_template_kwargs, progress=lambda *_: None,
    )  # fmt: skip
    training = job.training
    folders = {training.adapter: training.folder}
    if training.parent and job.parent_folder:
        folders[training.parent] = job.parent_folder
    backbone = Backbone(
        base, tokenizer, name=job.model, locate=folders.__getitem__, charge=charge,
        chat_template_kwargs=job.chat_template_kwargs,
    )  # fmt: skip
    LoraTrainer(backbone, job.lora, progress, ranks).train(training)


def _speaking(file: Path) -> tuple[Progress, Charge]:
    """Progress and charge that are written to a file, a line each."""

    def say(said: Said) -> None:
        with file.open("a", encoding="utf-8") as lines:
            lines.write(said.model_dump_json() + "\n")

    def progress(what: str, done: int, total: int, note: str = "") -> None:
        say(Said(progress=(what, done, total, note)))

    return progress, lambda spend: say(Said(spend=spend))


def _silent(what: str, done: int, total: int, note: str = "") -> None: ...


def _free(spend: Spend) -> None: ...


if __name__ == "__main__":
    end_with_parent()
    raise SystemExit(work(Path(sys.argv[1])))

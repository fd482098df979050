"""One of several processes that train an adapter together, as torchrun starts it."""

import os
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import distributed

from agent.errors import NesyLoraError, StepFailed
from agent.protocols import Charge, Progress
from agent.records.rounds import Spend
from tools.memory_budget import is_out_of_memory
from tools.model.backbone import Backbone
from tools.model.loading import dtype_name, load_model, pick_device
from tools.parent import end_with_parent
from tools.training.lora import LoraTrainer
from tools.training.parallel import Failure, Job, Said
from tools.training.ranks import Ranks
from tools.training.sharding import shard

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NO_ROOM = (
    "memory does not hold a pass over a base that is divided (`shard`), and no smaller one is tried there; set "
    "lora.checkpointing: true, or lower lora.batch_size or lora.max_tokens"
)


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
        speaking = _speaking(place / "said.jsonl") if ranks.rank == 0 else (_silent, _free, _unsaid)
        train(job, ranks, *speaking)
    except NesyLoraError as error:
        return _failed(place, error)
    except RuntimeError as error:
        if not (job.shard and is_out_of_memory(error)):
            raise
        return _failed(place, StepFailed(NO_ROOM))
    distributed.destroy_process_group()
    return 0


def _failed(place: Path, error: NesyLoraError) -> int:
    failure = Failure(kind=type(error).__name__, message=str(error))
    (place / f"failure-{os.environ['RANK']}.json").write_text(failure.model_dump_json(), encoding="utf-8")
    return 1


def train(job: Job, ranks: Ranks, progress: Progress, charge: Charge, note: Callable[[str], None]) -> None:
    """Load the model, and train as one of several. Raises as `agent.protocols.Trainer.train`."""
    base, tokenizer = _load(job)
    training = job.training
    folders = {training.adapter: training.folder}
    if training.parent and job.parent_folder:
        folders[training.parent] = job.parent_folder
    backbone = Backbone(
        base, tokenizer, name=job.model, locate=folders.__getitem__, charge=charge,
        chat_template_kwargs=job.chat_template_kwargs, sharded=job.shard,
    )  # fmt: skip
    LoraTrainer(backbone, job.lora, progress, ranks, note).train(training)


def _load(job: Job) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """The model on this process's device; where it is divided, its part of it. That model is read on the host."""
    device, dtype = job.device, job.dtype
    if job.shard:
        device = pick_device(device)
        dtype = dtype_name(dtype, device)
    base, tokenizer = load_model(
        job.model, device="cpu" if job.shard else device, dtype=dtype, qlora=job.lora.qlora,
        chat_template_kwargs=job.chat_template_kwargs, progress=lambda *_: None,
    )  # fmt: skip
    if job.shard:
        shard(base, device)
    return base, tokenizer


def _speaking(file: Path) -> tuple[Progress, Charge, Callable[[str], None]]:
    """Progress, charge and notes that are written to a file, a line each."""

    def say(said: Said) -> None:
        with file.open("a", encoding="utf-8") as lines:
            lines.write(said.model_dump_json() + "\n")

    def progress(what: str, done: int, total: int, note: str = "") -> None:
        say(Said(progress=(what, done, total, note)))

    return progress, lambda spend: say(Said(spend=spend)), lambda text: say(Said(note=text))


def _silent(what: str, done: int, total: int, note: str = "") -> None: ...


def _free(spend: Spend) -> None: ...


def _unsaid(text: str) -> None: ...


if __name__ == "__main__":
    end_with_parent()
    raise SystemExit(work(Path(sys.argv[1])))

"""Training by several processes of this machine: a job of torchrun's own, which ends before the run goes on."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from agent.config.lora import Lora
from agent.config.task import TaskConfig
from agent.errors import BadInput, NesyLoraError, StepFailed
from agent.protocols import Progress
from agent.records.base import Record
from agent.records.rounds import Spend
from agent.records.training import Training, TrainingJob, read_training
from tools.model.backbone import Backbone
from tools.model.loading import pick_device

HOME = Path(__file__).resolve().parents[2]
LOOK = 0.1  # seconds between looks at what the job says
LEAVE = 45.0  # seconds in which a job that is stopped ends; torchrun itself grants its processes 30
SILENCE = 600.0  # seconds that a process waits for the others in one step
RAISED = {error.__name__: error for error in (BadInput, StepFailed)}


class Job(Record):
    """What the processes are to do: the training, and the model."""

    model: str
    device: str
    dtype: str
    chat_template_kwargs: dict[str, Any]
    lora: Lora
    shard: bool = False
    training: TrainingJob
    parent_folder: Path | None
    silence: float = SILENCE


class Said(Record):
    """A line of what rank 0 says while it works: how far it is, or what it has used up."""

    progress: tuple[str, int, int, str] | None = None
    spend: Spend | None = None
    note: str = ""


class Failure(Record):
    """The error that a process ended with."""

    kind: str
    message: str


class ParallelTrainer:
    """Trains LoRA adapters by `processes` of this machine. Satisfies `agent.protocols.Trainer`.

    Each process loads the model and takes a share of every step's rows. Losses and weights are those of one process, to
    rounding. This process's own model stays loaded and waits.

    Args:
        backbone: the model as this process has it.
        config: the task's; which model it is, and how it is trained.
        locate: the folder of an adapter, from its id.
        place: a folder for what passes between the processes, rows among it. It is there while they work.
        progress: called after each optimizer step; may raise to break the training off.
        note: takes a sentence for the user.

    Raises:
        BadInput: this machine has not as many devices.
    """

    def __init__(
        self,
        backbone: Backbone,
        config: TaskConfig,
        locate: Callable[[str], Path],
        place: Path,
        progress: Progress,
        note: Callable[[str], None],
    ) -> None:
        check_devices(backbone.device.type, config.processes)
        self._backbone, self._config, self._locate, self._progress = backbone, config, locate, progress
        self._place, self._note = place, note

    def train(self, job: TrainingJob) -> Training:
        """As `agent.protocols.Trainer.train`.

        Raises:
            StepFailed: nothing was trained.
            NesyLoraError: a process has died, or did not answer the others. The others have ended, nothing is saved.
        """
        config = self._config
        shared = Job(
            model=config.model, device=config.device, dtype=config.dtype, lora=config.lora, shard=config.shard,
            chat_template_kwargs=config.chat_template_kwargs, training=job,
            parent_folder=self._locate(job.parent) if job.parent else None,
        )  # fmt: skip
        backbone = self._backbone
        with backbone.lock, _emptied(self._place):
            backbone.release_decoder(all_of_it=True)
            if backbone.device.type == "cuda":
                torch.cuda.empty_cache()
            self._progress("training LoRA", 0, 1, f"{config.processes} processes load the model")
            run_job(shared, self._place, config.processes, self._tell)
            backbone.detach(job.adapter)  # what stood under this id before
        return read_training(job.folder)

    def _tell(self, said: Said) -> None:
        if said.progress:
            self._progress(*said.progress)
        if said.note:
            self._note(said.note)
        self._backbone.charge(said.spend or Spend())  # also where nothing is said: it asks whether to go on


def check_devices(device: str, processes: int) -> None:
    """Raises BadInput where so many processes would not have a device each; `auto` is the best one there is."""
    device = pick_device(device)
    if device == "mps":
        raise BadInput("processes: more than one is possible on CUDA devices and on the CPU; set processes: 1")
    if device == "cuda" and processes > torch.cuda.device_count():
        raise BadInput(f"processes: {processes}, but this machine has {torch.cuda.device_count()} CUDA devices")


@contextmanager
def _emptied(place: Path) -> Iterator[None]:
    """The folder, new. It goes afterwards; one that a killed process has left goes now."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(exist_ok=True)  # NFS keeps a file that a process has open, under another name
    try:
        yield
    finally:
        shutil.rmtree(place, ignore_errors=True)


def run_job(job: Job, place: Path, processes: int, tell: Callable[[Said], None]) -> None:
    """Let torchrun do a job, to its end.

    Args:
        place: an empty folder for what passes between here and there.
        tell: gets all that rank 0 says, and an empty line now and then; what it raises ends the job.
    """
    (place / "job.json").write_text(job.model_dump_json(), encoding="utf-8")
    said, log = place / "said.jsonl", place / "log.txt"
    said.touch()
    with _torchrun(place, processes, log) as process, said.open(encoding="utf-8") as lines:
        ended = False
        while not ended:
            ended = process.poll() is not None  # before the last lines are read
            for line in iter(lines.readline, ""):
                tell(Said.model_validate_json(line))
            tell(Said())
            if not ended:
                time.sleep(LOOK)
    if process.returncode:
        raise _failure(place, processes, log)


@contextmanager
def _torchrun(place: Path, processes: int, log: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """torchrun at work, with all its processes ended afterwards. They also end when this process does."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, "-m", "tools.training.parallel_worker", str(place)], cwd=HOME, env=_environment(processes),
            stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(LEAVE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdin
        process.stdin.close()


def _environment(processes: int) -> Mapping[str, str]:
    """torchrun gives each process one thread where nothing is said: here they share the cores."""
    paths = [str(HOME), *filter(None, [os.environ.get("PYTHONPATH")])]
    threads = str(max(1, torch.get_num_threads() // processes))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": threads}


def _failure(place: Path, processes: int, log: Path) -> NesyLoraError:
    """The error of a process of ours; of one that died without a word, what torchrun says of it."""
    for rank in range(processes):
        file = place / f"failure-{rank}.json"
        if file.exists():
            failure = Failure.model_validate_json(file.read_bytes())
            return RAISED.get(failure.kind, NesyLoraError)(failure.message)
    text = log.read_text(encoding="utf-8", errors="replace")
    first = re.search(r"rank\s*:\s*(\d+).*?exitcode\s*:\s*(-?\d+)", text.partition("Root Cause")[2], re.DOTALL)
    which = f"process {first[1]} of {processes} ended with code {first[2]}" if first else "torchrun could not start"
    if first and int(first[2]) < 0:
        why = "killed, or out of memory"
    else:  # what the first process raised that raised anything
        errors = re.findall(r"^(?:\[rank\d+\]:\s*)?(\w*(?:Error|Exception): .+)$", text, re.MULTILINE)
        why = errors[0] if errors else text.strip()[-200:]
    return NesyLoraError(
        f"The training was broken off: {which} ({why}). The other processes have ended, and what was completed "
        "before is kept; resume goes on with this training after its last checkpoint, or begins it again."
    )

"""One contender in one cell, in this process."""

import contextlib
import re
import resource
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import torch

from bench.cost.contenders import answering, floor, training
from bench.cost.inputs import Loaded, question_rows, training_rows
from bench.cost.plan import FLOOR
from bench.cost.records import AnswerCell, Answered, Cell, Measurement, ModelSpec, Trained, TrainingCell
from tools.model.chat_template import Renderer
from tools.model.loading import load_model


def measure(contender: str, cell: Cell, spec: ModelSpec) -> Measurement:
    """Measure one contender in one cell, on a model loaded anew.

    Args:
        contender: a name of `plan.TRAINERS` or `plan.ANSWERERS`, or `plan.FLOOR`.

    Returns:
        Trained, Answered or Floor; never LeftOut.

    Raises:
        torch.OutOfMemoryError, MemoryError: the device, or this process, has too little memory.
    """
    loaded = Loaded(*load_model(spec.model, device=spec.device, progress=lambda *_: None))
    if isinstance(cell, TrainingCell):
        return _train(contender, cell, loaded)
    return _answer(contender, cell, loaded)


def _train(contender: str, cell: TrainingCell, loaded: Loaded) -> Measurement:
    rows = training_rows(loaded.tokenizer, cell)
    if contender == FLOOR:
        return floor.training_floor(loaded, rows)
    trainers: dict[str, training.Trainer] = {"ours": training.ours, "plain": training.plain}
    if contender == "trl":  # an optional package
        from bench.cost.contenders.trl import trl

        trainers["trl"] = trl
    memory = PeakMemory(loaded.model.device.type)
    steps = trainers[contender](loaded, rows, cell.steps)
    return Trained(
        seconds=tuple(after - before for before, after in pairwise(steps.ends)), loss=steps.loss,
        tokens=sum(map(len, rows.tokens)), prefix=rows.prefix, memory=memory.peak(),
    )  # fmt: skip


def _answer(contender: str, cell: AnswerCell, loaded: Loaded) -> Measurement:
    rows = question_rows(loaded.tokenizer, cell)
    if contender == FLOOR:
        return floor.answer_floor(loaded, rows, cell)
    answer: answering.Answerer = getattr(answering, contender)
    with tempfile.TemporaryDirectory() as folder:
        if cell.adapter:
            answering.save_adapter(loaded, Path(folder))
        memory = PeakMemory(loaded.model.device.type)
        texts, seconds = answer(loaded, rows, cell, Path(folder))
    lengths = [len(Renderer(loaded.tokenizer).ids(text)) + 1 for text in texts]
    return Answered(
        seconds=seconds, texts=tuple(texts), generated=tuple(min(length, cell.new) for length in lengths),
        prefix=rows.prefix, memory=memory.peak(),
    )  # fmt: skip


class PeakMemory:
    """The most memory that is in use from now on, in bytes: resident in this process on CPU, allocated on CUDA."""

    def __init__(self, device: str) -> None:
        self._cuda = device == "cuda"
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")  # Linux: resets the peak to what is held now

    def peak(self) -> int:
        """Bytes; where the system cannot reset the peak, that of the whole process."""
        if self._cuda:
            return int(torch.cuda.max_memory_allocated())
        status = Path("/proc/self/status")
        if status.exists() and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
            return int(found[1]) * 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

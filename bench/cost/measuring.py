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
from bench.cost.contenders.training import Loaded, Trainer
from bench.cost.plan import FLOOR
from bench.cost.records import AnswerCell, Answered, Cell, Outcome, Place, Trained, TrainingCell
from bench.cost.rows import question_rows, training_rows
from tools.model.chat_template import Renderer
from tools.model.loading import load_model


def measure(contender: str, cell: Cell, place: Place) -> Outcome:
    """What came of it, on a model loaded anew."""
    loaded = Loaded(*load_model(place.model, device=place.device, progress=lambda *_: None))
    if isinstance(cell, TrainingCell):
        return _train(contender, cell, loaded)
    return _answer(contender, cell, loaded)


def _train(contender: str, cell: TrainingCell, loaded: Loaded) -> Outcome:
    rows = training_rows(loaded.tokenizer, cell)
    if contender == FLOOR:
        return floor.training_floor(loaded, rows)
    trainer, memory = _trainer(contender), Memory(loaded.model.device.type)
    steps = trainer(loaded, rows, cell.steps)
    return Trained(
        seconds=tuple(after - before for before, after in pairwise(steps.ends)), loss=steps.loss,
        tokens=sum(map(len, rows.tokens)), prefix=rows.prefix, memory=memory.peak(),
    )  # fmt: skip


def _trainer(name: str) -> Trainer:
    if name == "trl":  # not everybody has it
        from bench.cost.contenders.sft import trl

        return trl
    return {"ours": training.ours, "plain": training.plain}[name]


def _answer(contender: str, cell: AnswerCell, loaded: Loaded) -> Outcome:
    rows = question_rows(loaded.tokenizer, cell)
    if contender == FLOOR:
        return floor.answer_floor(loaded, rows, cell)
    answer: answering.Answerer = getattr(answering, contender)
    with tempfile.TemporaryDirectory() as folder:
        if cell.adapter:
            answering.save_adapter(loaded, Path(folder))
        memory = Memory(loaded.model.device.type)
        texts, seconds = answer(loaded, rows, cell, Path(folder))
    lengths = [len(Renderer(loaded.tokenizer).ids(text)) + 1 for text in texts]
    return Answered(
        seconds=seconds, texts=tuple(texts), generated=tuple(min(length, cell.new) for length in lengths),
        prefix=rows.prefix, memory=memory.peak(),
    )  # fmt: skip


class Memory:
    """The most that this process, or the device, holds from now on: resident on CPU, allocated on CUDA, in bytes."""

    def __init__(self, device: str) -> None:
        self._cuda = device == "cuda"
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak falls to what is held now

    def peak(self) -> int:
        """Bytes. Where the system cannot forget an earlier peak, of the whole life of the process."""
        if self._cuda:
            return int(torch.cuda.max_memory_allocated())
        status = Path("/proc/self/status")
        if status.exists() and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
            return int(found[1]) * 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

"""A contender in a process of its own, so that its memory and its patches touch nobody else's."""

import contextlib
import multiprocessing
import resource
import signal
import sys
import tempfile
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from eval.bench.records import AnswerCell, Answered, Cell, LeftOut, Outcome, Place, Trained, TrainingCell

TRAINERS = ("ours", "plain", "trl")
ANSWERERS = ("ours", "generate", "generate_sorted", "pipeline")
FLOOR = "floor"


def measure(contender: str, cell: Cell, place: Place) -> Outcome:
    """One contender in one cell, on a model loaded anew."""
    from eval.bench.training import Loaded
    from tools.loading import load_model

    loaded = Loaded(*load_model(place.model, device=place.device, progress=lambda *_: None))
    if isinstance(cell, TrainingCell):
        return _train(contender, cell, loaded)
    return _answer(contender, cell, loaded)


def _train(contender: str, cell: TrainingCell, loaded: Any) -> Outcome:
    from eval.bench import floor, training
    from eval.bench.rows import training_rows

    rows = training_rows(loaded.tokenizer, cell)
    if contender == FLOOR:
        return floor.training_floor(loaded, rows)
    trainers: dict[str, training.Trainer] = {"ours": training.ours, "plain": training.plain}
    if contender == "trl":
        from eval.bench.sft import trl

        trainers["trl"] = trl
    memory = Memory(loaded.model.device.type)
    steps = trainers[contender](loaded, rows, cell.steps)
    return Trained(
        seconds=tuple(after - before for before, after in pairwise(steps.ends)), loss=steps.loss,
        tokens=sum(map(len, rows.tokens)), prefix=rows.shared, memory=memory.peak(),
    )  # fmt: skip


def _answer(contender: str, cell: AnswerCell, loaded: Any) -> Outcome:
    from eval.bench import answering, floor
    from eval.bench.rows import question_rows
    from tools.rendering import Renderer

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
        prefix=rows.shared, memory=memory.peak(),
    )  # fmt: skip


class Memory:
    """The most that this process, or the device, holds from now on: resident on CPU, allocated on CUDA, in bytes."""

    def __init__(self, device: str) -> None:
        self._cuda = device == "cuda"
        if self._cuda:
            import torch

            torch.cuda.reset_peak_memory_stats()
        else:
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak falls to what is held now

    def peak(self) -> int:
        if self._cuda:
            import torch

            return int(torch.cuda.max_memory_allocated())
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class Worker:
    """Measures one contender, cell after cell."""

    def __init__(self, contender: str, place: Place) -> None:
        self._arguments = (contender, place)
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, *self._arguments), daemon=True)
        self._process.start()
        theirs.close()

    def measure(self, cell: Cell) -> Outcome:
        """The outcome; LeftOut where memory ran out, after which a new process stands ready."""
        self._pipe.send(cell)
        try:
            outcome: Outcome = self._pipe.recv()
        except EOFError:
            self._process.join()
            killed = self._process.exitcode == -signal.SIGKILL
            if not killed:
                raise
            self._start()
            return LeftOut(why="its process was killed, as when memory runs out")
        return outcome

    def close(self) -> None:
        self._pipe.close()
        self._process.join()


def _serve(pipe: Connection, contender: str, place: Place) -> None:
    import torch

    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            cell: Cell = pipe.recv()
            try:
                pipe.send(measure(contender, cell, place))
            except (torch.OutOfMemoryError, MemoryError):
                pipe.send(LeftOut(why="out of memory"))
            if place.device == "cuda":
                torch.cuda.empty_cache()

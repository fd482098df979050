"""Contenders in turn, A B A B, each in a process of its own. Every line is on disk before the next one is measured."""

import contextlib
import multiprocessing
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from agent.errors import StepFailed
from bench.cost.machine import Machine, claim
from bench.cost.plan import FLOOR, Plan, contenders
from bench.cost.records import Answered, Cell, LeftOut, Line, Measurement, ModelSpec, Trained, TrainingCell, read
from memory.storage.disk import append_line

Measure = Callable[[str, Cell], Measurement]


def run(plan: Plan, spec: ModelSpec, folder: Path, machine: Machine, report: Callable[[str], None]) -> None:
    """Measure what the folder does not hold yet.

    Raises:
        BadInput: the folder holds numbers of other code or machines.
        StepFailed: a contender failed.
    """
    claim(folder, machine)
    workers: dict[str, Worker] = {}

    def measure(contender: str, cell: Cell) -> Measurement:
        report(f"… {cell.title}, {contender}")
        if contender not in workers:
            workers[contender] = Worker(contender, spec)
        return workers[contender].measure(cell)

    try:
        for line in laps(plan, measure, folder / "lines.jsonl"):
            report(f"{line.cell.title}, {line.contender}, lap {line.lap}: {_brief(line.outcome)}")
    finally:
        for worker in workers.values():
            worker.close()


def laps(plan: Plan, measure: Measure, file: Path) -> Iterator[Line]:
    """Every contender of every cell in every lap. What stands in `file` is neither measured again nor yielded."""
    lines = read(file)
    done = {(line.cell, line.contender, line.lap) for line in lines}
    for cell in plan.cells:
        for lap in range(plan.laps):
            for contender in contenders(cell):
                if (cell, contender, lap) in done:
                    continue
                why = None if contender == FLOOR else too_long(lines, contender, cell, plan)
                outcome = LeftOut(why=why) if why else measure(contender, cell)
                lines.append(Line(cell=cell, contender=contender, lap=lap, outcome=outcome))
                append_line(file, lines[-1].model_dump_json(), sync=False)
                yield lines[-1]


def too_long(lines: Sequence[Line], contender: str, cell: Cell, plan: Plan) -> str | None:
    """Why the cell is left out, judged by this contender's largest cell so far of the same kind; else None."""
    measured = [
        (line.cell.work, line.outcome.duration)
        for line in lines
        if line.contender == contender and line.cell.kind == cell.kind and isinstance(line.outcome, Trained | Answered)
    ]
    if not measured:
        return None
    work, seconds = max(measured)
    most = plan.most_seconds_step if isinstance(cell, TrainingCell) else plan.most_seconds_answers
    predicted = seconds * cell.work / work
    return f"about {predicted:.0f} s" if predicted > most else None


def _brief(outcome: Measurement) -> str:
    if isinstance(outcome, LeftOut):
        return f"left out ({outcome.why})"
    if isinstance(outcome, Trained | Answered):
        return f"{outcome.duration:.3g} s"
    return f"{outcome.least_seconds():.3g} s at {outcome.shaped / 1e9:.0f} GFLOP/s"


class Worker:
    """Measures one contender, cell after cell, in a process of its own: memory and patches touch no other contender."""

    def __init__(self, contender: str, spec: ModelSpec) -> None:
        self._contender, self._spec = contender, spec
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._contender, self._spec), daemon=True)
        self._process.start()
        theirs.close()

    def measure(self, cell: Cell) -> Measurement:
        """LeftOut where memory ran out; a new process is started then.

        Raises:
            StepFailed: the process failed in another way; its error is on the terminal.
        """
        self._pipe.send(cell)
        try:
            outcome: Measurement = self._pipe.recv()
        except EOFError:
            self._process.join()
            if self._process.exitcode != -signal.SIGKILL:
                raise StepFailed(
                    f"the contender '{self._contender}' failed at {cell.model_dump()}: see its error above"
                ) from None
            self._start()
            return LeftOut(why="its process was killed, as when memory runs out")
        return outcome

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join()


def _serve(pipe: Connection, contender: str, spec: ModelSpec) -> None:
    import torch

    from bench.cost.measuring import measure

    warnings.filterwarnings("ignore", category=FutureWarning)  # of the libraries, to one another
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            cell: Cell = pipe.recv()
            try:
                pipe.send(measure(contender, cell, spec))
            except (torch.OutOfMemoryError, MemoryError):
                pipe.send(LeftOut(why="out of memory"))
            if spec.device == "cuda":
                torch.cuda.empty_cache()

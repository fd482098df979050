"""A contender in a process of its own, so that its memory and its patches touch nobody else's."""

import contextlib
import multiprocessing
import signal
import warnings
from multiprocessing.connection import Connection

from agent.errors import StepFailed
from bench.cost.records import Cell, LeftOut, Outcome, Place


class Worker:
    """Measures one contender, cell after cell."""

    def __init__(self, contender: str, place: Place) -> None:
        self._contender, self._place = contender, place
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._contender, self._place), daemon=True)
        self._process.start()
        theirs.close()

    def measure(self, cell: Cell) -> Outcome:
        """The outcome; LeftOut where memory ran out, after which a new process stands ready.

        Raises:
            StepFailed: the process failed in another way; it has said how.
        """
        self._pipe.send(cell)
        try:
            outcome: Outcome = self._pipe.recv()
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


def _serve(pipe: Connection, contender: str, place: Place) -> None:
    import torch

    from bench.cost.measuring import measure

    warnings.filterwarnings("ignore", category=FutureWarning)  # of the libraries, to one another
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            cell: Cell = pipe.recv()
            try:
                pipe.send(measure(contender, cell, place))
            except (torch.OutOfMemoryError, MemoryError):
                pipe.send(LeftOut(why="out of memory"))
            if place.device == "cuda":
                torch.cuda.empty_cache()

"""Work on CUDA captured as graphs: launched as a whole, where launching kernel by kernel takes longer than they run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


def captured(work: Callable[[], None], pool: Any, stream: Any = None) -> "torch.cuda.CUDAGraph":
    """The kernels of some work as a graph. Nothing is run.

    Args:
        pool: the memory of graphs that never run at the same time.
        stream: on which the work is captured; None: a new one.

    Raises:
        RuntimeError: the work waits for the device, or does something else that cannot be captured.
    """
    graph = torch.cuda.CUDAGraph()
    stream = stream or torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        graph.capture_begin(pool=pool, capture_error_mode="thread_local")
        try:
            work()
        finally:
            graph.capture_end()
    torch.cuda.current_stream().wait_stream(stream)
    return graph


@contextmanager
def without_synchronizing() -> Iterator[None]:
    """Torch raises a RuntimeError where the host would wait for the device.

    For all threads of the process: to be used seldom, where a model is tried out.
    """
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)

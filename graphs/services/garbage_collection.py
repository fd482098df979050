"""Python's garbage collection, switched off while libraries are loaded."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """For imports and weights: hundreds of thousands of objects that stay, among which there is no garbage.

    Searching them again and again takes a quarter of the time. At the end they count as long-lived and are not
    searched.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.unfreeze()  # straight into the oldest generation
        if was_on:
            gc.enable()

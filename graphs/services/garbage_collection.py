"""Python's garbage collector, at rest while libraries are loaded."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_at_rest() -> Iterator[None]:
    """For imports and weights: hundreds of thousands of objects that stay, among which the collector finds no garbage.

    Searching them again and again takes a quarter of the time; at the end they count as long-lived, unsearched.
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

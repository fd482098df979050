"""Rows in turn: a few at a time, in an order drawn by seed, all of them before any comes back."""

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def batch(rows: Sequence[T], start: int, size: int, seed: int) -> list[T]:
    """`size` different rows from place `start` of the seeded order, which goes round; all rows where there are fewer.

    With `start` growing by `size`, every row is served before any comes back.
    """
    order = random.Random(seed).sample(list(rows), len(rows))
    return [order[(start + place) % len(order)] for place in range(min(size, len(order)))]

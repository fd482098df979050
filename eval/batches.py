"""Batches of rows in a seeded order: every row is drawn before any is drawn again."""

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def batch(rows: Sequence[T], start: int, size: int, seed: int) -> list[T]:
    """`size` different rows of a seeded order, from index `start` on; all rows, where there are fewer.

    With `start` growing by `size`, every row is drawn before any is drawn again.

    Args:
        start: index into the order, which begins again at its end.
        seed: of the order.
    """
    order = random.Random(seed).sample(list(rows), len(rows))
    return [order[(start + place) % len(order)] for place in range(min(size, len(order)))]

"""Exact arithmetic on sums of rational multiples of square roots and powers of pi.

A value is a mapping from what is irrational about a term to its rational factor: 1 + 2 sqrt 3 is {1: 1, sqrt 3: 2}.
"""

from fractions import Fraction
from itertools import product as pairs
from typing import NamedTuple

LONGEST = 2000  # characters of what cannot be computed with
LARGEST = 10**9  # of a radicand whose square factors are looked for


class Key(NamedTuple):
    """sqrt(radicand) * pi**power * unknown, where the unknown is a text that cannot be computed with."""

    radicand: int = 1
    pi: int = 0
    unknown: str = ""


ONE = Key()
PI = Key(pi=1)
Value = dict[Key, Fraction]


def rational(number: Fraction | int) -> Value:
    return {ONE: Fraction(number)} if number else {}


def unknown(written: str) -> Value:
    """A value that equals only what is written in the same way."""
    return {Key(unknown=written[:LONGEST]): Fraction(1)}


def is_rational(value: Value) -> bool:
    return set(value) <= {ONE}


def sum_of(left: Value, right: Value) -> Value:
    keys = dict.fromkeys([*left, *right])
    total = {key: left.get(key, Fraction(0)) + right.get(key, Fraction(0)) for key in keys}
    return {key: factor for key, factor in total.items() if factor}


def negated(value: Value) -> Value:
    return {key: -factor for key, factor in value.items()}


def product(left: Value, right: Value) -> Value:
    total: Value = {}
    for (left_key, factor), (right_key, times) in pairs(left.items(), right.items()):
        outside, inside = _simplest(left_key.radicand * right_key.radicand)
        unknowns = sorted(filter(None, (left_key.unknown, right_key.unknown)))
        key = Key(inside, left_key.pi + right_key.pi, "*".join(unknowns))
        total = sum_of(total, {key: factor * times * outside})
    return total


def divided(above: Value, below: Value) -> Value | None:
    """The quotient; None for a division by zero, by a sum, or by an unknown."""
    if len(below) != 1:
        return None
    (key, factor), *_ = below.items()
    if key.unknown:
        return None
    return product(above, {Key(key.radicand, -key.pi): 1 / (factor * key.radicand)})


def root(value: Value, index: int = 2) -> Value:
    """The root of a number: square roots in their simplest form, others where they are whole."""
    number = value.get(ONE, Fraction(0))
    if not is_rational(value) or number < 0:
        terms = sorted(f"{factor} {key.radicand} {key.pi} {key.unknown}" for key, factor in value.items())
        return unknown(f"root{index}({' + '.join(terms)})")
    if index == 2:
        outside, inside = _simplest(number.numerator * number.denominator)
        return {Key(inside): Fraction(outside, number.denominator)} if number else {}
    above, below = (round(part ** (1 / index)) if part < LARGEST else 0 for part in number.as_integer_ratio())
    if (above**index, below**index) == number.as_integer_ratio():
        return rational(Fraction(above, below))
    return unknown(f"root{index}({number})")


def _simplest(radicand: int) -> tuple[int, int]:
    """(a, b) with sqrt(radicand) = a sqrt(b), and b without square factors (where it is not beyond reason)."""
    outside, factor = 1, 2
    while factor * factor <= radicand <= LARGEST:
        while radicand % (factor * factor) == 0:
            radicand //= factor * factor
            outside *= factor
        factor += 1
    return outside, radicand

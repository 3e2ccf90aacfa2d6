"""Draws that every Python makes alike: of a seeded Random, random() alone is promised to keep its sequence."""

from collections.abc import Sequence
from random import Random
from typing import TypeVar

T = TypeVar("T")


def pick(rng: Random, options: Sequence[T]) -> T:
    """One of the options, each as likely.

    >>> pick(Random(0), "abcdef")
    'f'
    """
    return options[int(rng.random() * len(options))]


def some(rng: Random, options: Sequence[T], n: int) -> list[T]:
    """n different places of the options, in the order drawn; all of them, shuffled, where n is their number.

    Raises:
        IndexError: n is above the number of options.
    """
    left = list(options)
    return [left.pop(int(rng.random() * len(left))) for _ in range(n)]

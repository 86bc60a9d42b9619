"""The one source of randomness: initial weights, dropout, shuffling. `manual_seed` makes a run repeatable."""

from __future__ import annotations

from functools import cache

from milligrad.typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random


@cache
def generator() -> Random:
    """The generator that everything random in milligrad draws from, unless it is given a seed of its own."""
    from random import Random

    return Random()


def manual_seed(seed: int) -> None:
    """Start the generator anew, so that the same program draws the same numbers. Seeds are whole numbers."""
    if not isinstance(seed, int):
        raise TypeError(f"seed: expected an int, got {type(seed).__name__} {seed!r:.60}")
    generator().seed(seed)

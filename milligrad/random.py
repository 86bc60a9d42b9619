"""The one source of randomness: initial weights, dropout, shuffling. `manual_seed` makes a run repeatable."""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Callable
from functools import cache

from milligrad.typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from random import Random


@cache
def generator() -> Random:
    """The generator that everything random in milligrad draws from, unless it is given a seed of its own."""
    from random import Random

    return Random()


def uniform() -> Any:
    """The next number of the generator, uniform in [0, 1); for code that may be traced, where it is a new symbol."""
    return source()()


def source() -> Callable[[], Any]:
    """What draws the numbers of `uniform` here and now, for whoever draws many at a time."""
    return instead.get(get_ident()) or generator().random


instead: dict[int, Callable[[], Any]] = {}  # thread → what the compiler put in the generator's place while it traces


def manual_seed(seed: int) -> None:
    """Start the generator anew, so that the same program draws the same numbers. Seeds are whole numbers."""
    if not isinstance(seed, int):
        raise TypeError(f"seed: expected an int, got {type(seed).__name__} {seed!r:.60}")
    generator().seed(seed)

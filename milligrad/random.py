"""The one source of randomness: initial weights, dropout, shuffling. `manual_seed` makes a run repeatable."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

from milligrad.typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from random import Random


@cache
def generator() -> Random:
    """The generator that everything random in milligrad draws from, unless it is given a seed of its own.

    It is Python's, and while the compiler traces, its `random()` is a number that is drawn anew in each call of what
    was compiled; so are `uniform(a, b)` and whatever else is arithmetic with it. `gauss`, `choice` and the like, which
    ask for the number, are refused there.
    """
    from random import Random

    class Generator(Random):
        def random(self) -> Any:
            return draw() if (draw := _instead.get()) else super().random()

        def getrandbits(self, k: int) -> int:
            if _instead.get():
                int(self.random())  # a number that is not known yet, which says so
            return super().getrandbits(k)

        def gauss(self, mu: float = 0.0, sigma: float = 1.0) -> float:
            if _instead.get():
                float(self.random())  # likewise; the next one may have been drawn before
            return super().gauss(mu, sigma)

    return Generator()


def uniform() -> Any:
    """The next number of the generator, uniform in [0, 1); for code that may be traced, where it is a new symbol."""
    return source()()


def source() -> Callable[[], Any]:
    """What draws the numbers of `uniform` here and now, for whoever draws many at a time."""
    return _instead.get() or plain()


def plain() -> Callable[[], float]:
    """What draws the numbers of the generator itself, in the least time."""
    return super(type(generator()), generator()).random


_instead: ContextVar[Callable[[], Any] | None] = ContextVar("random", default=None)


@contextmanager
def drawn_by(draw: Callable[[], Any]) -> Iterator[None]:
    """Within it `draw` makes the numbers that the generator would draw: the compiler's trace does so."""
    before = _instead.get()
    _instead.set(draw)
    try:
        yield
    finally:
        _instead.set(before)


def manual_seed(seed: int) -> None:
    """Start the generator anew, so that the same program draws the same numbers. Seeds are whole numbers."""
    if not isinstance(seed, int):
        raise TypeError(f"seed: expected an int, got {type(seed).__name__} {seed!r:.60}")
    generator().seed(seed)

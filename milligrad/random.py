"""The one source of randomness: initial weights, dropout, shuffling. `manual_seed` makes a run repeatable."""

from __future__ import annotations

from _thread import allocate_lock
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
        """A class of its own, whose methods ask first while the compiler traces; see `drawn_by`."""

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
_drawing: list[object] = []  # one for each trace that is running, in all threads
_lock = allocate_lock()


@contextmanager
def drawn_by(draw: Callable[[], Any]) -> Iterator[None]:
    """Within it `draw` makes the numbers that the generator would draw: the compiler's trace does so."""
    before, mark = _instead.get(), object()
    kind: Any = type(generator())
    _instead.set(draw)
    with _lock:
        _drawing.append(mark)
        kind.random, kind.getrandbits, kind.gauss, kind.seed, kind.setstate = _INSTEAD
    try:
        yield
    finally:
        _instead.set(before)
        with _lock:
            _drawing.remove(mark)
            if not _drawing:
                del kind.random, kind.getrandbits, kind.gauss, kind.seed, kind.setstate


def _random(own: Any) -> Any:
    return draw() if (draw := _instead.get()) else super(type(own), own).random()


def _getrandbits(own: Any, k: int) -> Any:
    if draw := _instead.get():
        int(draw())  # a number that is not known yet, which says so
    return super(type(own), own).getrandbits(k)


def _gauss(own: Any, mu: float = 0.0, sigma: float = 1.0) -> Any:
    if draw := _instead.get():
        float(draw())  # likewise; the number might be one that was drawn before
    return super(type(own), own).gauss(mu, sigma)


def _seed(own: Any, *seed: Any) -> None:
    _refuse_to_set("the seed")
    super(type(own), own).seed(*seed)


def _setstate(own: Any, state: Any) -> None:
    _refuse_to_set("the state")
    super(type(own), own).setstate(state)


def _refuse_to_set(what: str) -> None:
    if _instead.get():
        from milligrad.compiler.trace import refuse_to_set

        refuse_to_set(f"{what} of random numbers")


_INSTEAD = _random, _getrandbits, _gauss, _seed, _setstate


def manual_seed(seed: int) -> None:
    """Start the generator anew, so that the same program draws the same numbers. Seeds are whole numbers."""
    if not isinstance(seed, int):
        raise TypeError(f"seed: expected an int, got {type(seed).__name__} {seed!r:.60}")
    generator().seed(seed)

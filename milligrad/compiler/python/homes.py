"""Homes: how each array is kept while a Python program runs, as local variables, a flat list, or a list of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from milligrad.compiler.program import Access, Apply, Dims, Loop, size
from milligrad.compiler.python.simpler import UNROLL


class Home(NamedTuple):
    """How an array is kept while the program runs.

    fields:  a local variable for each number, or
    pitch:   a list of rows of that length, or, if 0, a flat list
    """

    name: str
    size: int
    fields: tuple[str, ...] = ()
    pitch: int = 0


class Use(NamedTuple):
    """A place where an array is read or written. `dims` are those of the nest, and then of the segment."""

    access: Access
    dims: Dims
    outer: int  # how many of them are the nest's
    stored: bool = False
    over_samples: bool = False


def uses_of(loop: Loop) -> Iterator[Use]:
    m = len(loop.dims)
    for step in loop.steps:
        if isinstance(step, Apply):
            yield from [Use(x, loop.dims, m) for x in step.inputs if isinstance(x, Access)]
        else:
            for s in step.segments:
                dims = loop.dims + s.dims
                yield from [Use(x, dims, m, False, s.over_samples) for x in s.factors if isinstance(x, Access)]
    yield from [Use(place, loop.dims, m, True) for _, place in loop.stores]


def is_single(use: Use) -> bool:
    """Whether it means one number of the array, known beforehand."""
    return use.access.table is None and not any(use.access.strides) and not (use.stored and use.dims)


def is_whole(place: Access, dims: Dims, home: Home) -> bool:
    """Whether a loop that stores there writes all of the array, in order."""
    natural = tuple(size(dims[d + 1 :]) for d in range(len(dims)))
    if place.table is not None or home.fields or not dims or home.pitch not in (0, dims[-1]):
        return False
    return (place.base, place.strides, size(dims)) == (0, natural, home.size)


def pitch_of(length: int, uses: Sequence[Use]) -> int:
    """The shortest rows in which the array can be kept: every use must be quicker, or as quick, than on a flat list."""
    strides = {abs(k) for use in uses for k in use.access.strides}
    good = [p for p in sorted(strides) if UNROLL < p < length and length % p == 0]
    return next((p for p in good if all(_suits(use, p) for use in uses)), 0)


def _suits(use: Use, pitch: int) -> bool:
    x = use.access
    if x.table is not None or use.over_samples or len(use.dims) - use.outer > 1:
        return False
    spans = [k * (extent - 1) for k, extent in zip(x.strides, use.dims, strict=True) if k % pitch]
    first = x.base % pitch + sum(span for span in spans if span < 0)
    last = x.base % pitch + sum(span for span in spans if span > 0)
    if first < 0 or last >= pitch:
        return False
    inner = x.strides[use.outer - 1] if use.outer else 0
    segment = x.strides[use.outer] if len(use.dims) > use.outer else 0
    if segment and segment % pitch == 0:  # columns, drawn from zip(*rows)
        return (inner, use.dims[use.outer - 1], x.base % pitch, len(spans)) == (1, pitch, 0, 1)
    return bool(segment) or inner == 0 or inner % pitch != 0

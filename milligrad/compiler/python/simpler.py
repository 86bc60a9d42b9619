"""Simpler loops: the same program, with fewer shapes to spell."""

from __future__ import annotations

from itertools import product

from milligrad.compiler.passes.fuse import lined_up
from milligrad.compiler.program import Access, Apply, Dims, Loop, Operand, Reduce, Segment, size

NARROW = 8  # an inner loop shorter than that changes places with the longest one around it
UNROLL = 3  # the longest segment that is spelled out: a*b + c*d + e*f takes 119 ns, sum(map(mul, …)) of them 217 ns


def simpler(loop: Loop) -> Loop:
    """Without dimensions of extent 1, the inner one long; the segments as few as can be, short ones unrolled."""
    order = _order(loop.dims)
    dims = tuple(loop.dims[d] for d in order)
    straight = order == [*range(len(loop.dims))]

    def turn(x: Operand, inner: Dims = ()) -> Operand:
        if not isinstance(x, Access):
            return x
        if straight and x.table is None and 1 not in inner:
            return x
        outer = len(loop.dims)
        return _turn(x, loop.dims + inner, [*order, *[outer + d for d, extent in enumerate(inner) if extent != 1]])

    steps: list[Apply | Reduce] = []
    for step in loop.steps:
        if isinstance(step, Apply):
            op, inputs = step
            steps.append(Apply(op, tuple(turn(x) for x in inputs)))
        else:
            op, segments = step
            turned = [
                _merge(Segment(tuple(e for e in s.dims if e != 1), tuple(turn(x, s.dims) for x in s.factors),
                               s.over_samples), len(dims))
                for s in segments if size(s.dims)
            ]  # fmt: skip
            steps.append(Reduce(op, lined_up([u for s in turned for u in _unroll(s, dims)], UNROLL)))
    stores = [(k, _turn(place, loop.dims, order)) for k, place in loop.stores]
    return Loop(dims, steps, stores, loop.per_sample)


def _order(dims: Dims) -> list[int]:
    """Which dimensions stay, outermost first: those that do something, a short inner one swapped for the longest."""
    order = [d for d, extent in enumerate(dims) if extent != 1]
    if order and dims[order[-1]] < NARROW:
        longest = max(order, key=lambda d: (dims[d], d))
        order = [d for d in order if d != longest] + [longest]
    return order


def _turn(x: Access, dims: Dims, order: list[int]) -> Access:
    """The access with its loops in another order; loops of extent 1 may be left out."""
    if x.table is None:
        return Access(x.array, x.base, tuple(x.strides[d] for d in order))
    table = x.table
    if order != sorted(order):
        strides = [size(dims[d + 1 :]) for d in order]
        places = product(*[range(0, stride * dims[d], stride) for d, stride in zip(order, strides, strict=True)])
        table = tuple(x.table[sum(place)] for place in places)
    if min(table) == max(table):
        return Access(x.array, table[0], (0,) * len(order))
    return Access(x.array, table=table)


def _merge(segment: Segment, outer: int) -> Segment:
    """With neighbouring loops made one where every factor goes through both in equal steps."""
    dims = segment.dims
    if len(dims) < 2:
        return segment
    affine = [x for x in segment.factors if isinstance(x, Access) and x.table is None]
    for d in reversed(range(len(dims) - 1)):
        if all(x.strides[outer + d] == x.strides[outer + d + 1] * dims[d + 1] for x in affine):
            dims = (*dims[:d], dims[d] * dims[d + 1], *dims[d + 2 :])
            affine = [x._replace(strides=_without(x.strides, outer + d)) for x in affine]
    rest = iter(affine)
    factors = tuple(next(rest) if isinstance(x, Access) and x.table is None else x for x in segment.factors)
    return Segment(dims, factors, segment.over_samples)


def _without(strides: Dims, d: int) -> Dims:
    return strides[:d] + strides[d + 1 :]


def _unroll(segment: Segment, dims: Dims) -> list[Segment]:
    """A short segment as segments of one input each."""
    total = size(segment.dims)
    if total > UNROLL or not segment.dims or segment.over_samples:
        return [segment]

    def one(x: Operand, k: int, place: Dims) -> Operand:
        if not isinstance(x, Access):
            return x
        if x.table is not None:
            return _turn(Access(x.array, table=x.table[k::total]), dims, [*range(len(dims))])
        shift = sum(i * stride for i, stride in zip(place, x.strides[len(dims) :], strict=True))
        return Access(x.array, x.base + shift, x.strides[: len(dims)])

    places = product(*map(range, segment.dims))
    return [Segment((), tuple(one(x, k, place) for x in segment.factors)) for k, place in enumerate(places)]

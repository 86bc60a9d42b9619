"""Between reroll and emit: loops over the same indices become one loop, so that numbers stay in registers.

A loop first sinks as far as what reads it allows, so that a gradient stands next to the update that wants it. Then
each loop is merged into the nearest earlier one with the same iterations, if what it reads of that one is what the
same iteration has just computed. Arrays that nobody reads any more disappear. The results are the same to the bit,
but for long sums of terms that stayed where they were: these are a loop again, which may add them in any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, pairwise
from typing import NamedTuple

from milligrad.compiler.program import (
    SHORT,
    Access,
    Apply,
    Array,
    Dims,
    Loop,
    Operand,
    Program,
    Reduce,
    Ref,
    Segment,
    accesses,
    accesses_within,
    mapped,
)

FARTHEST = 64  # how many loops back another one is looked for
LARGEST = 400  # steps in one loop: a native compiler takes more than twice as long for twice as many


def fuse(program: Program) -> Program:
    """The program with fewer loops."""
    seen: list[Seen] = []
    for loop in sunk(_with_own_arrays(program)):
        _merge_into(seen, seen_of(loop))
    loops = [x.loop for x in seen]
    _drop_stores(loops)
    for loop in loops:
        loop.steps = [x if isinstance(x, Apply) else Reduce(x.op, lined_up(x.segments, SHORT)) for x in loop.steps]
    used = {x.array: None for loop in loops for x in [*accesses(loop), *[place for _, place in loop.stores]]}
    lasting = {a: None for a in program.arrays if a.role not in ("value", "constant")}
    return Program(list(lasting | used), loops, program.info)


def _with_own_arrays(program: Program) -> list[Loop]:
    """The loops with an array of its own for each of them that computes values, unless one access reads several."""
    writers: dict[Array, list[tuple[int, int, Loop]]] = {}
    for loop in program.loops:
        for _, place in loop.stores:
            if place.array.role == "value":
                writers.setdefault(place.array, []).append((*region(place, loop.dims), loop))
    shared = {array for array, regions in writers.items() if len(regions) > 1}
    for array in list(shared):
        writers[array].sort(key=lambda x: x[0])
        if any(b[0] <= a[1] for a, b in zip(writers[array], writers[array][1:])):
            shared.discard(array)  # interleaved
    for x, dims in chain.from_iterable(map(accesses_within, program.loops)):
        if x.array in shared:
            low, high = region(x, dims)
            if not any(a <= low and high <= b for a, b, _ in writers[x.array]):
                shared.discard(x.array)
    parts = {
        array: [
            (a, b, Array(f"{array.name}_{i}", b - a + 1, "value", array.per_sample))
            for i, (a, b, _) in enumerate(writers[array])
        ]
        for array in shared
    }

    def moved(x: Operand, dims: Dims) -> Operand:
        if not isinstance(x, Access) or x.array not in parts:
            return x
        low, _ = region(x, dims)
        start, _, part = next(p for p in parts[x.array] if p[0] <= low <= p[1])
        if x.table is not None:
            return Access(part, table=tuple([i - start for i in x.table]))
        return Access(part, x.base - start, x.strides)

    return [
        Loop(
            loop.dims,
            [mapped(step, moved, loop.dims) for step in loop.steps],
            [(k, moved(place, loop.dims)) for k, place in loop.stores],  # type: ignore[misc]
            loop.per_sample,
        )
        for loop in program.loops
    ]


def region(x: Access, dims: Dims) -> tuple[int, int]:
    """The smallest and the largest place that the access means."""
    if x.table is not None:
        return min(x.table), max(x.table)
    spans = [stride * (n - 1) for stride, n in zip(x.strides, dims)]
    return x.base + sum(s for s in spans if s < 0), x.base + sum(s for s in spans if s > 0)


def reads(loop: Loop) -> set[Array]:
    """The arrays that the loop reads."""
    return {x.array for x in accesses(loop)}


def writes(loop: Loop) -> set[Array]:
    """The arrays that it writes."""
    return {place.array for _, place in loop.stores}


class Seen(NamedTuple):
    """A loop, with the arrays that it reads and writes: many others ask for them, and it may be long."""

    loop: Loop
    reads: set[Array]
    writes: set[Array]


def seen_of(loop: Loop) -> Seen:
    return Seen(loop, reads(loop), writes(loop))


def sunk(loops: Sequence[Loop]) -> list[Loop]:
    """The loops in an order in which each comes as late as it can: just before the first that must follow it."""
    order: list[Seen] = []
    for loop in reversed(loops):
        x = seen_of(loop)
        at = next((i for i, y in enumerate(order) if x.writes & y.reads or x.reads & y.writes), len(order))
        order.insert(at, x)
    return [x.loop for x in order]


def _merge_into(seen: list[Seen], new: Seen) -> None:
    """Merge the loop into the nearest one before it that fits; else it becomes the last.

    It moves up to the other one if nothing in between must stay before it; or else the other one down to it.
    """
    loop, r, w = new
    free = True  # the loop may move up to seen[i]
    passed_reads: set[Array] = set()
    passed_writes: set[Array] = set()
    for i in range(len(seen) - 1, max(len(seen) - 1 - FARTHEST, -1), -1):
        other, reads_other, writes_other = seen[i]
        related = bool(r & writes_other) or (free and not loop.dims and not other.dims)
        sinks = not (writes_other & passed_reads or reads_other & passed_writes)
        if related and (free or sinks):
            merged = _merged(seen[i], new)
            if merged and free:
                seen[i] = merged
                return
            if merged:
                del seen[i]
                seen.append(merged)
                return
        free = free and not (r & writes_other or w & reads_other)
        passed_reads |= reads_other
        passed_writes |= writes_other
    seen.append(new)


def _merged(first: Seen, second: Seen) -> Seen | None:
    """Both as one loop; None if they don't fit or have nothing to do with each other."""
    a, b = first.loop, second.loop
    if a.per_sample is not b.per_sample or len(a.steps) + len(b.steps) > LARGEST:
        return None
    shared = first.writes & second.reads
    if not shared and (a.dims or b.dims):
        return None
    if second.writes & first.reads and not _in_place(a, b):
        return None
    dims = common(a.dims, b.dims)
    if dims is None:
        return None
    a, b = refined(a, dims), refined(b, dims)
    known = {place: step for step, place in a.stores if place.array in shared}
    for x, around in accesses_within(b):
        if x.array in shared and (x not in known or around != dims) and _overlaps(x, around, a):
            return None
    n = len(a.steps)

    def renamed(x: Operand, around: Dims) -> Operand:
        if isinstance(x, Ref):
            return Ref(x.step + n)
        return Ref(known[x]) if isinstance(x, Access) and x in known and around == dims else x

    steps = [mapped(step, renamed, dims) for step in b.steps]
    stores = [*a.stores, *((k + n, place) for k, place in b.stores)]
    more = reads(Loop(dims, steps, [], b.per_sample))
    both = Loop(dims, [*a.steps, *steps], stores, a.per_sample)
    return Seen(both, first.reads | more, first.writes | second.writes)


def _overlaps(x: Access, around: Dims, a: Loop) -> bool:
    """Whether x may mean a number that the loop a writes."""
    low, high = region(x, around)
    return any(
        place.array is x.array and first <= high and low <= last
        for _, place in a.stores
        for first, last in [region(place, a.dims)]
    )


def _in_place(a: Loop, b: Loop) -> bool:
    """Whether b overwrites of what a reads just the number that the same iteration has read."""
    dims = common(a.dims, b.dims)
    if dims is None:
        return False
    places = {place.array: place for _, place in refined(b, dims).stores}
    return all(x == places[x.array] for x in accesses(refined(a, dims)) if x.array in places)


# The same iterations, cut up differently.


def common(a: Dims, b: Dims) -> Dims | None:
    """The coarsest nest that both nests are, when some of their loops are cut in two; None if there is none."""
    if a == b:
        return a
    products = sorted({*_suffix_products(a), *_suffix_products(b)})
    if _suffix_products(a)[-1] != _suffix_products(b)[-1]:
        return None
    if any(large % small for small, large in pairwise(products)):
        return None
    return tuple(reversed([large // small for small, large in pairwise(products)]))


def _suffix_products(dims: Dims) -> list[int]:
    """1, the extent of the innermost loop, that of the two innermost, …"""
    products = [1]
    for extent in reversed(dims):
        products.append(products[-1] * extent)
    return products


def refined(loop: Loop, dims: Dims) -> Loop:
    """The loop with its nest cut up to `dims`, which has the same iterations."""
    if loop.dims == dims:
        return loop
    old = len(loop.dims)
    parts = _parts(loop.dims, dims)

    def recut(x: Operand, _: Dims) -> Operand:
        if not isinstance(x, Access) or x.table is not None:
            return x
        strides: list[int] = []
        for stride, extents in zip(x.strides, parts):
            block = 1
            inner: list[int] = []
            for extent in reversed(extents):
                inner.append(stride * block)
                block *= extent
            strides += reversed(inner)
        return Access(x.array, x.base, (*strides, *x.strides[old:]))

    steps = [mapped(step, recut, loop.dims) for step in loop.steps]
    stores = [(k, recut(place, loop.dims)) for k, place in loop.stores]
    return Loop(dims, steps, stores, loop.per_sample)  # type: ignore[arg-type]


def _parts(coarse: Dims, fine: Dims) -> list[Dims]:
    """For each loop of the coarse nest, the loops of the fine one that it is cut into."""
    parts: list[Dims] = []
    rest = list(fine)
    for extent in coarse:
        part: list[int] = []
        n = 1
        while n < extent:
            part.append(rest.pop(0))
            n *= part[-1]
        parts.append(tuple(part))
    return parts


def _drop_stores(loops: list[Loop]) -> None:
    """Leave out what is stored in arrays that nobody reads."""
    read = {x.array for loop in loops for x in accesses(loop)}
    for loop in loops:
        loop.stores = [(k, place) for k, place in loop.stores if place.array.role != "value" or place.array in read]


# Sums whose terms could be fused with what computes them, and were not.


def lined_up(segments: Sequence[Segment], apart: int) -> tuple[Segment, ...]:
    """With many segments of one input each made one, where they stand in a line: sum(z) for z[0] + z[1] + z[2] + …

    apart:  up to so many stay by themselves
    """
    runs: list[list[Segment]] = []
    for s in segments:
        if runs and _continues(runs[-1], s):
            runs[-1].append(s)
        else:
            runs.append([s])
    return tuple(s for run in runs for s in (run if len(run) <= apart else [_line(run)]))


def _continues(run: list[Segment], s: Segment) -> bool:
    """Whether s is of one input, and that stands as far from the last one of the run as that from the one before."""
    last = run[-1]
    if s.dims or last.dims or s.over_samples or last.over_samples or len(s.factors) != len(last.factors):
        return False
    stride = [*map(_distance, last.factors, s.factors)]
    return None not in stride and (len(run) == 1 or stride == [*map(_distance, run[0].factors, run[1].factors)])


def _distance(x: Operand, y: Operand) -> int | None:
    """How far y stands behind x in the same array, in every iteration; 0 if they are the same."""
    if isinstance(x, Access) and isinstance(y, Access):
        alike = x.array is y.array and x.strides == y.strides and x.table is y.table is None
        return y.base - x.base if alike else None
    return 0 if type(x) is type(y) and x == y else None


def _line(run: list[Segment]) -> Segment:
    factors = [
        x._replace(strides=(*x.strides, _distance(x, y) or 0)) if isinstance(x, Access) else x
        for x, y in zip(run[0].factors, run[1].factors, strict=True)
    ]
    return Segment((len(run),), tuple(factors))

"""How to run a nest on vector registers: which dim goes in lanes, which iterations are taken together, in what order.

    lanes     the numbers that one vector holds; the lane dim is the dim whose iterations stand side by side in it
    tile      iterations taken together: each of the numbers that they share is loaded once. Its parts, vectors of
              iterations or single ones, are copies
    across    a way to reduce: each copy holds a vector of results, and goes through the segment one by one
    along     the other way: vectors go along the segment, and what they hold is added up at the end

A nest's iterations depend on nothing but their indices, so each plan is right. The one of the least estimated time is
taken, in units of about a cycle; the estimate knows of loads, multiplications and the lanes left empty, and no more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations, product
from typing import NamedTuple

from milligrad.compiler.llvm.nests import Input, Nest, NestStep, Part, Place
from milligrad.compiler.program import SHORT, Dims
from milligrad.compiler.spelling import cost

HEAVY = 6  # inputs of a Reduce from which on it pays to share loads
JAMS = (2, 3, 4, 5, 6, 8)  # how many iterations of a dim may be taken together
LATENCY = 4  # cycles until a sum may be added to again


class Plan(NamedTuple):
    """lane:   the lane dim; None for one iteration at a time
    jam:    for each dim, how many iterations (of the lane dim: vectors) a tile takes together
    order:  the dims, outermost first
    along:  for (number of the step, number of the part) the dim of the segment along which vectors go; absent: across
    """

    lane: int | None
    jam: Dims
    order: Dims
    along: dict[tuple[int, int], int]


class Planner:
    """Finds the plan of a nest, for vectors of `width` numbers.

    registers:  how many vectors the machine holds
    capacity:   for how many samples at most the nest is run
    """

    def __init__(self, nest: Nest, width: int, registers: int, capacity: int) -> None:
        self.nest, self.width, self.capacity = nest, width, capacity
        self.sums = 3 * registers // 4  # registers for sums; the others are for what is loaded
        self.extents = [self.extent(e) for e in nest.extents]

    def plan(self) -> Plan:
        """The best one: at first the lane dim, and then, for a nest with long sums, what to take together."""
        alone = (1,) * len(self.extents)
        lanes = sorted([None, *range(len(alone))], key=lambda lane: self.priced(lane, alone)[0])
        if not any(self.work(p) >= HEAVY for s in self.nest.steps for p in s.parts):
            return self.priced(lanes[0], alone)[1]
        plans = [self.priced(lane, jam) for lane in lanes[:2] for jam in self.jams(lane)]
        return min(plans, key=lambda plan: plan[0])[1]

    def jams(self, lane: int | None) -> Iterator[Dims]:
        """Tiles of one or two dims: any number of samples or of vectors, and of other dims a number that divides."""
        n = len(self.extents)
        yield (1,) * n
        choices = [[k for k in JAMS if self._fits(d, k, lane)] for d in range(n)]
        for d in range(n):
            yield from [(*[1] * d, k, *[1] * (n - d - 1)) for k in choices[d]]
        for d, e in combinations(range(n), 2):
            for k, j in product(choices[d], choices[e]):
                if k * j <= self.sums:
                    yield tuple([k if x == d else j if x == e else 1 for x in range(n)])

    def _fits(self, d: int, k: int, lane: int | None) -> bool:
        if d == lane:
            return k <= 4 and self.nest.extents[d] is not None and k * self.width < self.extents[d] + self.width
        if self.nest.extents[d] is None:
            return k in (2, 4) and k <= self.capacity
        return self.extents[d] % k == 0

    def extent(self, e: int | None) -> int:
        return self.capacity if e is None else e

    def work(self, part: Part) -> int:
        """How many inputs it has."""
        return math.prod(map(self.extent, part.extents))

    # Times.

    def priced(self, lane: int | None, jam: Dims) -> tuple[float, Plan]:
        """The time for an iteration, and the plan."""
        lanes = self.lanes(lane, jam)
        along: dict[tuple[int, int], int] = {}
        time = 2.0 * sum(self.loads(x, lane, jam, lanes) for _, x in self.nest.stores)
        for k, step in enumerate(self.nest.steps):
            copies = math.prod(jam[d] for d in step.dims)
            if not step.parts:
                time += copies * cost(step.op)
                time += sum(self.loads(x, lane, jam, lanes) for x in step.inputs)
            for j, part in enumerate(step.parts):
                best = self.across_time(step, part, lane, jam, lanes)
                for e in self.ways(part):
                    other = self.along_time(step, part, e, lane, jam, lanes)
                    if other < best:
                        best, along[k, j] = other, e
                time += best
        return time / (math.prod(jam) * lanes), Plan(lane, jam, self.order(lane), along)

    def lanes(self, lane: int | None, jam: Dims) -> float:
        """How many lanes are in use, on average."""
        if lane is None:
            return 1
        extent = self.extents[lane]
        if self.nest.extents[lane] is None:  # what is left over is done one by one
            return extent / (extent // self.width + extent % self.width)
        vectors = -(-extent // self.width)
        return extent / max(vectors, -(-vectors // jam[lane]) * jam[lane])

    def loads(self, x: Input, lane: int | None, jam: Dims, lanes: float) -> float:
        """The time to load x for a tile: what does not go by steps of 1 in the lanes is put together one by one."""
        if not isinstance(x, Place):
            return 0
        copies = math.prod(k for d, k in enumerate(jam) if x.moves(d))
        return copies if lane is None or x.stride(lane) in (0, 1) else copies * 2 * lanes

    def across_time(self, step: NestStep, part: Part, lane: int | None, jam: Dims, lanes: float) -> float:
        copies = math.prod(jam[d] for d in step.dims)
        loads = sum(self.loads(x, lane, jam, lanes) for x in part.factors)
        wait = LATENCY if part.extents else 1
        return self.work(part) * (max(loads, copies, wait, copies * self.extra(step)) + 1)

    def along_time(self, step: NestStep, part: Part, e: int, lane: int | None, jam: Dims, lanes: float) -> float:
        copies = math.prod(jam[d] for d in step.dims)
        width = lanes if lane in step.dims else 1.0
        chunk = min(width, max(1, self.sums // copies))
        loads = 0.0
        for x in part.factors:
            if isinstance(x, Place):
                loads += self.loads(x, None, jam, 1) * (chunk if lane is not None and x.moves(lane) else 1)
        extent = self.extent(part.extents[e])
        vectors = self.work(part) / extent * -(-extent // self.width)
        ends = 3 * max(width, math.log2(self.width)) * copies
        return vectors * (max(loads, copies * chunk, copies * self.extra(step)) + 1) * width / chunk + ends

    def extra(self, step: NestStep) -> float:
        """The time that an input takes, other than to multiply and add it."""
        return 2 * cost("exp") if step.op == "logsumexp" else 0

    def ways(self, part: Part) -> list[int]:
        """The dims of the segment along which vectors may go: all factors go by steps of 1, or stay."""
        n = len(self.nest.extents)
        ways = []
        for e, extent in enumerate(part.extents):
            strides = {x.stride(n + e) for x in part.factors if isinstance(x, Place)}
            if extent is not None and extent >= 4 and self.work(part) > SHORT and 1 in strides and strides <= {0, 1}:
                ways.append(e)
        return ways

    def order(self, lane: int | None) -> Dims:
        """As written, the lanes innermost; in a nest with long sums the samples are, since they share the weights."""
        dims = list(range(len(self.extents)))
        long = any(p.extents for s in self.nest.steps for p in s.parts)
        samples = [d for d in dims if self.nest.extents[d] is None and d != lane]
        last = samples if long and samples else [d for d in dims if d == lane]
        return (*[d for d in dims if d not in last], *last)

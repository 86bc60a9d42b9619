"""What the passes hand to each other at the end: a program of loops over arrays, as plain data.

`reroll` makes it, `batch` and `fuse` change it, the two emitters turn it into code. Nothing here computes, except
`interpret`, which runs a program one number at a time: slow, obvious, and what the emitters are tested against.

    Array      a run of numbers in memory
    Access     which of its numbers an iteration of a loop means: base + Σ i_d·stride_d, or a table of indices
    Loop       a nest of loops; in each iteration it takes a few steps, and stores some of their results
    Step       one number computed in an iteration: Apply, an op of the table, or Reduce, an inner loop
    Segment    a run of inputs of a Reduce: the loops to run over, and the factors whose product is an input

An array is written by one loop and read by later ones, except for those that last from call to call ("leaf" and
"state"), which a program may change in place; then no later loop reads the old number.

Samples: a program may be run for n samples at once, n being known at run time only. An array that is `per_sample` has
n rows of `size` numbers; a loop that is `per_sample` runs for each sample (think of one more loop around it), and in
it each access to such an array means the row of that sample. A segment that is `over_samples` (in a loop that is not
per_sample) adds up over the rows of all samples, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, NamedTuple, TypeAlias

from milligrad.engine import Op

SHORT = 8  # a sum of up to so many terms is added from left to right by every backend; a longer one in any order

Dims: TypeAlias = tuple[int, ...]


@dataclass(eq=False, slots=True)
class Array:
    """A run of `size` numbers in memory.

    role:        input      numbers the caller hands in
                 leaf       numbers of captured Values, such as parameters: they last from call to call
                 state      what an optimizer remembers: lasts from call to call
                 constant   numbers known when the program was made: `values`
                 value      computed by the program and read by it only
                 output     computed by the program and read by the caller
    per_sample:  whether it has a row of `size` numbers for each sample
    """

    name: str
    size: int
    role: str
    per_sample: bool = False
    values: tuple[float, ...] = ()

    def __repr__(self) -> str:
        return f"{self.name}[{'n, ' * self.per_sample}{self.size}]"


class Access(NamedTuple):
    """One number of `array` for each iteration.

    With i the indices of all loops around it, outermost first (of the nest, then of the segment), it is the number at
    base + Σ i_d·strides_d. With a `table`, it is the number at table[k] instead, where k counts the iterations of
    those loops, innermost fastest; base and strides mean nothing then.
    """

    array: Array
    base: int = 0
    strides: Dims = ()
    table: tuple[int, ...] | None = None


class Ref(NamedTuple):
    """The result of the step number `step` of the same loop."""

    step: int


Operand: TypeAlias = "Access | Ref | float"


class Apply(NamedTuple):
    """An op of the table (of a fixed number of inputs), or of a comparison, of single numbers."""

    op: Op
    inputs: tuple[Operand, ...]


class Segment(NamedTuple):
    """Inputs of a Reduce: for each iteration of the loops `dims` (none: once) the product of one or two factors."""

    dims: Dims
    factors: tuple[Operand, ...]
    over_samples: bool = False


class Reduce(NamedTuple):
    """An op of any number of inputs, `sum`, `prod`, `max`, `min` or `logsumexp`, over all its segments together.

    Only of `sum` the segments may have two factors or be `over_samples`.
    """

    op: Op
    segments: tuple[Segment, ...]


Step: TypeAlias = "Apply | Reduce"


@dataclass(eq=False, slots=True)
class Loop:
    """A nest of loops with the extents `dims`, outermost first; () is a single iteration.

    No iteration depends on another one. In each, `steps` are taken in order, then `stores` written: (step, place).
    """

    dims: Dims
    steps: list[Step]
    stores: list[tuple[int, Access]]
    per_sample: bool = False


@dataclass(eq=False, slots=True)
class Program:
    """Loops to run one after the other, and the arrays that they run over."""

    arrays: list[Array]
    loops: list[Loop]
    info: dict[str, Any] = field(default_factory=dict)

    def array(self, name: str) -> Array:
        """The array of that name."""
        return next(a for a in self.arrays if a.name == name)


def size(dims: Sequence[int]) -> int:
    """How many iterations the nest `dims` has."""
    return math.prod(dims)


def operands(step: Step) -> Sequence[Operand]:
    """All operands of the step."""
    return step.inputs if isinstance(step, Apply) else [x for s in step.segments for x in s.factors]


def accesses(loop: Loop) -> Iterator[Access]:
    """Every access by which the loop reads."""
    for step in loop.steps:
        yield from [x for x in operands(step) if isinstance(x, Access)]


def accesses_within(loop: Loop) -> Iterator[tuple[Access, Dims]]:
    """The same, each with the extents of the loops around it: those of the nest, and then of the segment."""
    for step in loop.steps:
        if isinstance(step, Apply):
            yield from [(x, loop.dims) for x in step.inputs if isinstance(x, Access)]
        else:
            for s in step.segments:
                yield from [(x, loop.dims + s.dims) for x in s.factors if isinstance(x, Access)]


def mapped(step: Step, f: Callable[[Operand, Dims], Operand], dims: Dims) -> Step:
    """The step of a nest `dims` with f(operand, the extents of the loops around it) for each operand."""
    if isinstance(step, Apply):
        return Apply(step.op, tuple([f(x, dims) for x in step.inputs]))
    segments = [Segment(s.dims, tuple([f(x, dims + s.dims) for x in s.factors]), s.over_samples) for s in step.segments]
    return Reduce(step.op, tuple(segments))


def interpret(program: Program, memory: dict[Array, list[float]], n: int = 1) -> None:
    """Run `program` for n samples on `memory`, one number at a time; lists for values and outputs are made here."""
    for array in program.arrays:
        if array.role == "constant":
            memory[array] = list(array.values)
        elif array not in memory:
            memory[array] = [math.nan] * (array.size * (n if array.per_sample else 1))
    for loop in program.loops:
        for sample in range(n if loop.per_sample else 1):
            for i in product(*map(range, loop.dims)):
                _iterate(loop, i, sample, n, memory)


def _iterate(loop: Loop, i: Dims, sample: int, n: int, memory: dict[Array, list[float]]) -> None:
    results: list[float] = []

    def index(x: Access, i: Dims, dims: Dims, sample: int) -> int:
        if x.table is not None:
            k = 0
            for j, extent in zip(i, dims, strict=True):
                k = k * extent + j
            at = x.table[k]
        else:
            at = x.base + sum(j * stride for j, stride in zip(i, x.strides, strict=True))
        assert 0 <= at < x.array.size
        return at + (sample * x.array.size if x.array.per_sample else 0)

    def read(x: Operand, i: Dims, dims: Dims, sample: int) -> float:
        if isinstance(x, Access):
            return memory[x.array][index(x, i, dims, sample)]
        return results[x.step] if isinstance(x, Ref) else x

    for step in loop.steps:
        if isinstance(step, Apply):
            xs = [read(x, i, loop.dims, sample) for x in step.inputs]
        else:
            xs = [
                math.prod(read(x, i + j, loop.dims + segment.dims, s) for x in segment.factors)
                for segment in step.segments
                for s in (range(n) if segment.over_samples else [sample])
                for j in product(*map(range, segment.dims))
            ]
        results.append(step.op.value(*xs))
    for k, place in loop.stores:
        memory[place.array][index(place, i, loop.dims, sample)] = results[k]

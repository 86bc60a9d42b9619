"""Loops in the form that the native backend works on: the samples are one more loop, and tables are for the irregular.

    dim       one loop of a nest or of a segment; an extent of None is the samples, whose number is known at run time
    place     what an access is here: strides over all dims, that of the samples included
    slot      the place of an array's pointer in the table of pointers that machine code is called with

Nothing here knows of vectors or of LLVM: this makes nests as simple as can be, and alike ones equal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple, TypeAlias

from milligrad.compiler.program import Access, Apply, Array, Dims, Loop, Program, Reduce, Ref, Segment, size
from milligrad.compiler.spelling import FOLDS, check_is_row
from milligrad.ops import TABLE

Extents: TypeAlias = "tuple[int | None, ...]"
FOLDED = {*FOLDS, "logsumexp"}  # the ops that a Reduce may have


class Place(NamedTuple):
    """The number of the array in `slot` at base + Σ i_d·strides_d.

    If it has a table, the table's entry at Σ i_d·table_strides_d comes on top of that; the table starts at `table` in
    the one array of all tables.
    """

    slot: int
    base: int
    strides: Dims
    table: int
    table_strides: Dims

    def moves(self, d: int) -> bool:
        """Whether it depends on the dim d."""
        return self.strides[d] != 0 or self.table_strides[d] != 0

    def stride(self, d: int) -> int | None:
        """How far it goes with each iteration of the dim d; None if that is not always the same."""
        return None if self.table_strides[d] else self.strides[d]


class Constant(NamedTuple):
    """A number, as `float.hex` writes it: 0.0 and -0.0 are equal, but loops that differ in them are not."""

    hex: str

    @property
    def value(self) -> float:
        return float.fromhex(self.hex)


Input: TypeAlias = "Place | Ref | Constant"


class Part(NamedTuple):
    """A segment: the extents of its dims, and its factors, whose strides are of the nest's dims and then of its own."""

    extents: Extents
    factors: tuple[Input, ...]


class NestStep(NamedTuple):
    """A step: the inputs of an Apply or the parts of a Reduce, and the dims of the nest that its result depends on."""

    op: str
    inputs: tuple[Input, ...]
    parts: tuple[Part, ...]
    dims: frozenset[int]


class Nest(NamedTuple):
    """A Loop."""

    extents: Extents
    steps: tuple[NestStep, ...]
    stores: tuple[tuple[int, Place], ...]

    def places(self) -> list[Place]:
        """All that it reads, then all that it writes."""
        inputs = chain(*[chain(s.inputs, *[p.factors for p in s.parts]) for s in self.steps])
        return [x for x in inputs if isinstance(x, Place)] + [x for _, x in self.stores]

    @property
    def sampled(self) -> bool:
        """Whether it has to know the number of samples."""
        return None in chain(self.extents, *[p.extents for s in self.steps for p in s.parts])

    def replaced(self, extents: Extents, change: Callable[[Place], Place]) -> Nest:
        """The nest with other extents, and other places."""

        def changed(xs: tuple[Input, ...]) -> tuple[Input, ...]:
            return tuple([change(x) if isinstance(x, Place) else x for x in xs])

        steps: list[NestStep] = []
        for s in self.steps:
            parts = [Part(p.extents, changed(p.factors)) for p in s.parts]
            steps.append(nest_step(s.op, changed(s.inputs), tuple(parts), steps, len(extents)))
        return Nest(extents, tuple(steps), tuple([(k, change(x)) for k, x in self.stores]))


def nest_step(
    op: str, inputs: tuple[Input, ...], parts: tuple[Part, ...], earlier: Sequence[NestStep], dims: int
) -> NestStep:
    """A step of a nest of that many dims, after the `earlier` ones."""
    depends: set[int] = set()
    for x in chain(inputs, *[part.factors for part in parts]):
        if isinstance(x, Ref):
            depends |= earlier[x.step].dims
        elif isinstance(x, Place):
            depends.update([d for d in range(dims) if x.moves(d)])
    return NestStep(op, inputs, parts, frozenset(depends))


class Layout:
    """Where the arrays of a program stand in the table of pointers, and all its index tables, one after the other.

    With a capacity of one sample there is no loop over samples at all.
    """

    def __init__(self, program: Program, capacity: int) -> None:
        self.slots: dict[Array, int] = {a: i for i, a in enumerate(program.arrays)}
        self.tables_slot = len(program.arrays)
        self.capacity = capacity
        self.tables: list[int] = []
        self._starts: dict[Dims, int] = {}

    def nest(self, loop: Loop) -> Nest:
        """The loop as a nest."""
        sampled = loop.per_sample and self.capacity > 1
        extents: Extents = (None,) * sampled + tuple(loop.dims)
        steps: list[NestStep] = []
        for step in map(reduction, loop.steps):
            check_is_row(step.op)  # by its name it is known from here on
            inputs: list[Input] = []
            parts: list[Part] = []
            if isinstance(step, Apply):
                inputs = [self._input(x, loop.dims, sampled) for x in step.inputs]
            else:
                parts = [self._part(s, loop.dims, sampled) for s in step.segments]
            steps.append(nest_step(step.op.name, tuple(inputs), tuple(parts), steps, len(extents)))
        stores = [(k, self._place(x, loop.dims, sampled)) for k, x in loop.stores]
        return simplified(Nest(extents, tuple(steps), tuple(stores)))

    def _part(self, s: Segment, dims: Dims, sampled: bool) -> Part:
        over = s.over_samples and self.capacity > 1
        factors = [self._input(x, dims, sampled, tuple(s.dims), over) for x in s.factors]
        return Part((None,) * over + tuple(s.dims), tuple(factors))

    def _input(self, x: Any, dims: Dims, sampled: bool, inner: Dims = (), over: bool = False) -> Input:
        if isinstance(x, Access):
            return self._place(x, dims, sampled, inner, over)
        return x if isinstance(x, Ref) else Constant(float(x).hex())

    def _place(self, x: Access, dims: Dims, sampled: bool, inner: Dims = (), over: bool = False) -> Place:
        regular: tuple[Dims, int, Dims, Dims] = tuple(x.strides), x.base, (), (0,) * len(dims + inner)
        strides, base, entries, steps = regular if x.table is None else untabled(x.table, tuple(dims) + inner)
        row = x.array.size if x.array.per_sample else 0
        outer, between, k = (0 if over else row,) * sampled, (row,) * over, len(dims)
        return Place(
            self.slots[x.array],
            base,
            (*outer, *strides[:k], *between, *strides[k:]),
            self._start(entries) if entries else -1,
            (*(0,) * sampled, *steps[:k], *(0,) * over, *steps[k:]),
        )

    def _start(self, entries: Dims) -> int:
        if entries not in self._starts:
            self._starts[entries] = len(self.tables)
            self.tables.extend(entries)
        return self._starts[entries]


def reduction(step: Any) -> Any:
    """An Apply of an op of any number of inputs as the Reduce that it is."""
    op: Any = step.op
    if isinstance(step, Reduce) or op.name not in FOLDED | {"dot"} or TABLE[op.name] is not op:
        return step
    xs, n = step.inputs, len(step.inputs) // 2
    products = zip(xs[:n], xs[n:]) if op.name == "dot" else zip(xs)
    return Reduce(TABLE["sum"] if op.name == "dot" else op, tuple([Segment((), x) for x in products]))


def untabled(table: Sequence[int], dims: Dims) -> tuple[Dims, int, Dims, Dims]:
    """Strides, a base, the entries that are still needed, and their strides.

    A dim along which all entries grow alike needs no table. Often one of several dims is irregular, and it alone
    keeps one: of the rows of a matrix, say, any may be meant, but always all of the row.
    """
    strides, steps, entries = [0] * len(dims), [0] * len(dims), list(table)
    for d, extent in enumerate(dims):
        inner = size(dims[d + 1 :])
        step = entries[inner] - entries[0] if extent > 1 else 0
        heads = [x for b in range(0, len(entries), extent * inner) for x in entries[b : b + inner]]
        if _grow_alike(entries, heads, extent, inner, step):
            strides[d], entries = step, heads
        else:
            steps = [k * extent for k in steps]
            steps[d] = 1
    if len(entries) == 1:
        return tuple(strides), entries[0], (), tuple(steps)
    return tuple(strides), 0, tuple(entries), tuple(steps)


def _grow_alike(entries: list[int], heads: list[int], extent: int, inner: int, step: int) -> bool:
    """Whether entries (blocks × extent × inner) are heads (blocks × inner) and i·step, i being the middle index."""
    for i in range(1, extent):
        row = [x for b in range(i * inner, len(entries), extent * inner) for x in entries[b : b + inner]]
        if row != [x + i * step for x in heads]:
            return False
    return True


def simplified(nest: Nest) -> Nest:
    """The nest without dims of one iteration, and with two dims made one where every access goes on steadily."""
    places, extents = nest.places(), list(nest.extents)
    kept: list[int] = []  # the dims whose strides count
    for d, extent in enumerate(extents):
        if extent == 1:
            continue
        outer = extents[kept[-1]] if kept else None
        if outer is not None and extent is not None and _mergeable(places, kept[-1], d, extent):
            kept[-1], extents[d] = d, outer * extent
        else:
            kept.append(d)
    n = len(extents)

    def cut(strides: Dims) -> Dims:
        return (*[strides[d] for d in kept], *strides[n:])

    def change(x: Place) -> Place:
        return x._replace(strides=cut(x.strides), table_strides=cut(x.table_strides))

    return nest if len(kept) == n else nest.replaced(tuple([extents[d] for d in kept]), change)


def _mergeable(places: list[Place], outer: int, inner: int, extent: int) -> bool:
    return all(
        x.strides[outer] == extent * x.strides[inner] and x.table_strides[outer] == extent * x.table_strides[inner]
        for x in places
    )


def anonymous(nest: Nest, tables_slot: int) -> tuple[Nest, list[tuple[int, int]]]:
    """The nest with its arrays numbered by themselves, and which they are: (slot, the least base of an access to it).

    Loops that do the same to different arrays become equal, and share their machine code: of 550 loops of 50 equal
    layers 16 were left, and LLVM took 0.15 s instead of 2.7. Tables are numbered along.
    """
    bases: dict[int, int] = {}
    for x in nest.places():
        bases[x.slot] = min(x.base, bases.get(x.slot, x.base))
    numbers: dict[tuple[int, int], int] = {}

    def change(x: Place) -> Place:
        base = bases[x.slot]
        slot = numbers.setdefault((x.slot, base), len(numbers))
        table = numbers.setdefault((tables_slot, x.table), len(numbers)) if any(x.table_strides) else -1
        return x._replace(slot=slot, base=x.base - base, table=table)

    return nest.replaced(nest.extents, change), list(numbers)

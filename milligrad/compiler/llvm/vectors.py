"""The native backend: a program of loops as LLVM's intermediate representation, one function for each loop.

What a compiler usually has to find out, a program says: which iterations may be taken in any order, and how far each
access goes. So this writes the loops as they are to run, in vectors, with the numbers of a tile in registers
(`tiling.py` says how), and LLVM only chooses instructions. It is no general compiler: its input is `program.py`'s
loops, and no more.

    nests.py         loops, simplified, alike ones equal
    tiling.py        the plan for a nest: lanes, tiles, order
    instructions.py  arithmetic that writes instructions, and the ops
    vectors.py       this: from nests and plans to instructions
    around.py        the loops around the whole program, over rows and over batches
    native.py        machine code, and its memory
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import reduce
from itertools import chain, product
from typing import NamedTuple, TypeAlias

from milligrad.compiler.llvm.around import around
from milligrad.compiler.llvm.instructions import DTYPES, Code, Machine, Num, vector
from milligrad.compiler.llvm.native import Machinery, Native, buffer, host
from milligrad.compiler.llvm.nests import FOLDED, Constant, Input, Layout, Nest, NestStep, Part, Place, anonymous
from milligrad.compiler.llvm.tiling import Planner
from milligrad.compiler.program import SHORT, Program, Ref
from milligrad.compiler.spelling import FOLDS, Fold, Owner, logsumexp, rest_folds, spelled

__all__ = ["Native", "buffer", "build", "emit"]

Index: TypeAlias = "tuple[tuple[Num | None, int], ...]"  # for each dim a loop's variable, and what to add to it
Sums: TypeAlias = "list[Num | None]"  # None: nothing so far


def build(program: Program, capacity: int = 1, dtype: str = "float64") -> Native:
    """Machine code for `program`, which runs it for up to `capacity` samples at once.

    dtype:  "float64" or "float32": what all its arrays consist of. Raises ImportError if llvmlite is missing.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")
    if capacity < 1:
        raise ValueError(f"capacity: expected at least 1, got {capacity}")
    machine, started = host(), time.perf_counter()
    layout = Layout(program, capacity)
    source = emit(program, layout, dtype, machine)
    return Native(Machinery(source, layout, dtype, machine, time.perf_counter() - started))


def emit(program: Program, layout: Layout, dtype: str, machine: Machine) -> str:
    """The module: a function for each loop, `run` that calls them in turn, and `rows` and `epoch` around it."""
    declared: dict[str, str] = {}
    functions: dict[Nest, tuple[str, str]] = {}  # name and text
    calls: list[str] = []
    _, of, width = DTYPES[dtype]
    for loop in program.loops:
        nest, pointers = anonymous(layout.nest(loop), layout.tables_slot)
        if nest not in functions:
            name = f"loop{len(functions)}"
            functions[nest] = name, NestCode(nest, layout.capacity, Code(dtype, machine, declared)).function(name)
        given = []
        for slot, base in pointers:  # loaded anew for each call: to keep hundreds of them takes LLVM twice the time
            k, kind = len(calls), "i32" if slot == layout.tables_slot else of
            calls.append(f"  %t{k} = getelementptr ptr, ptr %table, i64 {slot}\n  %p{k} = load ptr, ptr %t{k}")
            calls.append(f"  %a{k} = getelementptr {kind}, ptr %p{k}, i64 {base}")
            given.append(f"ptr %a{k}")
        calls.append(f"  call void @{functions[nest][0]}({', '.join(given + ['i64 %n'] * nest.sampled)})")
    run = ["define void @run(ptr %table, i64 %n) #0 {", *calls, "  ret void", "}"]
    return "\n".join([*[text for _, text in functions.values()], *run, *declared.values(), around(of, width)])


class Copy(NamedTuple):
    """One of the iterations, or vectors of iterations, that a tile takes together; and the results of its steps."""

    at: Index
    lanes: int
    results: list[Num]


class NestCode:
    """A nest, written as a function."""

    def __init__(self, nest: Nest, capacity: int, code: Code) -> None:
        self.nest, self.code = nest, code
        planner = Planner(nest, code.width, code.machine.registers, capacity)
        self.plan, self.registers = planner.plan(), planner.sums

    def function(self, name: str) -> str:
        """Its text. It takes the pointers, in the order in which `anonymous` numbers them, and perhaps n."""
        self.loops(0, [[(None, 0, 1)]] * len(self.nest.extents))
        pointers = {k for x in self.nest.places() for k in (x.slot, x.table) if k >= 0}
        parameters = [f"ptr noalias nocapture %a{k}" for k in sorted(pointers)] + ["i64 %n"] * self.nest.sampled
        lines = [f"define internal void @{name}({', '.join(parameters)}) #0 {{", "entry:", *self.code.scopes[0].lines]
        return "\n".join([*lines, "  ret void", "}"])

    # The loops of the nest, and a tile.

    def loops(self, level: int, copies: list[list[tuple[Num | None, int, int]]]) -> None:
        """The loops from that level on; `copies` are for each dim (variable, what to add, lanes), of those outside."""
        if level == len(self.plan.order):
            self.tile(copies)
            return
        d = self.plan.order[level]
        for start, stop, step, sure, offsets in self.ranges(d):
            if isinstance(start, int) and isinstance(stop, int) and stop - start <= step:
                copies[d] = [(None, start + offset, lanes) for offset, lanes in offsets]
                self.loops(level + 1, copies)
            else:
                i, _ = self.code.open(start, stop, step, sure)
                copies[d] = [(i, offset, lanes) for offset, lanes in offsets]
                self.loops(level + 1, copies)
                self.code.close()

    def ranges(self, d: int) -> list[tuple[int | str, int | str, int, bool, list[tuple[int, int]]]]:
        """The loops that make up the dim d: (start, stop, step, whether it is sure to run, (offset, lanes) of copies).

        There is one for whole tiles, and one for what is left. Of the samples that is done one by one.
        """
        extent, jam = self.nest.extents[d], self.plan.jam[d]
        width = self.code.width if d == self.plan.lane else 1
        step = jam * width
        whole = [(k * width, width) for k in range(jam)]
        if extent is None:
            if step == 1:
                return [(0, "%n", 1, True, whole)]
            end = self.code.put(f"and i64 %n, {-step}", 0)
            return [(0, end, step, False, whole), (end, "%n", 1, False, [(0, 1)])]
        full = extent // step * step
        left = [(k, min(width, extent - full - k)) for k in range(0, extent - full, width)]
        ranges: list[tuple[int | str, int | str, int, bool, list[tuple[int, int]]]] = []
        if full:
            ranges.append((0, full, step, True, whole))
        if left:
            ranges.append((full, extent, step, True, left))
        return ranges

    def tile(self, copies: list[list[tuple[Num | None, int, int]]]) -> None:
        """All steps of all copies, and then the stores: none of the copies reads what another one writes."""
        lane = self.plan.lane
        tile = [
            Copy(tuple([(i, offset) for i, offset, _ in choice]), 1 if lane is None else choice[lane][2], [])
            for choice in product(*copies)
        ]
        for k, step in enumerate(self.nest.steps):
            self.step(k, step, tile)
        for k, place in self.nest.stores:
            for copy in tile:
                self.store(place, copy, copy.results[k])

    def step(self, k: int, step: NestStep, tile: list[Copy]) -> None:
        """The results of the step number k. For copies that it does not tell apart it is done once."""
        alike: dict[Index, list[Copy]] = {}
        for copy in tile:
            alike.setdefault(tuple([copy.at[d] for d in sorted(step.dims)]), []).append(copy)
        firsts = [same[0] if self.plan.lane in step.dims else same[0]._replace(lanes=1) for same in alike.values()]
        results = self.reduced(k, step, firsts) if step.op in FOLDED else [self.apply(step, x) for x in firsts]
        for same, z in zip(alike.values(), results):
            for copy in same:
                copy.results.append(z)

    def apply(self, step: NestStep, copy: Copy) -> Num:
        xs = [x.value if isinstance(x, Constant) else self.input(x, copy) for x in step.inputs]
        return spelled(self.code, step.op, *xs)

    def input(self, x: Input, copy: Copy, inner: Index = ()) -> Num:
        """The number for all lanes of the copy; `inner` are the indices of the segment's loops."""
        if isinstance(x, Place):
            return self.load(x, copy.at + inner, self.plan.lane, copy.lanes)
        return copy.results[x.step] if isinstance(x, Ref) else self.code.num(x.value)

    # Memory.

    def load(self, place: Place, at: Index, lane: int | None, lanes: int) -> Num:
        """The numbers at `at` and on along the dim `lane`; a single one if they are all the same."""
        if lanes == 1 or lane is None or not place.moves(lane):
            return self.read(place, at, 1)
        if place.stride(lane) == 1:
            return self.read(place, at, lanes)
        if place.stride(lane) == -1:
            x = self.read(place, moved(at, lane, lanes - 1), lanes)
            return self.code.shuffled(x, x, range(lanes)[::-1])
        return self.code.gathered([self.read(place, moved(at, lane, i), 1) for i in range(lanes)])

    def read(self, place: Place, at: Index, lanes: int) -> Num:
        """A load, in the outermost loop that knows the pointer: no iteration reads what another one writes."""
        form = f"load {vector(self.code.of, lanes)}, ptr {{}}, align {self.code.bytes}"
        return self.code.emit(form, (self.pointer(place, at),), self.code.of, lanes)

    def store(self, place: Place, copy: Copy, x: Num) -> None:
        code, lane, lanes = self.code, self.plan.lane, copy.lanes
        if lanes == 1 or lane is None or not place.moves(lane):
            code.store(code.lane(x, lanes - 1), self.pointer(place, copy.at))
        elif place.stride(lane) == 1:
            code.store(code.spread(x, lanes), self.pointer(place, copy.at))
        else:
            for i in range(lanes):
                code.store(code.lane(x, i), self.pointer(place, moved(copy.at, lane, i)))

    def pointer(self, place: Place, at: Index, of: str = "") -> Num:
        """Where the number is. What the outer loops add to it is computed in them."""
        fixed = place.base + sum([stride * offset for stride, (_, offset) in zip(place.strides, at)])
        moving = [(i, stride) for stride, (i, _) in zip(place.strides, at) if i is not None and stride]
        z = Num(self.code, f"%a{place.slot}", 0, 1, "ptr")
        offset = self.total(moving, self.entry(place, at))
        for x in (offset, Num(self.code, str(fixed), 0, 1, "i64") if fixed else None):
            if x is not None:
                z = self.code.emit(f"getelementptr {of or self.code.of}, ptr {{}}, i64 {{}}", (z, x), "ptr")
        return z

    def total(self, terms: list[tuple[Num, int]], z: Num | None) -> Num | None:
        """z + Σ variable·stride, the outer loops first."""
        for i, stride in sorted(terms, key=lambda term: term[0].depth):
            x = i if stride == 1 else self.code.emit(f"mul nsw i64 {{}}, {stride}", (i,), "i64")
            z = x if z is None else self.code.emit("add nsw i64 {}, {}", (z, x), "i64")
        return z

    def entry(self, place: Place, at: Index) -> Num | None:
        """The entry of the place's table, if it has one."""
        if not any(place.table_strides):
            return None
        table = Place(place.table, 0, place.table_strides, -1, (0,) * len(at))
        entry = self.code.emit("load i32, ptr {}, align 4", (self.pointer(table, at, "i32"),), "i32")
        return self.code.emit("sext i32 {} to i64", (entry,), "i64")

    # Reduce.

    def reduced(self, k: int, step: NestStep, tile: list[Copy]) -> list[Num]:
        """The results of a Reduce for the copies."""
        if step.op != "logsumexp":
            return [z for (z,) in self.folded(k, step, tile, [FOLDS[step.op]])]
        largest = [z for (z,) in self.folded(k, step, tile, [FOLDS["max"]])]

        def of_owner(owner: Owner) -> Num:
            copy, lane = owner
            return largest[copy] if lane is None else self.code.lane(largest[copy], lane)

        sums = self.folded(k, step, tile, rest_folds(of_owner))
        return [logsumexp(m, rest, equals) for m, (rest, equals) in zip(largest, sums)]

    def folded(self, k: int, step: NestStep, tile: list[Copy], folds: list[Fold]) -> list[list[Num]]:
        """For each copy what each of the folds makes of all inputs. Long sums start with parts without loops."""
        sums: list[Sums] = [[None] * len(folds) for _ in tile]
        parts = [*enumerate(step.parts)]
        if sum([math.prod([e or SHORT + 1 for e in part.extents]) for part in step.parts]) > SHORT:
            parts.sort(key=lambda part: bool(part[1].extents))
        for j, part in parts:
            if (k, j) not in self.plan.along:
                sums = self.across(part, tile, folds, sums)
        for j, part in parts:
            if (k, j) in self.plan.along:
                found = Along(self, part, self.plan.along[k, j], tile, folds).sums()
                sums = [[joined(*z) for z in zip(folds, mine, new)] for mine, new in zip(sums, found)]
        return [[self.code.num(f.identity) if z is None else z for f, z in zip(folds, mine)] for mine in sums]

    def across(self, part: Part, tile: list[Copy], folds: list[Fold], sums: list[Sums]) -> list[Sums]:
        """Go through the inputs one by one, each for all copies."""
        n = len(folds)

        def body(inner: Index, sums: Sums) -> Sums:
            results: Sums = []
            for c, copy in enumerate(tile):
                factors = [self.input(x, copy, inner) for x in part.factors]
                results += [f.take((c, None), z, factors) for f, z in zip(folds, sums[c * n : (c + 1) * n])]
            return results

        nothing = [(f.identity, copy.lanes) for copy in tile for f in folds]
        z = self.segment(part.extents, (), list(chain(*sums)), nothing, body)
        return [z[c * n : (c + 1) * n] for c in range(len(tile))]

    def segment(
        self,
        extents: Sequence[int | None],
        at: Index,
        sums: Sums,
        nothing: list[tuple[float, int]],
        body: Callable[[Index, Sums], Sums],
    ) -> Sums:
        """Loops over the extents around `body`, which hand the sums on; written out where that is little text.

        nothing:  for each of the sums what to start a loop from where there is none so far: (number, lanes)
        """
        if not extents:
            return body(at, sums)
        extent, *rest = extents
        if extent is not None and None not in rest:
            iterations = extent * math.prod([e or 1 for e in rest])
            if iterations * len(sums) <= 16:
                for i in range(extent):
                    sums = self.segment(rest, (*at, (None, i)), sums, nothing, body)
                return sums
        j, carried = self.code.open(0, "%n" if extent is None else extent, 1, True, self.started(sums, nothing))
        return [*self.code.close(present(self.segment(rest, (*at, (j, 0)), [*carried], nothing, body)))]

    def started(self, sums: Sums, nothing: list[tuple[float, int]]) -> list[Num]:
        code = self.code
        return [code.spread(code.num(x) if z is None else z, lanes) for z, (x, lanes) in zip(sums, nothing)]


class Along:
    """A part of a Reduce by vectors that go along the dim e of the segment: one for each lane of each copy, its row.

    As many rows are taken together as there are registers for.
    """

    def __init__(self, nest: NestCode, part: Part, e: int, tile: list[Copy], folds: list[Fold]) -> None:
        self.nest, self.code, self.part, self.e, self.tile, self.folds = nest, nest.code, part, e, tile, folds
        extent = part.extents[e]
        assert extent is not None
        self.width = min(nest.code.width, 1 << (extent - 1).bit_length())
        self.whole, self.left = divmod(extent, self.width)

    def sums(self) -> list[list[Num]]:
        """For each copy the result of each fold, in the lanes of the copy."""
        lanes, together = max([copy.lanes for copy in self.tile]), 1
        while together < min(lanes, 8) and 2 * together * len(self.tile) * len(self.folds) <= self.nest.registers:
            together *= 2
        pieces: list[list[list[Num]]] = [[[] for _ in self.folds] for _ in self.tile]
        for first in range(0, lanes, together):
            owners = [(c, i) for c, x in enumerate(self.tile) for i in range(first, min(first + together, x.lanes))]
            rows = dict(zip(owners, self.rows(owners)))
            for c, mine in enumerate(pieces):
                own = [z for (copy, _), z in rows.items() if copy == c]
                for f, fold in enumerate(self.folds if own else []):
                    mine[f].append(self.added_up([z[f] for z in own], fold))
        return [[self.code.joined(x) for x in mine] for mine in pieces]

    def rows(self, owners: list[tuple[int, int]]) -> list[list[Num]]:
        """For each row a vector for each fold, its numbers still to be added up."""
        total, n = len(owners) * len(self.folds), len(self.folds)
        streams = 1 if total >= 4 or self.whole < 8 else 4 // total  # a sum can be added to every four cycles only
        nothing = [(f.identity, self.width) for f in self.folds] * len(owners) * streams
        outer = [x for d, x in enumerate(self.part.extents) if d != self.e]

        def body(at: Index, sums: Sums) -> Sums:
            return self.body(at, sums, owners, streams, nothing)

        sums = self.nest.segment(outer, (), [None] * (total * streams), nothing, body)
        kinds = [f.join for f in self.folds] * len(owners)
        results = [reduce(join, [z for z in sums[k::total] if z is not None]) for k, join in enumerate(kinds)]
        return [results[o * n : (o + 1) * n] for o in range(len(owners))]

    def body(
        self, at: Index, sums: Sums, owners: list[tuple[int, int]], streams: int, nothing: list[tuple[float, int]]
    ) -> Sums:
        """The loop along the dim e, `at` being the indices of the others: whole vectors, and then what is left."""
        step, done, total = streams * self.width, 0, len(sums) // streams
        turns = self.whole // streams
        if turns > 2 and turns * len(sums) > 32:
            done = turns * streams
            i, carried = self.code.open(0, turns * step, step, True, self.nest.started(sums, nothing))
            handed: Sums = [*carried]
            for s in range(streams):
                handed[s * total : (s + 1) * total] = self.taken(
                    at, (i, s * self.width), handed[s * total : (s + 1) * total], owners, self.width
                )
            sums = [*self.code.close(present(handed))]
        sums = [*sums]
        for v in range(done, self.whole + bool(self.left)):
            s, lanes = v % streams, self.width if v < self.whole else self.left
            sums[s * total : (s + 1) * total] = self.taken(
                at, (None, v * self.width), sums[s * total : (s + 1) * total], owners, lanes
            )
        return sums

    def taken(
        self, at: Index, here: tuple[Num | None, int], sums: Sums, owners: list[tuple[int, int]], lanes: int
    ) -> Sums:
        """The sums with one more vector of inputs, from `here` on along the dim e, for each row."""
        results: Sums = []
        inner = (*at[: self.e], here, *at[self.e :])
        for o, (c, lane) in enumerate(owners):
            factors = [self.factor(x, self.tile[c], lane, inner, lanes) for x in self.part.factors]
            for f, fold in enumerate(self.folds):
                z = sums[o * len(self.folds) + f]
                if lanes == self.width:
                    z = self.code.spread(fold.take((c, lane), z, factors), lanes)
                else:
                    x = self.code.spread(fold.take((c, lane), None, factors), lanes)
                    z = joined(fold, z, self.code.padded(x, self.width, fold.identity))
                results.append(z)
        return results

    def factor(self, x: Input, copy: Copy, lane: int, inner: Index, lanes: int) -> Num:
        if not isinstance(x, Place):
            return self.code.lane(self.nest.input(x, copy), lane)
        d = self.nest.plan.lane
        at = copy.at if d is None or copy.lanes == 1 else moved(copy.at, d, lane)
        return self.nest.load(x, at + inner, len(at) + self.e, lanes)

    def added_up(self, rows: list[Num], fold: Fold) -> Num:
        """A vector of what the numbers of each row give together.

        Two rows at a time: the halves of both, side by side, are added, which leaves one vector for two rows, with
        each in half the lanes. For n rows of w lanes it takes about n + log₂ w additions rather than n·log₂ w.
        """
        n, lanes, groups = len(rows), self.width, 1
        rows = rows + rows[-1:] * ((1 << (n - 1).bit_length()) - n)
        while lanes > 1:
            pairs = list(zip(rows[::2], rows[1::2])) or [(rows[0], rows[0])]
            groups *= min(2, len(rows))
            lanes //= 2
            low = [2 * g * lanes + i for g in range(groups) for i in range(lanes)]
            high = [i + lanes for i in low]
            rows = [fold.join(self.code.shuffled(x, y, low), self.code.shuffled(x, y, high)) for x, y in pairs]
        z = self.code.joined(rows)
        return z if z.lanes == n else self.code.shuffled(z, z, range(n))


def joined(fold: Fold, z: Num | None, x: Num) -> Num:
    return x if z is None else fold.join(z, x)


def present(sums: Sums) -> list[Num]:
    """The sums, after an iteration, when none is None any more."""
    return [z for z in sums if z is not None]


def moved(at: Index, d: int, by: int) -> Index:
    """The index `by` iterations of the dim d further on."""
    i, offset = at[d]
    return (*at[:d], (i, offset + by), *at[d + 1 :])

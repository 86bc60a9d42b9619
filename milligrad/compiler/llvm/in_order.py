"""A rolled program as LLVM's intermediate representation: the same loops, with a register for each name.

One function, `sample`, runs the program for one sample; `run` calls it for each. Loops are written as they are; runs of
numbers that lie side by side are taken in vectors.
"""

from __future__ import annotations

import time
from itertools import chain
from typing import Any

from milligrad import ops
from milligrad.compiler.ir import Rolled
from milligrad.compiler.llvm.around import around
from milligrad.compiler.llvm.instructions import DTYPES, Code, Machine, Num, vector
from milligrad.compiler.llvm.native import Machinery, Native, host
from milligrad.compiler.passes.registers import (
    CONSTANTS,
    COUNT,
    OUTPUTS,
    PAIRS,
    VALUES,
    Assign,
    Cell,
    Entry,
    Extents,
    For,
    Give,
    Let,
    Linear,
    Load,
    Name,
    Set,
    Source,
    Step,
    Terms,
    sources_of,
    variable,
)
from milligrad.compiler.program import SHORT, Array, Program
from milligrad.compiler.spelling import CALL, FOLDS, Fold, check_is_row, cost, logsumexp, rest_folds, spelled


def is_flat(x: Step) -> bool:
    """Whether it is one statement, and no loop is needed for its terms."""
    if isinstance(x, Assign):
        return not any([t.length.terms or t.length.constant > SHORT for t in x.terms])
    return isinstance(x, (Load, Give))


def is_told(x: Linear) -> bool:
    """Whether it is a number, or one that the count alone tells."""
    return not {name for name, _ in x.terms} - {COUNT, PAIRS}


class Layout:
    """Where the arrays stand in the table of pointers: those of the program, the values, the constants, the table.

    That of a program with a count begins with the count.
    """

    def __init__(self, program: Program, rolled: Rolled, capacity: int, extents: Extents | None = None) -> None:
        self.values = Array(VALUES, max(rolled.values, 1), "value")
        constants = tuple(rolled.constants) or (0.0,)
        self.constants = Array(CONSTANTS, len(constants), "constant", values=constants)
        arrays = [*program.arrays, self.values, self.constants]
        self.slots: dict[Array, int] = {a: i for i, a in enumerate(arrays)}
        self.tables_slot = len(arrays)
        self.tables = [extents.variable, *rolled.table] if extents else rolled.table
        self.capacity = capacity


def build(
    program: Program, rolled: Rolled, steps: list[Step], capacity: int, dtype: str, extents: Extents | None = None
) -> Native:
    """Machine code for the program, whose arrays are leaves and, as the last one, the outputs."""
    machine, started = host(), time.perf_counter()
    layout = Layout(program, rolled, capacity, extents)
    source = emit(program, layout, steps, dtype, machine, extents)
    return Native(Machinery(source, layout, dtype, machine, time.perf_counter() - started, optimize=True))


def of_length(code: Native, program: Program, rolled: Rolled, capacity: int, extents: Extents) -> Native:
    """The machine code of a program with a count, for the arrays of another length."""
    return code.laid_out(Layout(program, rolled, capacity, extents))


def emit(
    program: Program, layout: Layout, steps: list[Step], dtype: str, machine: Machine, extents: Extents | None = None
) -> str:
    """The module."""
    declared: dict[str, str] = {}
    _, of, width = DTYPES[dtype]
    slots = range(layout.tables_slot + 1)
    printer = _Printer(program, layout, Code(dtype, machine, declared))
    if extents:
        printer.count()
    printer.steps(steps)
    arguments = ", ".join([f"ptr noalias nocapture %a{k}" for k in slots])
    sample = [f"define internal void @sample({arguments}) #0 {{", "entry:", *printer.code.scopes[0].lines]
    run = ["define void @run(ptr %table, i64 %n) #0 {", "entry:"]
    for k in slots:
        run += [f"  %t{k} = getelementptr ptr, ptr %table, i64 {k}", f"  %p{k} = load ptr, ptr %t{k}"]
    if extents:
        run += [f"  %c32 = load i32, ptr %p{layout.tables_slot}, align 4", "  %count = sext i32 %c32 to i64"]
    run += ["  br label %loop", "loop:", "  %i = phi i64 [ 0, %entry ], [ %j, %loop ]"]
    for a, k in layout.slots.items():
        if a.per_sample:
            size = str(a.size)
            if extents and a in extents.sizes:  # at + by·count
                form, size = extents.sizes[a], f"%s{k}"
                run += [f"  %m{k} = mul i64 %count, {form.step(COUNT)}", f"  {size} = add i64 %m{k}, {form.constant}"]
            run += [f"  %o{k} = mul i64 %i, {size}", f"  %q{k} = getelementptr {of}, ptr %p{k}, i64 %o{k}"]
    sampled = {k for a, k in layout.slots.items() if a.per_sample}
    given = [f"ptr %q{k}" if k in sampled else f"ptr %p{k}" for k in slots]
    run += [f"  call void @sample({', '.join(given)})"]
    run += ["  %j = add i64 %i, 1", "  %more = icmp ult i64 %j, %n", "  br i1 %more, label %loop, label %end", "end:"]
    ends = ["  ret void", "}"]
    return "\n".join([*sample, *ends, *run, *ends, *declared.values(), around(of, width)])


class _Printer:
    def __init__(self, program: Program, layout: Layout, code: Code) -> None:
        self.code, self.layout = code, layout
        self.leaves = program.arrays
        self.outputs = layout.slots[program.arrays[-1]]
        self.names: dict[str, Num] = {}  # of numbers, indices and counters
        self.table_begins = 0
        self.last: dict[str, Linear] = {}  # of indices, where it is known, or depends on the count alone
        self.side_by_side = "", 1  # the index of the loop whose iterations fill vectors, and how many do

    def count(self) -> None:
        """Load the count, with which the table begins, and the number of pairs."""
        number = self.code.emit("load i32, ptr {}, align 4", (self.array(self.layout.tables_slot),), "i32")
        n = self.names[COUNT] = self.code.emit("sext i32 {} to i64", (number,), "i64")
        product = self.code.emit("mul i64 {}, {}", (n, self.code.emit("sub i64 {}, 1", (n,), "i64")), "i64")
        self.names[PAIRS] = self.code.emit("lshr i64 {}, 1", (product,), "i64")
        self.table_begins = 1

    def steps(self, steps: list[Step]) -> None:
        for x in steps:
            getattr(self, f"_{type(x).__name__.lower()}")(x)

    def _load(self, x: Load) -> None:
        self.names[x.name] = self.source(x.source)

    def _let(self, x: Let) -> None:
        self.names[x.name] = self.index(x.start)

    def _set(self, x: Set) -> None:
        self.names[x.name] = self.index(x.to)

    def _give(self, x: Give) -> None:
        self.store(self.source(x.source), self.outputs, x.place)

    def _assign(self, x: Assign) -> None:
        check_is_row(x.op)
        z = self.reduced(x.op, x.terms) if x.terms else self.applied(x.op, x.inputs)
        self.names[x.name] = z
        if x.store is not None:
            self.store(z, self.layout.slots[self.layout.values], x.store)

    def _for(self, x: For) -> None:
        if is_told(x.count):
            self.last[x.index] = x.count.plus(Linear(-1))
        lanes = self.lanes_of(x)
        if lanes == 1:
            self.one_by_one(x)
            return
        whole, count = self.split(x.count, lanes)
        sure = not x.count.terms
        index, _ = self.code.open(0, whole, lanes, sure)
        self.names[x.index], self.side_by_side = index, (x.index, lanes)
        self.steps(x.body)
        self.side_by_side = "", 1
        self.code.close()
        if whole != count:
            self.names[x.index], _ = self.code.open(whole, count, 1, sure)
            self.steps(x.body)
            self.code.close()

    def split(self, count: Linear, lanes: int) -> tuple[str, str]:
        """(how many of so many iterations fill vectors, how many there are)."""
        if not count.terms:
            return str(count.constant // lanes * lanes), str(count.constant)
        n = self.index(count)
        return self.code.emit(f"and i64 {{}}, -{lanes}", (n,), "i64").name, n.name

    def one_by_one(self, x: For) -> None:
        counters = [y.name for y in x.body if isinstance(y, Set)]
        firsts = [self.source(first) for first, _ in x.carried.values()] + [self.names[name] for name in counters]
        index, carried = self.code.open(0, self.index(x.count).name, 1, True, firsts)
        self.names[x.index] = index
        self.names.update(zip(chain(x.carried, counters), carried))
        self.steps(x.body)
        after = [self.names[z] for _, z in x.carried.values()] + [self.names[name] for name in counters]
        last = self.code.close(after)
        self.names.update(zip(chain(x.carried, counters), last))

    # Iterations side by side.

    def lanes_of(self, x: For) -> int:
        """How many iterations of the loop are run at a time: as many as fill a vector, if none waits for another one.

        It pays where functions are called, or all numbers lie side by side.
        """
        most = self.code.width if x.count.terms else x.count.constant
        lanes = min(self.code.width, 1 << max(most, 1).bit_length() - 1)
        if lanes < 4 or not is_told(x.count) or x.carried or not all(map(is_flat, x.body)):
            return 1
        reads = [z for y in x.body for z in sources_of(y) if isinstance(z, (Cell, Entry))]
        stores = [Cell(VALUES, y.store) for y in x.body if isinstance(y, Assign) and y.store is not None]
        given = [Cell(OUTPUTS, y.place) for y in x.body if isinstance(y, Give)]
        calls = any([isinstance(y, Assign) and cost(y.op.name) == CALL for y in x.body])
        even = all([isinstance(z, Cell) and abs(z.place.step(x.index)) <= 1 for z in [*reads, *stores, *given]])
        free = all([self.is_before(z, w, x.index) for z in reads if z.array == VALUES for w in stores])
        return lanes if free and (calls or even) else 1

    def is_before(self, read: Cell | Entry, store: Cell, index: str) -> bool:
        """Whether all that is read was computed before the loop: it is ahead of what is stored, which goes up."""
        first = Linear(store.place.constant, tuple([t for t in store.place.terms if t[0] != index]))
        ahead = read.place.plus(first, -1)
        most = Linear(ahead.constant)  # as a form of the count
        for name, k in ahead.terms:
            if name not in (COUNT, PAIRS) and name not in self.last:
                return False
            most = most.plus(variable(name, k)) if name in (COUNT, PAIRS) else most.plus(self.last[name], max(k, 0))
        by = most.step(COUNT)
        falls = by <= 0 and most.step(PAIRS) <= 0
        return not isinstance(read, Entry) and falls and most.constant + by < 0  # for 1, and so for all counts

    def store(self, z: Num, slot: int, place: Linear) -> None:
        """Write the number to memory; those of several iterations each to its place."""
        index, lanes = self.side_by_side
        step = place.step(index)
        if lanes == 1:
            self.code.store(z, self.pointer(slot, place))
        elif step == 1:
            self.code.store(self.code.spread(z, lanes), self.pointer(slot, place))
        else:
            for k in range(lanes):
                self.code.store(self.code.lane(z, k), self.pointer(slot, place.plus(Linear(step * k))))

    # Addresses.

    def index(self, x: Linear) -> Num:
        """The form as an integer; what the outer loops add to it is computed in them."""
        code = self.code
        z: Num | None = None
        for name, k in sorted(x.terms, key=lambda term: self.names[term[0]].depth):
            i = self.names[name]
            y = i if k == 1 else code.emit(f"mul nsw i64 {{}}, {k}", (i,), "i64")
            z = y if z is None else code.emit("add nsw i64 {}, {}", (z, y), "i64")
        number = Num(code, str(x.constant), 0, 1, "i64")
        if z is None or not x.constant:
            return z or number
        return code.emit("add nsw i64 {}, {}", (z, number), "i64")

    def pointer(self, slot: int, place: Linear, more: Num | None = None, of: str = "") -> Num:
        """Where the number at that place is, or `more` further on; the constant is added last: many share the rest."""
        z = self.array(slot)
        constant = Num(self.code, str(place.constant), 0, 1, "i64")
        ahead = self.index(place._replace(constant=0)) if place.terms else None
        for at in (ahead, more, constant if place.constant else None):
            if at is not None:
                z = self.code.emit(f"getelementptr inbounds {of or self.code.of}, ptr {{}}, i64 {{}}", (z, at), "ptr")
        return z

    def array(self, slot: int) -> Num:
        return Num(self.code, f"%a{slot}", 0, 1, "ptr")

    def slot(self, array: str | int) -> int:
        if isinstance(array, int):
            return self.layout.slots[self.leaves[array]]
        return self.layout.slots[self.layout.values if array == VALUES else self.layout.constants]

    def source(self, x: Source, more: Num | None = None, lanes: int = 1) -> Num:
        """The number; of a run the one that stands `more` further on, or so many from there on."""
        if isinstance(x, float):
            return self.code.num(x)
        if isinstance(x, Name):
            return self.names[x.name]
        index, side = self.side_by_side
        step = x.place.step(index)
        if step == 1 and isinstance(x, Cell):
            lanes = side
        elif step:
            self.side_by_side = "", 1
            each = [self.source(x._replace(place=x.place.plus(Linear(step * k))), more) for k in range(side)]
            self.side_by_side = index, side
            return self.code.gathered(each)
        place = x.place
        if isinstance(x, Entry):
            place = place.plus(Linear(self.table_begins))
            where = self.pointer(self.layout.tables_slot, place, more, "i32")
            entry = self.code.emit("load i32, ptr {}, align 4", (where,), "i32")
            place, more = Linear(), self.code.emit("sext i32 {} to i64", (entry,), "i64")
        form = f"load {vector(self.code.of, lanes)}, ptr {{}}, align {self.code.bytes}"
        pointer = self.pointer(self.slot(x.array), place, more)
        if x.array != VALUES:
            return self.code.emit(form, (pointer,), self.code.of, lanes)
        name = f"%v{next(self.code.fresh)}"  # not before the loop, in which it may be computed first
        self.code.scopes[-1].lines.append(f"  {name} = {form.format(pointer.name)}")
        return Num(self.code, name, self.code.depth, lanes, self.code.of)

    # Operations.

    def applied(self, op: Any, inputs: tuple[Source, ...]) -> Num:
        return spelled(self.code, op.name, *[x if isinstance(x, float) else self.source(x) for x in inputs])

    def reduced(self, op: Any, terms: tuple[Terms, ...]) -> Num:
        """An op of many inputs."""
        if op is ops.logsumexp:
            (largest,) = self.folded(terms, [FOLDS["max"]])
            rest, equals = self.folded(terms, rest_folds(lambda owner: largest))
            return logsumexp(largest, rest, equals)  # type: ignore[no-any-return]
        return self.folded(terms, [FOLDS["sum" if op is ops.dot else op.name]])[0]

    def folded(self, terms: tuple[Terms, ...], folds: list[Fold]) -> list[Num]:
        """What each of the folds makes of all inputs: those without a loop first, if there are many."""
        sums: list[Num | None] = [None] * len(folds)
        long = any([x.length.terms or x.length.constant > SHORT for x in terms])
        for x in sorted(terms, key=lambda x: x.length != Linear(1)) if long else terms:
            if x.length == Linear(1):
                factors = [self.source(y) for y in x.factors]
                sums = [f.take((0, None), z, factors) for f, z in zip(folds, sums)]
            elif not x.length.terms and x.length.constant <= SHORT:
                sums = self.unrolled(x, folds, sums, range(x.length.constant))
            else:
                sums = self.run(x, folds, sums)
        return [self.code.num(f.identity) if z is None else z for f, z in zip(folds, sums)]

    def unrolled(self, x: Terms, folds: list[Fold], sums: list[Num | None], places: range) -> list[Num | None]:
        """The terms at these places of a run, one by one."""
        for k in places:
            factors = self.factors(x, Num(self.code, str(k), 0, 1, "i64"))
            sums = [f.take((0, None), z, factors) for f, z in zip(folds, sums)]
        return sums

    def run(self, x: Terms, folds: list[Fold], sums: list[Num | None]) -> list[Num | None]:
        """A run in a loop: in vectors where the numbers lie side by side, and then those that are left."""
        code, start, sure = self.code, "0", True
        if self.is_vector(x):
            lanes, sure = code.width, not x.length.terms
            start, _ = self.split(x.length, lanes)
            zeros = [code.spread(code.num(f.identity), lanes) for f in folds]
            index, carried = code.open(0, start, lanes, sure, zeros, told=True)
            factors = self.factors(x, index, lanes)
            last = code.close([self.taken(f, z, factors) for f, z in zip(folds, carried)])
            totals = [self.joined(f, z) for f, z in zip(folds, last)]
            sums = [total if z is None else f.join(z, total) for f, z, total in zip(folds, sums, totals)]
            if sure and x.length.constant - int(start) <= SHORT:
                return self.unrolled(x, folds, sums, range(int(start), x.length.constant))
        firsts = [code.num(f.identity) if z is None else z for f, z in zip(folds, sums)]
        index, carried = code.open(start, self.index(x.length).name, 1, sure, firsts, told=True)
        factors = self.factors(x, index)
        return [*code.close([self.taken(f, z, factors) for f, z in zip(folds, carried)])]

    def is_vector(self, x: Terms) -> bool:
        """Whether a run fills vectors, and its factors lie side by side, or are the same for all terms."""
        short = not x.length.terms and x.length.constant < self.code.width
        if short or not is_told(x.length) or any([isinstance(y, Entry) for y in x.factors]):
            return False
        return {1, -1, 0} >= {*x.steps} != {0}

    def joined(self, fold: Fold, z: Num) -> Num:
        """What the fold makes of all lanes."""
        while z.lanes > 1:
            half = z.lanes // 2
            z = fold.join(*[self.code.shuffled(z, z, range(k, k + half)) for k in (0, half)])
        return z

    def factors(self, x: Terms, k: Num, lanes: int = 1) -> list[Num]:
        """The factors of the term number k of a run, or of so many from there on."""
        code, found = self.code, []
        for y, step in zip(x.factors, x.steps):
            if isinstance(y, (float, Name)) or not step:
                found.append(self.source(y))
                continue
            backwards = step < 0 and lanes > 1
            last = Num(code, str(lanes - 1), 0, 1, "i64")
            at = code.emit("add nsw i64 {}, {}", (k, last), "i64") if backwards else k
            z = self.source(y, code.emit(f"mul nsw i64 {{}}, {step}", (at,), "i64"), lanes)
            found.append(code.shuffled(z, z, range(lanes - 1, -1, -1)) if backwards else z)
        return found

    def taken(self, fold: Fold, z: Num, factors: list[Num]) -> Num:
        """One more input, in any order if it is a sum."""
        if fold is not FOLDS["sum"]:
            return fold.take((0, None), z, factors)  # type: ignore[no-any-return]
        x = factors[0] if len(factors) == 1 else factors[0] * factors[1]
        return self.code.binary("fadd reassoc contract", z, x)

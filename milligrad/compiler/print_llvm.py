"""A rolled program as LLVM's intermediate representation: the same loops, with a register for each name.

One function, `sample`, runs the program for one sample; `run` calls it for each. Loops are written as they are, and
LLVM's optimisers, which this code is given to, find out what of them can be done side by side.
"""

from __future__ import annotations

import time
from itertools import chain
from typing import Any

from milligrad import ops
from milligrad.compiler.emit_llvm import around
from milligrad.compiler.instructions import DTYPES, Code, Machine, Num
from milligrad.compiler.ir import Rolled
from milligrad.compiler.native import Machinery, Native, host
from milligrad.compiler.program import SHORT, Array, Program
from milligrad.compiler.registers import (
    CONSTANTS,
    COUNT,
    VALUES,
    Assign,
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
)
from milligrad.compiler.spelling import FOLDS, Fold, check_is_row, logsumexp, rest_folds, spelled


class Layout:
    """Where the arrays stand in the table of pointers: those of the program, the values, the constants, the table.

    A program with a count has it as its table, which it has none of.
    """

    def __init__(self, program: Program, rolled: Rolled, capacity: int, extents: Extents | None = None) -> None:
        self.values = Array(VALUES, max(rolled.values, 1), "value")
        constants = tuple(rolled.constants) or (0.0,)
        self.constants = Array(CONSTANTS, len(constants), "constant", values=constants)
        arrays = [*program.arrays, self.values, self.constants]
        self.slots: dict[Array, int] = {a: i for i, a in enumerate(arrays)}
        self.tables_slot = len(arrays)
        self.tables = [extents.variable] if extents else rolled.table
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

    def count(self) -> None:
        """Load the count, which stands in the table's place."""
        number = self.code.emit("load i32, ptr {}, align 4", (self.array(self.layout.tables_slot),), "i32")
        self.names[COUNT] = self.code.emit("sext i32 {} to i64", (number,), "i64")

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
        self.code.store(self.source(x.source), self.pointer(self.outputs, self.index(x.place)))

    def _assign(self, x: Assign) -> None:
        check_is_row(x.op)
        z = self.reduced(x.op, x.terms) if x.terms else self.applied(x.op, x.inputs)
        self.names[x.name] = z
        if x.store is not None:
            self.code.store(z, self.pointer(self.layout.slots[self.layout.values], self.index(x.store)))

    def _for(self, x: For) -> None:
        counters = [y.name for y in x.body if isinstance(y, Set)]
        firsts = [self.source(first) for first, _ in x.carried.values()] + [self.names[name] for name in counters]
        index, carried = self.code.open(0, self.index(x.count).name, 1, True, firsts)
        self.names[x.index] = index
        self.names.update(zip(chain(x.carried, counters), carried))
        self.steps(x.body)
        after = [self.names[z] for _, z in x.carried.values()] + [self.names[name] for name in counters]
        last = self.code.close(after)
        self.names.update(zip(chain(x.carried, counters), last))

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

    def pointer(self, slot: int, at: Num, of: str = "") -> Num:
        return self.code.emit(f"getelementptr {of or self.code.of}, ptr {{}}, i64 {{}}", (self.array(slot), at), "ptr")

    def array(self, slot: int) -> Num:
        return Num(self.code, f"%a{slot}", 0, 1, "ptr")

    def slot(self, array: str | int) -> int:
        if isinstance(array, int):
            return self.layout.slots[self.leaves[array]]
        return self.layout.slots[self.layout.values if array == VALUES else self.layout.constants]

    def source(self, x: Source, more: Num | None = None) -> Num:
        """The number; of a run the one that stands `more` further on."""
        if isinstance(x, float):
            return self.code.num(x)
        if isinstance(x, Name):
            return self.names[x.name]
        at = self.index(x.place)
        if more is not None:
            at = self.code.emit("add nsw i64 {}, {}", (at, more), "i64")
        if isinstance(x, Entry):
            where = self.pointer(self.layout.tables_slot, at, "i32")
            entry = self.code.emit("load i32, ptr {}, align 4", (where,), "i32")
            at = self.code.emit("sext i32 {} to i64", (entry,), "i64")
        form = f"load {self.code.of}, ptr {{}}, align {self.code.bytes}"
        pointer = self.pointer(self.slot(x.array), at)
        if x.array != VALUES:
            return self.code.emit(form, (pointer,), self.code.of)
        name = f"%v{next(self.code.fresh)}"  # not before the loop, in which it may be computed first
        self.code.scopes[-1].lines.append(f"  {name} = {form.format(pointer.name)}")
        return Num(self.code, name, self.code.depth, 1, self.code.of)

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
        ordered = sorted(terms, key=lambda x: x.length != Linear(1)) if long else terms
        for x in ordered:
            if x.length == Linear(1):
                factors = [self.source(y) for y in x.factors]
                sums = [f.take((0, None), z, factors) for f, z in zip(folds, sums)]
            elif not x.length.terms and x.length.constant <= SHORT:
                for k in range(x.length.constant):
                    factors = self.factors(x, Num(self.code, str(k), 0, 1, "i64"))
                    sums = [f.take((0, None), z, factors) for f, z in zip(folds, sums)]
            else:
                firsts = [self.code.num(f.identity) if z is None else z for f, z in zip(folds, sums)]
                index, carried = self.code.open(0, self.index(x.length).name, 1, True, firsts)
                factors = self.factors(x, index)
                sums = [*self.code.close([self.taken(f, z, factors) for f, z in zip(folds, carried)])]
        return [self.code.num(f.identity) if z is None else z for f, z in zip(folds, sums)]

    def factors(self, x: Terms, k: Num) -> list[Num]:
        found = []
        for y, step in zip(x.factors, x.steps):
            if isinstance(y, (float, Name)):
                found.append(self.source(y))
            else:
                found.append(self.source(y, self.code.emit(f"mul nsw i64 {{}}, {step}", (k,), "i64") if step else None))
        return found

    def taken(self, fold: Fold, z: Num, factors: list[Num]) -> Num:
        """One more input, in any order if it is a sum."""
        if fold is not FOLDS["sum"]:
            return fold.take((0, None), z, factors)  # type: ignore[no-any-return]
        x = factors[0] if len(factors) == 1 else factors[0] * factors[1]
        return self.code.binary("fadd reassoc contract", z, x)

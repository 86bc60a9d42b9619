"""LLVM's intermediate representation, written by arithmetic: `x * y + z` writes two instructions down.

    Num      the result of an instruction, one number or a vector of them
    Code     the instructions so far, each in the outermost loop in which its operands are known
    depth    how many loops stand around an instruction
    lanes    how many numbers a vector holds; 1 for a plain number

Text rather than llvmlite's objects: it takes a thirteenth of the time to build, and needs no library. Nothing is
written twice, and nothing into a loop that could stand before it, so LLVM's optimisers, which take most of the time of
a compilation, have nothing left to do here.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from itertools import count
from typing import NamedTuple, TypeAlias

DTYPES = {"float64": ("d", "double", 8), "float32": ("f", "float", 4)}  # array's typecode, LLVM's name, bytes


class Machine(NamedTuple):
    """What the code is made for.

    cpu, features:  as LLVM calls them
    bits:           of a vector register
    registers:      how many of them there are
    functions:      for each width in bits that has a vector exp, log, … what their names start with: `_ZGVeN`
    """

    cpu: str
    features: str
    bits: int
    registers: int
    functions: dict[int, str]


class Num:
    """name:   how the text calls it: `%v7`, or a literal
    depth:  it may be used in the loop number `depth` around it, and in all that this one encloses
    lanes:  how many numbers it holds; arithmetic with one and many repeats the one
    of:     the type of its numbers: double, float, i1, i64, ptr
    """

    __slots__ = ("code", "name", "depth", "lanes", "of")

    def __init__(self, code: Code, name: str, depth: int, lanes: int, of: str) -> None:
        self.code, self.name, self.depth, self.lanes, self.of = code, name, depth, lanes, of

    @property
    def type(self) -> str:
        return vector(self.of, self.lanes)

    # `contract` lets LLVM make one instruction of a product and a sum; nothing else is reordered or left out, so NaN
    # and the infinities go where they go in Python.
    # fmt: off
    def __add__(x, y: Operand) -> Num:      return x.code.binary("fadd contract", x, y)
    def __sub__(x, y: Operand) -> Num:      return x.code.binary("fsub contract", x, y)
    def __rsub__(y, x: Operand) -> Num:     return y.code.binary("fsub contract", x, y)
    def __mul__(x, y: Operand) -> Num:      return x.code.binary("fmul contract", x, y)
    def __truediv__(x, y: Operand) -> Num:  return x.code.binary("fdiv contract", x, y)
    def __rtruediv__(y, x: Operand) -> Num: return y.code.binary("fdiv contract", x, y)
    def __neg__(x) -> Num:                  return x.code.emit(f"fneg {x.type} {{}}", (x,), x.of)
    def __pos__(x) -> Num:                  return x
    def __abs__(x) -> Num:                  return x.code.intrinsic("fabs", x)
    def __lt__(x, y: Operand) -> Num:       return x.code.binary("fcmp olt", x, y, "i1")
    def __le__(x, y: Operand) -> Num:       return x.code.binary("fcmp ole", x, y, "i1")
    def __gt__(x, y: Operand) -> Num:       return x.code.binary("fcmp ogt", x, y, "i1")
    def __ge__(x, y: Operand) -> Num:       return x.code.binary("fcmp oge", x, y, "i1")
    def __or__(x, y: Num) -> Num:           return x.code.binary("or", x, y)
    def __and__(x, y: Num) -> Num:          return x.code.binary("and", x, y)
    def equals(x, y: Operand) -> Num:       return x.code.binary("fcmp oeq", x, y, "i1")
    def differs(x, y: Operand) -> Num:      return x.code.binary("fcmp une", x, y, "i1")
    def or_is_nan(x, y: Operand) -> Num:    return x.code.binary("fcmp uno", x, y, "i1")
    # fmt: on


Operand: TypeAlias = "Num | float"


def vector(of: str, lanes: int) -> str:
    """The type of so many numbers."""
    return of if lanes == 1 else f"<{lanes} x {of}>"


class Scope:
    """The inside of one loop, as far as it is written.

    lines:  instructions
    names:  instruction → what its result is called
    block:  the label of the block that is being written
    range:  start, stop, step, and whether there is an iteration in any case
    sums:   what is carried from iteration to iteration, and what it starts from
    """

    def __init__(self, label: str, range: tuple[str, str, int, bool] = ("0", "1", 1, True)) -> None:
        self.label = self.block = label
        self.range = range
        self.lines: list[str] = []
        self.names: dict[str, str] = {}
        self.sums: list[tuple[Num, Num]] = []


class Code:
    """The instructions of one function.

    declared:  declarations of functions that are called; shared by all functions of a module
    """

    def __init__(self, dtype: str, machine: Machine, declared: dict[str, str]) -> None:
        _, self.of, self.bytes = DTYPES[dtype]
        self.machine, self.declared = machine, declared
        self.width = machine.bits // 8 // self.bytes
        self.fresh = count()
        self.scopes = [Scope("entry")]

    @property
    def depth(self) -> int:
        return len(self.scopes) - 1

    def put(self, instruction: str, depth: int) -> str:
        """What the result of `instruction` at that depth is called. It is written only if it was not yet."""
        scope = self.scopes[depth]
        name = scope.names.get(instruction)
        if name is None:
            name = scope.names[instruction] = f"%v{next(self.fresh)}"
            scope.lines.append(f"  {name} = {instruction}")
        return name

    def emit(self, form: str, operands: Sequence[Num], of: str, lanes: int = 0) -> Num:
        """An instruction with the operands' names in the places {}. It has as many lanes as the first one has."""
        depth = max([x.depth for x in operands])
        name = self.put(form.format(*[x.name for x in operands]), depth)
        return Num(self, name, depth, lanes or operands[0].lanes, of)

    def store(self, x: Num, pointer: Num) -> None:
        """Write x to memory."""
        self.scopes[-1].lines.append(f"  store {x.type} {x.name}, ptr {pointer.name}, align {self.bytes}")

    # Arithmetic.

    def num(self, x: Operand) -> Num:
        return x if isinstance(x, Num) else Num(self, self.literal(x), 0, 1, self.of)

    def literal(self, x: float) -> str:
        """The number to the bit. LLVM writes a float as the double that it is equal to."""
        x = ctypes.c_float(x).value if self.of == "float" else x
        return f"0x{struct.unpack('<Q', struct.pack('<d', x))[0]:016X}"

    def binary(self, instruction: str, x: Operand, y: Operand, of: str = "") -> Num:
        a, b = self.together(self.num(x), self.num(y))
        return self.emit(f"{instruction} {a.type} {{}}, {{}}", (a, b), of or a.of)

    def call(self, function: str, xs: Sequence[Num]) -> Num:
        """A function that depends on nothing but its arguments."""
        kind = xs[0].type
        self.declared[function] = f"declare {kind} {function}({', '.join([kind] * len(xs))}) #1"
        return self.emit(f"call {kind} {function}({', '.join([f'{kind} {{}}'] * len(xs))})", xs, self.of)

    def intrinsic(self, name: str, *xs: Operand) -> Num:
        """A function that LLVM has an instruction for."""
        nums = self.together(*map(self.num, xs))
        lanes = nums[0].lanes
        return self.call(f"@llvm.{name}.{f'v{lanes}' if lanes > 1 else ''}f{8 * self.bytes}", nums)

    def select(self, condition: Num, x: Operand, y: Operand) -> Num:
        """x where the condition holds, else y."""
        c, a, b = self.together(condition, self.num(x), self.num(y))
        return self.emit(f"select {c.type} {{}}, {a.type} {{}}, {a.type} {{}}", (c, a, b), a.of)

    def function(self, name: str, *xs: Operand) -> Num:
        """A function of the C library: of vectors glibc's vector function, or else one by one."""
        nums = self.together(*map(self.num, xs))
        lanes, suffix = nums[0].lanes, "f" * (self.of == "float")
        if lanes == 1:
            return self.call(f"@{name}{suffix}", nums)
        widths = [(bits // 8 // self.bytes, prefix) for bits, prefix in sorted(self.machine.functions.items())]
        for width, prefix in widths:
            if width >= lanes:
                whole = [self.resized(x, width) for x in nums]
                return self.resized(self.call(f"@{prefix}{width}{'v' * len(nums)}_{name}{suffix}", whole), lanes)
        return self.gathered([self.function(name, *[self.lane(x, i) for x in nums]) for i in range(lanes)])

    # Vectors.

    def spread(self, x: Num, lanes: int) -> Num:
        """A vector of the one number x; x itself if it has that many lanes."""
        if x.lanes == lanes:
            return x
        if not x.name.startswith("%"):
            return Num(self, f"splat ({x.of} {x.name})", 0, lanes, x.of)
        whole = vector(x.of, lanes)
        first = self.emit(f"insertelement {whole} poison, {x.of} {{}}, i64 0", (x,), x.of, lanes)
        return self.shuffled(first, first, [0] * lanes)

    def together(self, *xs: Num) -> list[Num]:
        """The same numbers, with the same number of lanes."""
        lanes = max([x.lanes for x in xs])
        return [x if x.lanes == lanes else self.spread(x, lanes) for x in xs]

    def lane(self, x: Num, i: int) -> Num:
        """One number of x; x itself if it is just one."""
        return x if x.lanes == 1 else self.emit(f"extractelement {x.type} {{}}, i64 {i}", (x,), x.of, 1)

    def gathered(self, xs: Sequence[Num]) -> Num:
        """A vector of the numbers xs."""
        if len(xs) == 1:
            return xs[0]
        z = Num(self, "poison", 0, len(xs), self.of)
        for i, x in enumerate(xs):
            z = self.emit(f"insertelement {z.type} {{}}, {x.of} {{}}, i64 {i}", (z, x), x.of)
        return z

    def shuffled(self, x: Num, y: Num, order: Sequence[int]) -> Num:
        """The numbers of x and then y (which have as many) in that order."""
        if len(order) == 1:
            return self.lane(x, order[0]) if order[0] < x.lanes else self.lane(y, order[0] - x.lanes)
        mask = f"<{len(order)} x i32> <{', '.join([f'i32 {k}' for k in order])}>"
        return self.emit(f"shufflevector {x.type} {{}}, {y.type} {{}}, {mask}", (x, y), x.of, len(order))

    def resized(self, x: Num, lanes: int) -> Num:
        """The first lanes of x. If it has fewer, its first number stands in the others: no one looks at these."""
        return x if x.lanes == lanes else self.shuffled(x, x, [i if i < x.lanes else 0 for i in range(lanes)])

    def padded(self, x: Num, lanes: int, filler: float) -> Num:
        """x and then `filler`, in a vector of that many lanes."""
        if x.lanes == lanes:
            return x
        if x.lanes > 1:
            rest = self.spread(self.num(filler), x.lanes)
            return self.shuffled(x, rest, [min(i, x.lanes) for i in range(lanes)])
        rest = self.spread(self.num(filler), lanes)
        return self.emit(f"insertelement {rest.type} {{}}, {x.of} {{}}, i64 0", (rest, x), x.of)

    def joined(self, xs: Sequence[Num]) -> Num:
        """The numbers of all xs, one after the other."""
        if len(xs) == 1:
            return xs[0]
        lanes = {x.lanes for x in xs}
        if len(lanes) > 1 or lanes == {1} or len(xs) % 2:
            return self.gathered([self.lane(x, i) for x in xs for i in range(x.lanes)])
        pairs = zip(xs[::2], xs[1::2])
        return self.joined([self.shuffled(x, y, range(2 * x.lanes)) for x, y in pairs])

    # Loops.

    def open(
        self, start: int | str, stop: int | str, step: int, sure: bool, sums: Sequence[Num] = (), told: bool = False
    ) -> tuple[Num, list[Num]]:
        """Open the loop `for i in range(start, stop, step)`; `sure` says that it has an iteration in any case.

        It gives i, and names for numbers that each iteration hands to the next one; at first they are `sums`.

        That i goes up is hidden from LLVM, unless it is to be `told`. It would look for the best pointers to go up
        beside it, one for each array and distance: half of a compilation, to find more of them than there are
        registers (attention ran half as fast). A sum of many products in a loop of its own gains a tenth by it.
        """
        scope = Scope(f"l{next(self.fresh)}", (str(start), str(stop), step, sure))
        self.scopes.append(scope)
        carried = [Num(self, f"%v{next(self.fresh)}", self.depth, x.lanes, x.of) for x in sums]
        scope.sums = list(zip(carried, sums))
        index = Num(self, f"%i{scope.label}", self.depth, 1, "i64")
        return index if told else self.emit('call i64 asm "", "=r,0"(i64 {})', (index,), "i64"), carried

    def close(self, sums: Sequence[Num] = ()) -> list[Num]:
        """Close the loop; `sums` are what an iteration hands on. It gives them as they are after the last one.

        The test stands at the end, so that a loop that is sure to run takes one jump for an iteration.
        """
        last = [self.spread(x, carried.lanes) for x, (carried, _) in zip(sums, self.scopes[-1].sums, strict=True)]
        inner = self.scopes.pop()
        outer, label = self.scopes[-1], inner.label
        start, stop, step, sure = inner.range
        before = skipped = outer.block
        after, write = f"{label}.end", outer.lines.append
        if not sure:
            before = f"{label}.start"
            write(f"  %g{label} = icmp ult i64 {start}, {stop}")
            write(f"  br i1 %g{label}, label %{before}, label %{after}\n{before}:")
        write(f"  br label %{label}\n{label}:")
        write(f"  %i{label} = phi i64 [ {start}, %{before} ], [ %n{label}, %{inner.block} ]")
        for (carried, first), x in zip(inner.sums, last):
            edges = f"[ {first.name}, %{before} ], [ {x.name}, %{inner.block} ]"
            write(f"  {carried.name} = phi {carried.type} {edges}")
        outer.lines += inner.lines
        write(f"  %n{label} = add nuw nsw i64 %i{label}, {step}")
        write(f"  %c{label} = icmp ult i64 %n{label}, {stop}")
        write(f"  br i1 %c{label}, label %{label}, label %{after}\n{after}:")
        outer.block = after
        if not sure:  # without an iteration they are what they were
            ran, last = last, [Num(self, f"%v{next(self.fresh)}", self.depth, x.lanes, x.of) for x in last]
            for z, (_, first), x in zip(last, inner.sums, ran):
                write(f"  {z.name} = phi {z.type} [ {first.name}, %{skipped} ], [ {x.name}, %{inner.block} ]")
        return [Num(self, x.name, min(x.depth, self.depth), x.lanes, x.of) for x in last]

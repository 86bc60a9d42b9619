"""A rolled program as C99: the same loops, with a local variable for each number in a register.

    for (long i1 = 0; i1 < 1000; i1++) {
        const double z1 = sin(c1);
        const double z2 = 9.81 * z1;
        …

Needs libm and nothing else. How the ops are spelled is told by `spelling`, whose formulas are written in pieces of C
here. What stands around the statements, the file and its header, is written by `lowered.py`.
"""

from __future__ import annotations

import ctypes
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any

from milligrad import ops
from milligrad.compiler.ir import Rolled
from milligrad.compiler.passes.registers import (
    CONSTANTS,
    TABLE,
    VALUES,
    Assign,
    Entry,
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
    all_steps,
    sources_of,
)
from milligrad.compiler.spelling import FOLDS, SPELLINGS, Fold, logsumexp, rest_folds, spelled
from milligrad.engine import NONE, Op, Reduction

HELPERS = {
    "larger": """(double x, double y)
{
    return x > y || x != x ? x : y;
}""",
    "smaller": """(double x, double y)
{
    return x < y || x != x ? x : y;
}""",
    "product": """(double x, double y)
{
    return x == 0.0 || y == 0.0 ? 0.0 : x * y;
}""",
}
"""What C does not have: a file that calls such a function has it in it, as it has the ops of `composed`."""

LONG = 5  # operations in a formula, from which on it is a function
INTRINSICS = {"maximum": "larger", "minimum": "smaller"}  # LLVM's names; others are C's

# How tightly operators bind, as in C.
CHOICE, OR, AND, EQUALITY, RELATION, SUM, PRODUCT, SIGN, ATOM = range(9)


class Piece:
    """A piece of C: `form` of other pieces, each of which binds at least as tightly as `levels` say."""

    def __init__(
        self, code: Language, form: str, parts: Sequence[Piece] = (), binds: int = ATOM, levels: Sequence[int] = ()
    ) -> None:
        self.code, self.form, self.parts, self.binds, self.levels = code, form, parts, binds, levels

    def _infix(self, symbol: str, y: Any, binds: int, reflected: bool = False) -> Piece:
        x, y = self, self.code.num(y)
        if reflected:
            x, y = y, x
        return Piece(self.code, f"{{}} {symbol} {{}}", (x, y), binds, (binds, binds + 1))

    # fmt: off
    def __add__(x, y: Any) -> Piece:      return x._infix("+", y, SUM)
    def __sub__(x, y: Any) -> Piece:      return x._infix("-", y, SUM)
    def __rsub__(x, y: Any) -> Piece:     return x._infix("-", y, SUM, True)
    def __mul__(x, y: Any) -> Piece:      return x._infix("*", y, PRODUCT)
    def __truediv__(x, y: Any) -> Piece:  return x._infix("/", y, PRODUCT)
    def __rtruediv__(x, y: Any) -> Piece: return x._infix("/", y, PRODUCT, True)
    def __neg__(x) -> Piece:              return Piece(x.code, "-{}", (x,), SIGN, (ATOM,))
    def __pos__(x) -> Piece:              return x
    def __abs__(x) -> Piece:              return x.code.function("fabs", x)
    def __lt__(x, y: Any) -> Piece:       return x._infix("<", y, RELATION)
    def __le__(x, y: Any) -> Piece:       return x._infix("<=", y, RELATION)
    def __gt__(x, y: Any) -> Piece:       return x._infix(">", y, RELATION)
    def __ge__(x, y: Any) -> Piece:       return x._infix(">=", y, RELATION)
    def __or__(x, y: Any) -> Piece:       return x._infix("||", y, OR)
    def __and__(x, y: Any) -> Piece:      return x._infix("&&", y, AND)
    def equals(x, y: Any) -> Piece:       return x._infix("==", y, EQUALITY)
    def differs(x, y: Any) -> Piece:      return x._infix("!=", y, EQUALITY)
    def or_is_nan(x, y: Any) -> Piece:    return x.differs(x) | x.code.num(y).differs(y)
    # fmt: on


class Language:
    """C in single or in double precision: what formulas are written in. type is "double" or "float"."""

    def __init__(self, dtype: str) -> None:
        self.single = dtype == "float32"
        self.type = "float" if self.single else "double"

    def num(self, x: Any) -> Piece:
        """A number that is known, or else a piece already."""
        if isinstance(x, Piece):
            return x
        text = self.literal(x)
        return Piece(self, text, (), SIGN if text.startswith("-") else ATOM)

    def select(self, condition: Piece, x: Any, y: Any) -> Piece:
        return Piece(self, "{} ? {} : {}", (condition, self.num(x), self.num(y)), CHOICE, (OR, OR, CHOICE))

    def function(self, name: str, *xs: Any) -> Piece:
        """A function of the C library, or one of `HELPERS`."""
        ours = name in HELPERS or (self.single and name in composed())
        form = f"{name}{'f' * (self.single and not ours)}({', '.join(['{}'] * len(xs))})"
        return Piece(self, form, [*map(self.num, xs)], ATOM, [CHOICE] * len(xs))

    def intrinsic(self, name: str, *xs: Any) -> Piece:
        if name == "fmuladd":
            x, y, z = xs
            total: Piece = z + x * y
            return total
        return self.function(INTRINSICS.get(name, name), *xs)

    def literal(self, x: float) -> str:
        """The number to the bit: the shortest decimal that is read as it."""
        if self.single:
            x = ctypes.c_float(x).value
        if x != x:
            return "NAN"
        if math.isinf(x):
            return "INFINITY" if x > 0 else "-INFINITY"
        if not self.single:
            return repr(x)
        short = next(t for t in (f"{x:.{k}g}" for k in range(1, 10)) if ctypes.c_float(float(t)).value == x)
        return f"{short}{'' if {*short} & {*'.e'} else '.0'}f"

    def array(self, name: str, numbers: Sequence[float]) -> list[str]:
        """A constant array of these numbers."""
        return _array(f"static const {self.type} {name}[{len(numbers)}]", map(self.literal, numbers))

    def helper(self, name: str) -> list[str]:
        """The function of that name, one of `HELPERS` or of `composed`."""
        if name in HELPERS:
            return (
                f"static double {name}{HELPERS[name]}".replace("double", self.type)
                .replace("0.0", self.literal(0.0))
                .split("\n")
            )
        xs = composed()[name]
        z = spelled(self, name, *[Piece(self, x) for x in xs])
        lines, text = with_names(z, self.type)
        head = f"static {self.type} {name}({', '.join([f'{self.type} {x}' for x in xs])})"
        return [head, "{", *[f"    {line}" for line in lines], f"    return {text};", "}"]


def written(x: Piece, names: Mapping[Piece, str] = MappingProxyType({})) -> str:
    """The piece as text; of pieces that have names, these."""
    parts = []
    for part, level in zip(x.parts, x.levels, strict=True):
        text = names.get(part) or written(part, names)
        parts.append(text if part.binds >= level or part in names else f"({text})")
    return x.form.format(*parts)


def with_names(x: Piece, kind: str) -> tuple[list[str], str]:
    """The piece as text, after lines that give names to what is used more than once in it."""
    names: dict[Piece, str] = {}
    lines: list[str] = []
    for part in _used_twice(x):
        text = written(part, names)
        names[part] = f"t{len(names) + 1}"
        lines.append(f"const {kind} {names[part]} = {text};")
    return lines, written(x, names)


def _used_twice(x: Piece) -> list[Piece]:
    """What is computed in the piece and used more than once, inner pieces first."""
    uses = _uses(x)
    return [part for part in uses if uses[part] > 1]


def _uses(x: Piece) -> dict[Piece, int]:
    """How often each piece that is computed is part of the others, inner pieces first; the whole is so 0 times."""
    uses: Counter[Piece] = Counter()
    order: list[Piece] = []

    def visit(x: Piece) -> None:
        for part in x.parts:
            uses[part] += 1
            if uses[part] == 1:
                visit(part)
        order.append(x)

    visit(x)
    return {part: uses[part] for part in order if part.parts}


@cache
def composed() -> dict[str, tuple[str, ...]]:
    """The ops that are functions of their own, since their formulas are long, and their parameters."""
    code, found = Language("float64"), {}
    for name in SPELLINGS:
        xs = ("x", "y", "z")[: ops.TABLE[name].form.count("{}")]
        if len(_uses(spelled(code, name, *[Piece(code, x) for x in xs]))) > LONG:
            found[name] = xs
    return found


def table(name: str, places: Sequence[int]) -> list[str]:
    """A constant array of places, of the smallest type that holds them."""
    bits = next(bits for bits in (8, 16, 32, 64) if max(places) < 1 << bits)
    return _array(f"static const uint{bits}_t {name}[{len(places)}]", map(str, places))


def _array(declaration: str, texts: Iterable[str]) -> list[str]:
    lines, line = [f"{declaration} = {{"], ""
    for text in texts:
        if len(line) + len(text) > 110:
            lines.append(f"    {line.rstrip()}")
            line = ""
        line += f"{text}, "
    return [*lines, f"    {line.rstrip(', ')}", "};"]


def helpers(lines: Iterable[str], language: Language) -> list[str]:
    """The functions that the lines call, each after those that it calls itself."""
    names = {*HELPERS, *composed()}
    found: dict[str, list[str]] = {}

    def visit(lines: Iterable[str]) -> None:
        for name in re.findall(r"\b(\w+)\(", "\n".join(lines)):
            if name in names and name not in found:
                head, *body = language.helper(name)
                visit(body)
                found[name] = [head, *body, ""]

    visit(lines)
    return [line for text in found.values() for line in text]


def statements(rolled: Rolled, steps: list[Step], leaves: Sequence[str], language: Language, prefix: str) -> list[str]:
    """The lines of a function that runs the steps.

    leaves:  what the arrays of leaves are called
    prefix:  what the names of the constants and the table begin with
    """
    printer = _Printer(rolled, steps, leaves, language, prefix)
    printer.steps(steps)
    return printer.lines


class _Printer:
    def __init__(
        self, rolled: Rolled, steps: list[Step], leaves: Sequence[str], language: Language, prefix: str
    ) -> None:
        self.code, self.leaves = language, leaves
        self.arrays = {VALUES: "work", CONSTANTS: f"{prefix}constants", TABLE: f"{prefix}table"}
        self.counters = _needed_counters(steps)
        self.read = _read(steps)
        self.lines: list[str] = []
        self.depth = 1

    def line(self, text: str) -> None:
        self.lines.append("    " * self.depth + text)

    def steps(self, steps: list[Step]) -> None:
        for x in steps:
            getattr(self, f"_{type(x).__name__.lower()}")(x)

    def _load(self, x: Load) -> None:
        self.line(f"const {self.code.type} {x.name} = {written(self.source(x.source))};")

    def _let(self, x: Let) -> None:
        if x.name in self.counters:
            self.line(f"long {x.name} = {place(x.start)};")

    def _set(self, x: Set) -> None:
        if x.name in self.counters:
            self.line(f"{x.name} = {place(x.to)};")

    def _give(self, x: Give) -> None:
        self.line(f"results[{place(x.place)}] = {written(self.source(x.source))};")

    def _assign(self, x: Assign) -> None:
        stored = f"work[{place(x.store)}]" if x.store is not None else ""
        if x.op is not NONE and ops.TABLE.get(x.op.name) is not x.op:
            raise NotImplementedError(f"C code has no op {x.op.name!r}: write it with milligrad's own functions")
        z = self.reduced(x) if isinstance(x.op, Reduction) else self.applied(x.op, x.inputs)
        text = written(z)
        if text == x.name:
            if stored:
                self.line(f"{stored} = {x.name};")
            return
        if x.name in self.read:
            self.line(f"const {self.code.type} {x.name} = {text};")
            text = x.name
        if stored:
            self.line(f"{stored} = {text};")

    def _for(self, x: For) -> None:
        for name, (first, _) in x.carried.items():
            self.line(f"{self.code.type} {name} = {written(self.source(first))};")
        self.open(x.index, x.count)
        self.steps(x.body)
        for name, (_, after) in x.carried.items():
            self.line(f"{name} = {after};")
        self.close()

    def open(self, index: str, count: Linear) -> None:
        self.line(f"for (long {index} = 0; {index} < {place(count)}; {index}++) {{")
        self.depth += 1

    def close(self) -> None:
        self.depth -= 1
        self.line("}")

    # Expressions.

    def source(self, x: Source, more: Linear | None = None) -> Piece:
        """The number; of a run the one that stands `more` further on."""
        if isinstance(x, float):
            return self.code.num(x)
        if isinstance(x, Name):
            return Piece(self.code, x.name)
        at = place(x.place if more is None else x.place.plus(more))
        if isinstance(x, Entry):
            at = f"{self.arrays[TABLE]}[{at}]"
        return Piece(self.code, f"{self.leaves[x.array] if isinstance(x.array, int) else self.arrays[x.array]}[{at}]")

    def applied(self, op: Op, inputs: Sequence[Source]) -> Piece:
        if op is NONE:
            return self.code.num(math.nan)
        if op.name in composed():
            return self.code.function(op.name, *map(self.source, inputs))
        return spelled(self.code, op.name, *[x if isinstance(x, float) else self.source(x) for x in inputs])

    def reduced(self, x: Assign) -> Piece:
        """An op of many inputs. Where there are loops to be written, it is the name of what they reduce."""
        if x.op is ops.logsumexp:
            return self.logsumexp(x.name, x.terms)
        fold, strong = FOLDS["sum" if x.op in (ops.dot, ops.chain) else x.op.name], x.op is ops.chain
        if x.terms and all([t.length == ONE for t in x.terms]):
            z: Any = None
            for t in x.terms:
                z = fold.take((0, None), z, self.factors(t, strong=strong))
            return z  # type: ignore[no-any-return]
        return self.folded([(x.name, fold)], x.terms, strong)[0]

    def factors(self, x: Terms, index: str = "", strong: bool = False) -> list[Piece]:
        """Those of a term of a sum, of the one with that index; if `strong`, 0 times anything is 0."""
        steps = [Linear(0, ((index, s),)) if index and s else None for s in x.steps]
        factors = [self.source(y, more) for y, more in zip(x.factors, steps, strict=True)]
        return [self.code.function("product", *factors)] if strong and len(factors) > 1 else factors

    def folded(self, folds: Sequence[tuple[str, Fold]], terms: Sequence[Terms], strong: bool = False) -> list[Piece]:
        """Declare a variable for each of the folds, and reduce the terms into it, from left to right."""
        for name, fold in folds:
            self.line(f"{self.code.type} {name} = {self.code.literal(fold.identity)};")
        names = [Piece(self.code, name) for name, _ in folds]
        for x in terms:
            index = "" if x.length == ONE else f"k{folds[0][0][1:]}"
            if index:
                self.open(index, x.length)
            for z, (name, fold) in zip(names, folds, strict=True):
                taken = written(fold.take((0, None), z, self.factors(x, index, strong)))
                more = taken.removeprefix(f"{name} + ")
                self.line(f"{name} = {taken};" if more == taken else f"{name} += {more};")
            if index:
                self.close()
        return names

    def logsumexp(self, name: str, terms: Sequence[Terms]) -> Piece:
        """The largest one, m; then Σ exp(x - m) over all x but those that equal m, and how many do."""
        largest, rest, equals = [f"{letter}{name[1:]}" for letter in "mrq"]
        (m,) = self.folded([(largest, FOLDS["max"])], terms)
        sums = self.folded([*zip((rest, equals), rest_folds(lambda owner: m))], terms)
        return logsumexp(m, *sums)  # type: ignore[no-any-return]


ONE = Linear(1)


def place(x: Linear) -> str:
    """The form as text: what is subtracted last."""
    parts = [(k, name if abs(k) == 1 else f"{abs(k)} * {name}") for name, k in x.terms]
    if x.constant or not parts:
        parts.append((x.constant, str(abs(x.constant))))
    (k, first), *rest = sorted(parts, key=lambda part: part[0] < 0)
    return "".join(["-" * (k < 0), first, *[f" {'-' if k < 0 else '+'} {text}" for k, text in rest]])


def _read(steps: list[Step]) -> set[str]:
    """The names of numbers that are read."""
    read: set[str] = set()
    for x in all_steps(steps):
        sources: list[Any] = sources_of(x)
        if isinstance(x, For):
            sources = [first for first, _ in x.carried.values()]
            read.update([after for _, after in x.carried.values()])
        read.update([y.name for y in sources if isinstance(y, Name)])
    return read


def _needed_counters(steps: list[Step]) -> set[str]:
    """The variables of addresses that are needed, those included that needed counters are set to."""
    needed: set[str] = set()
    moves: dict[str, set[str]] = {}
    for x in all_steps(steps):
        if isinstance(x, (Let, Set)):
            form = x.start if isinstance(x, Let) else x.to
            moves.setdefault(x.name, set()).update([name for name, _ in form.terms])
            continue
        for form in forms(x):
            needed.update([name for name, _ in form.terms])
    todo = list(needed)
    while todo:
        more = moves.get(todo.pop(), set()) - needed
        needed |= more
        todo += more
    return needed


def forms(x: Step) -> Iterator[Linear]:
    """All addresses and counts in a step."""
    sources: list[Any] = sources_of(x)
    if isinstance(x, For):
        yield x.count
        sources = [first for first, _ in x.carried.values()]
    if isinstance(x, Give):
        yield x.place
    if isinstance(x, Assign):
        if x.store is not None:
            yield x.store
        yield from [terms.length for terms in x.terms]
    yield from [y.place for y in sources if not isinstance(y, (float, Name))]

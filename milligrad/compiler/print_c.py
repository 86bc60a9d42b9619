"""A rolled program as C99: the same loops, with a local variable for each number in a register.

    for (long i1 = 0; i1 < 1000; i1++) {
        const double z1 = sin(c1);
        const double z2 = 9.81 * z1;
        …

Needs libm and nothing else. How the ops are spelled is told by ROWS, in double precision; `Precision` translates it
into single. What stands around the statements, the file and its header, is written by `lowered.py`.
"""

from __future__ import annotations

import ctypes
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from milligrad import ops
from milligrad.compiler.ir import Rolled
from milligrad.compiler.registers import (
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
from milligrad.engine import NONE
from milligrad.ops import BCE_FLOOR, LOG_2, LOG_EPSILON, LOG_SQRT_2_PI, NORMAL_TAIL


class Fold(NamedTuple):
    """How the inputs of an op of many inputs are reduced: from `start` on, `take` another one."""

    start: str
    take: str


SUM = Fold("0.0", "{z} += {x}")

# The same values and the same corners as in the table; outside of its domain a row gives NaN or an infinity.
# fmt: off
ROWS: dict[str, str | Fold] = {
    "add":        "{0} + {1}",
    "sub":        "{0} - {1}",
    "mul":        "{0} * {1}",
    "div":        "{0} / {1}",
    "power":      "pow({0}, {1})",
    "exponential": "pow({0}, {1})",
    "pow":        "pow({0}, {1})",
    "neg":        "-{0}",
    "identity":   "{0}",
    "exp":        "exp({0})",
    "expm1":      "expm1({0})",
    "log":        "log_of({0})",
    "log1p":      "log1p({0})",
    "sqrt":       "sqrt({0})",
    "sin":        "sin({0})",
    "cos":        "cos({0})",
    "tan":        "tan({0})",
    "asin":       "asin({0})",
    "acos":       "acos({0})",
    "atan":       "atan({0})",
    "sinh":       "sinh({0})",
    "cosh":       "cosh({0})",
    "tanh":       "tanh({0})",
    "sigmoid":    "sigmoid({0})",
    "softplus":   "softplus({0})",
    "erf":        "erf({0})",
    "erfc":       "erfc({0})",
    "log_normal_cdf": "log_normal_cdf({0})",
    "log1mexp":   "log1mexp({0})",
    "xlogy":      "xlogy({0}, {1})",
    "bce":        "bce({0}, {1})",
    "relu":       "{0} <= 0.0 ? 0.0 : {0}",
    "abs":        "fabs({0})",
    "clamp":      "clamp({0}, {1}, {2})",
    "where":      "{0} != 0.0 ? {1} : {2}",
    "less":       "{0} < {1} ? 1.0 : 0.0",
    "less_equal": "{0} <= {1} ? 1.0 : 0.0",
    "equal":      "{0} == {1} ? 1.0 : 0.0",
    "sum":        SUM,
    "dot":        SUM,
    "chain":      SUM,  # of products by HELPERS["product"]
    "prod":       Fold("1.0", "{z} *= {x}"),
    "max":        Fold("-INFINITY", "{z} = larger({z}, {x})"),
    "min":        Fold("INFINITY", "{z} = smaller({z}, {x})"),
    "logsumexp":  Fold("-INFINITY", "{z} = larger({z}, {x})"),  # at first; see `_Printer.logsumexp`
}
POWERS = {  # of a constant exponent
    -2.0: "1.0 / ({0} * {0})",
    -1.0: "1.0 / {0}",
    0.0:  "1.0",
    0.5:  "sqrt({0}) + 0.0",  # √-0 is -0, but (-0)^½ is 0
    1.0:  "{0}",
    2.0:  "{0} * {0}",
    3.0:  "{0} * {0} * {0}",
    4.0:  "({0} * {0}) * ({0} * {0})",
}
# fmt: on

HELPERS = {
    "log_of": f"""(double x)
{{
    return log(x == 0.0 ? {LOG_EPSILON!r} : x);
}}""",
    "sigmoid": """(double x)
{
    const double e = exp(-fabs(x));
    return (x >= 0.0 ? 1.0 : e) / (1.0 + e);
}""",
    "softplus": """(double x)
{
    return (x <= 0.0 ? 0.0 : x) + log1p(exp(-fabs(x)));
}""",
    "log_normal_cdf": f"""(double x)
{{
    if (x < {NORMAL_TAIL!r}) {{ /* a continued fraction: Laplace 1805 */
        double z = -x;
        for (int k = 16; k > 0; k--)
            z = k / z - x;
        return -x * x * 0.5 - {LOG_SQRT_2_PI!r} - log(z);
    }}
    const double q = erfc(fabs(x) * {math.sqrt(0.5)!r}) * 0.5;
    return x > 0.0 ? log1p(-q) : log(q);
}}""",
    "log1mexp": f"""(double x)
{{
    return x < {LOG_2!r} ? log(-expm1(-x)) : log1p(-exp(-x));
}}""",
    "xlogy": """(double x, double y)
{
    return x == 0.0 && y == y ? 0.0 : x * log(y);
}""",
    "bce": f"""(double x, double y)
{{
    const double log_x = log(x), log_1_x = log1p(-x);
    const double z = y * (log_x > {BCE_FLOOR!r} ? log_x : {BCE_FLOOR!r})
                     + (1.0 - y) * (log_1_x > {BCE_FLOOR!r} ? log_1_x : {BCE_FLOOR!r});
    return x >= 0.0 && x <= 1.0 && y >= 0.0 && y <= 1.0 ? -z : NAN;
}}""",
    "clamp": """(double x, double lo, double hi)
{
    if (x != x || lo != lo || hi != hi)
        return NAN;
    return x > hi || lo > hi ? hi : x < lo ? lo : x;
}""",
    "product": """(double x, double y)
{
    return x == 0.0 || y == 0.0 ? 0.0 : x * y;
}""",
    "larger": """(double x, double y)
{
    return x > y || x != x ? x : y;
}""",
    "smaller": """(double x, double y)
{
    return x < y || x != x ? x : y;
}""",
}
"""The functions that rows call, by name, each from its arguments on; they come into a file that calls them."""

LIBM = r"acos|asin|atan|cosh|cos|erfc|erf|expm1|exp|fabs|log1p|log|pow|sinh|sin|sqrt|tanh|tan"  # what they call


class Precision:
    """How numbers are written: type is "double" or "float"."""

    def __init__(self, dtype: str) -> None:
        self.single = dtype == "float32"
        self.type = "float" if self.single else "double"

    def spelled(self, text: str) -> str:
        """C in double precision as C in this one."""
        if not self.single:
            return text
        text = re.sub(r"\bdouble\b", "float", text)
        text = re.sub(rf"\b({LIBM})\(", r"\1f(", text)
        return re.sub(r"(?<![\w.])(\d+\.\d+(e[-+]?\d+)?|\d+e[-+]?\d+)", r"\1f", text)

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

    def operand(self, x: float) -> str:
        """The same, within an expression."""
        text = self.literal(x)
        return f"({text})" if text.startswith("-") else text

    def array(self, name: str, numbers: Sequence[float]) -> list[str]:
        """A constant array of these numbers."""
        return _array(f"static const {self.type} {name}[{len(numbers)}]", map(self.literal, numbers))


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


def helpers(lines: Iterable[str], precision: Precision) -> list[str]:
    """The functions that the lines call."""
    called = {*re.findall(r"\b(\w+)\(", "\n".join(lines))}
    found: list[str] = []
    for name, text in HELPERS.items():
        if name in called:
            found += [*precision.spelled(f"static double {name}{text}").split("\n"), ""]
    return found


def statements(
    rolled: Rolled, steps: list[Step], leaves: Sequence[str], precision: Precision, prefix: str
) -> list[str]:
    """The lines of a function that runs the steps.

    leaves:  what the arrays of leaves are called
    prefix:  what the names of the constants and the table begin with
    """
    printer = _Printer(rolled, steps, leaves, precision, prefix)
    printer.steps(steps)
    return printer.lines


class _Printer:
    def __init__(
        self, rolled: Rolled, steps: list[Step], leaves: Sequence[str], precision: Precision, prefix: str
    ) -> None:
        self.precision, self.leaves = precision, leaves
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
        self.line(f"const {self.precision.type} {x.name} = {self.source(x.source)};")

    def _let(self, x: Let) -> None:
        if x.name in self.counters:
            self.line(f"long {x.name} = {place(x.start)};")

    def _set(self, x: Set) -> None:
        if x.name in self.counters:
            self.line(f"{x.name} = {place(x.to)};")

    def _give(self, x: Give) -> None:
        self.line(f"results[{place(x.place)}] = {self.source(x.source)};")

    def _assign(self, x: Assign) -> None:
        stored = f"work[{place(x.store)}]" if x.store is not None else ""
        row = "NAN" if x.op is NONE else ROWS.get(x.op.name)
        if row is None or (x.op is not NONE and ops.TABLE.get(x.op.name) is not x.op):
            raise NotImplementedError(f"C code has no op {x.op.name!r}: write it with milligrad's own functions")
        if isinstance(row, str):
            if x.op is ops.power and isinstance(x.inputs[1], float):
                row = POWERS.get(x.inputs[1], row)
            text = self.precision.spelled(row).format(*[self.source(y) for y in x.inputs])
        elif x.op is ops.logsumexp:
            text = self.logsumexp(x.name, x.terms)
        elif row is SUM and all([t.length == ONE for t in x.terms]):
            text = " + ".join([self.product(t, strong=x.op is ops.chain) for t in x.terms])
        else:
            self.folded([(x.name, row)], x.terms, x.op is ops.chain)
            if stored:
                self.line(f"{stored} = {x.name};")
            return
        if x.name in self.read:
            self.line(f"const {self.precision.type} {x.name} = {text};")
            text = x.name
        if stored:
            self.line(f"{stored} = {text};")

    def _for(self, x: For) -> None:
        for name, (first, _) in x.carried.items():
            self.line(f"{self.precision.type} {name} = {self.source(first)};")
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

    def source(self, x: Source, more: Linear | None = None) -> str:
        """The number; of a run the one that stands `more` further on."""
        if isinstance(x, float):
            return self.precision.operand(x)
        if isinstance(x, Name):
            return x.name
        at = place(x.place if more is None else x.place.plus(more))
        if isinstance(x, Entry):
            at = f"{self.arrays[TABLE]}[{at}]"
        return f"{self.leaves[x.array] if isinstance(x.array, int) else self.arrays[x.array]}[{at}]"

    def product(self, x: Terms, index: str = "", strong: bool = False) -> str:
        """A term of a sum: the one with that index; if `strong`, 0 times anything is 0."""
        steps = [Linear(0, ((index, s),)) if index and s else None for s in x.steps]
        factors = [self.source(y, more) for y, more in zip(x.factors, steps, strict=True)]
        return f"product({', '.join(factors)})" if strong and len(factors) > 1 else " * ".join(factors)

    def folded(self, folds: Sequence[tuple[str, Fold]], terms: Sequence[Terms], strong: bool = False) -> None:
        """Declare a variable for each of the folds, and reduce the terms into it, from left to right."""
        for name, fold in folds:
            self.line(f"{self.precision.type} {name} = {self.precision.spelled(fold.start)};")
        for x in terms:
            index = "" if x.length == ONE else f"k{folds[0][0][1:]}"
            if index:
                self.open(index, x.length)
            for name, fold in folds:
                self.line(f"{self.precision.spelled(fold.take).format(z=name, x=self.product(x, index, strong))};")
            if index:
                self.close()

    def logsumexp(self, name: str, terms: Sequence[Terms]) -> str:
        """The largest one, m; then Σ exp(x - m) over all x but those that equal m, and how many do."""
        largest, rest, equals = [f"{letter}{name[1:]}" for letter in "mrq"]
        fold = ROWS["max"]
        assert isinstance(fold, Fold)
        self.folded([(largest, fold)], terms)
        of_rest = Fold("0.0", f"{{z}} += {{x}} == {largest} ? 0.0 : exp({{x}} - {largest})")
        of_equals = Fold("0.0", f"{{z}} += {{x}} == {largest} ? 1.0 : 0.0")
        self.folded([(rest, of_rest), (equals, of_equals)], terms)
        m = f"fabs({largest}) == INFINITY ? {largest} : {largest} + log1p({rest} + ({equals} - 1.0))"
        return self.precision.spelled(m)


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

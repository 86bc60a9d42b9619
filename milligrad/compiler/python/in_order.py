"""A rolled program as Python source text: loops and assignments, with a local variable for each number in a register.

    for i1 in range(1000):
        z1 = sin(c1)
        z2 = 9.81 * z1
        …

A number that is used once is written where it is used. How an op is spelled is told by `comprehensions`.
"""

from __future__ import annotations

from collections import Counter
from time import perf_counter
from typing import Any

from milligrad import ops
from milligrad.compiler.ir import Rolled
from milligrad.compiler.passes.registers import (
    COUNT,
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
    variables_for,
)
from milligrad.compiler.passes.simplify import REFUSING
from milligrad.compiler.program import Program
from milligrad.compiler.python.code import HELPERS, Code
from milligrad.compiler.python.comprehensions import LONG
from milligrad.compiler.python.ieee import unrefusing
from milligrad.compiler.spelling import Expr, call, literal, plus, python_form, times
from milligrad.engine import Op


def build(
    program: Program, rolled: Rolled, steps: list[Step], capacity: int, ieee: bool, extents: Extents | None = None
) -> Code:
    """The code of the program, whose arrays are leaves and, as the last one, the outputs."""
    started = perf_counter()
    text = _Text(program, rolled, steps, ieee, extents)
    source = "\n".join([*text.header, *text.lines, ""])
    return Code(program, capacity, source, text.globals, perf_counter() - started)


class _Text:
    def __init__(
        self, program: Program, rolled: Rolled, steps: list[Step], ieee: bool, extents: Extents | None
    ) -> None:
        self.leaves, self.ieee = program.arrays, ieee
        extents = extents or Extents(None, Linear(rolled.values), {})
        self.globals: dict[str, Any] = {
            "constants": rolled.constants, "table": rolled.table, **HELPERS, **variables_for(extents.variable or 0),
        }  # fmt: skip
        self.lines: list[str] = []
        self.header: list[str] = []
        self.uses = _uses(steps)
        self.stores_over = _stores_over(steps)
        self.inline: dict[str, Expr] = {}
        self.depth = 1
        self.fresh = 0
        bound = [a for a in program.arrays if a.role not in ("constant", "value")]
        self.header.append(f"def run(batches, {', '.join(f'{a.name}_list' for a in bound)}):")
        rows = [a for a in bound if a.per_sample and a.role == "input"]
        self.line(f"values = [0.0] * {bracketed(extents.values)}")
        self.line(f"for [{', '.join(['n', *[f'{a.name}_rows' for a in rows]])}] in batches:")
        self.depth += 1
        self.outputs = bound[-1]
        for a in bound:
            if not a.per_sample:
                self.line(f"{a.name} = {a.name}_list")
        if self.outputs.per_sample:
            self.line("for s in range(n):")
            self.depth += 1
            for a in rows:
                self.line(f"{a.name} = {a.name}_rows[s]")
            self.line(f"{self.outputs.name} = {self.outputs.name}_list")
            size = extents.sizes.get(self.outputs, Linear(self.outputs.size))
            self.line(f"{self.outputs.name}_0 = s * {bracketed(size)}")
        self.steps(steps)

    def line(self, text: str) -> None:
        self.lines.append("    " * self.depth + text)

    def steps(self, steps: list[Step]) -> None:
        for x in steps:
            getattr(self, f"_{type(x).__name__.lower()}")(x)

    def _load(self, x: Load) -> None:
        self.line(f"{x.name} = {self.source(x.source).text}")

    def _let(self, x: Let) -> None:
        self.line(f"{x.name} = {place(x.start)}")

    def _set(self, x: Set) -> None:
        self.line(f"{x.name} = {place(x.to)}")

    def _give(self, x: Give) -> None:
        name = self.outputs.name
        at = x.place.plus(variable(f"{name}_0")) if self.outputs.per_sample else x.place
        self.line(f"{name}[{place(at)}] = {self.source(x.source).text}")

    def _assign(self, x: Assign) -> None:
        expr = self.reduced(x.op, x.terms) if x.terms else self.applied(x.op, [self.source(y) for y in x.inputs])
        lasts = not (self.stores_over and "values[" in expr.text)  # so that it may be read later
        if x.store is None and self.uses[x.name] == 1 and expr.ops < LONG and lasts:
            self.inline[x.name] = expr
            return
        target = x.name
        if x.store is not None:
            target = f"values[{place(x.store)}]" if not self.uses[x.name] else f"{x.name} = values[{place(x.store)}]"
        self.line(f"{target} = {expr.text}")

    def _for(self, x: For) -> None:
        for name, (first, _) in x.carried.items():
            self.line(f"{name} = {self.source(first).text}")
        self.line(f"for {x.index} in range({place(x.count)}):")
        self.depth += 1
        self.steps(x.body)
        if x.carried:
            self.line(f"{', '.join(x.carried)} = {', '.join([z for _, z in x.carried.values()])}")
        self.depth -= 1

    # Expressions.

    def source(self, x: Source) -> Expr:
        if isinstance(x, float):
            return literal(x)
        if isinstance(x, Name):
            return self.inline.pop(x.name, None) or Expr(x.name)
        if isinstance(x, Entry):
            return Expr(f"{self.array(x.array)}[table[{place(x.place)}]]")
        return Expr(f"{self.array(x.array)}[{place(x.place)}]")

    def array(self, array: str | int) -> str:
        return array if isinstance(array, str) else self.leaves[array].name

    def applied(self, op: Op, xs: list[Expr]) -> Expr:
        form = None if self.ieee and op in REFUSING else python_form(op)
        return (form(self, *xs) if form else None) or call(self.function(op), *xs)

    def atom(self, x: Expr) -> Expr:
        """The expression by a name, which may be written several times."""
        if x.text.isidentifier():
            return x
        self.fresh += 1
        self.line(f"t{self.fresh} = {x.text}")
        return Expr(f"t{self.fresh}")

    def function(self, op: Op) -> str:
        name = op.name if op.name.isidentifier() else "op"
        value = unrefusing(op) if self.ieee and op in REFUSING else op.value
        while self.globals.setdefault(f"{name}_", value) is not value and self.globals[f"{name}_"] != value:
            name += "_"
        return f"{name}_"

    def reduced(self, op: Op, terms: tuple[Terms, ...]) -> Expr:
        """An op of many inputs: a sum is added up from left to right."""
        if op is ops.dot or op is ops.sum:
            total: Any = None
            for x in terms:
                if x.length == Linear(1):
                    one = self.product(x)
                    total = one if total is None else plus(self, total, one)
                else:
                    runs = self.run(x)
                    total = Expr(f"sum({runs})" if total is None else f"sum({runs}, {total.text})", ops=LONG)
                if total is not None and total.ops > LONG:
                    total = self.atom(total)
            return total or Expr("0.0")
        inputs = [self.product(x).text if x.length == Linear(1) else f"*{self.run(x)}" for x in terms]
        return Expr(f"{self.function(op)}({', '.join(inputs)})", ops=LONG)

    def product(self, x: Terms) -> Any:
        factors = [self.source(y) for y in x.factors]
        return factors[0] if len(factors) == 1 else times(self, *factors)

    def run(self, x: Terms) -> str:
        parts = [self.slice(y, step, x.length) for y, step in zip(x.factors, x.steps, strict=True)]
        return parts[0] if len(parts) == 1 else f"map(mul, {', '.join(parts)})"

    def slice(self, x: Source, step: int, count: Linear) -> str:
        if isinstance(x, float):
            return f"repeat({x!r}, {place(count)})"
        assert isinstance(x, (Cell, Entry))
        array = "table" if isinstance(x, Entry) else self.array(x.array)
        first = place(x.place)
        if step == 0:
            text = f"[{array}[{first}]] * ({place(count)})"
        elif step > 0:
            text = f"{array}[{first}:{place(x.place.plus(count, step))}:{step}]"
        else:
            text = f"{array}[{place(x.place.plus(count, step).plus(Linear(-step)))}:{first} + 1:{-step}][::-1]"
        if isinstance(x, Entry):
            return f"[{self.array(x.array)}[k] for k in {text}]"
        return text


def place(x: Linear) -> str:
    """The form as text."""
    parts = [name if k == 1 else f"{k} * {name}" for name, k in x.terms]
    if x.constant or not parts:
        parts.append(str(x.constant))
    return " + ".join(parts)


def bracketed(x: Linear) -> str:
    """The form as a factor."""
    return f"({place(x)})" if x.terms else place(x)


def _stores_over(steps: list[Step], indices: tuple[str, ...] = ()) -> bool:
    """Whether a place of the values is stored to in several iterations, see passes/overlay.py."""
    for x in steps:
        if isinstance(x, For) and _stores_over(x.body, (*indices, x.index)):
            return True
        if isinstance(x, Assign) and x.store is not None and indices:
            names = {name.removesuffix(f"_{COUNT}") for name, _ in x.store.terms} - {COUNT}
            if not names >= {*indices} and names <= {*indices}:  # else a counter tells them apart
                return True
    return False


def _uses(steps: list[Step]) -> Counter[str]:
    """How often each name is used; twice at least, if it is so in a loop within the body that it belongs to."""
    uses: Counter[str] = Counter()
    home: dict[str, int] = {}

    def walk(steps: list[Step], body: int) -> None:
        for x in steps:
            for y in sources_of(x):
                if isinstance(y, Name):
                    uses[y.name] += 1 if home.get(y.name) == body else 2
            if isinstance(x, Assign):
                home[x.name] = body
            if isinstance(x, For):
                for first, _ in x.carried.values():
                    if isinstance(first, Name):
                        uses[first.name] += 2
                walk(x.body, id(x))
                for _, after in x.carried.values():
                    uses[after] += 2

    walk(steps, 0)
    return uses

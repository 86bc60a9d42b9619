"""How a Value was made, and its derivatives, as formulas in the names of its inputs.

The form of each operation stands in its row of the table, and so do its derivatives. To write these down, a row's
partials are run on Values, and what the Values remember is read off: nothing is differentiated here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from milligrad.engine import Op, Reduction, Value, enable_grad, number, partials_as_numbers, topological_order
from milligrad.markup import elided, short_name, shown
from milligrad.ops import div, select
from milligrad.typing import Any, TypeAlias

CELLS = 24  # of a name, in a formula as in a sentence
FEW = 4  # a longer list is not written out
DIGITS = 6  # of a constant, unless more are asked for: 3.14159, and not 3.142, is what a user wrote
LONGEST = 100  # letters of a derivative: that of a product of a thousand inputs would have a thousand factors

Part: TypeAlias = tuple[str, int]
"""A part of a formula and its precedence: a part of lower precedence than what surrounds it needs parentheses."""
ATOM, NEGATIVE, UNARY = 5, -1, 3  # a name or f(x), which never needs them; a number like −2, which always does; -x
PRECEDENCE = {"**": 4, "*": 2, "/": 2, "+": 1, "-": 1}  # of the operators; a comparison has 0


def formula(z: Value, names: dict[Value, str], precision: int = 4) -> str:
    """Such as "speed * v2", "dot([w, v1], [0.5, 2.0])"; of a long list the first inputs and how many it has.

    Constants have `precision` significant digits, but at least DIGITS.
    """
    if z.op is None:
        return ""
    digits = max(precision, DIGITS)
    if isinstance(z.op, Reduction):
        return _of_lists(z.op, z.inputs, lambda x: _operand(x, names, digits))
    form: str = z.op.form
    return form.format(*[_operand(x, names, digits) for x in z.inputs])


def with_numbers(z: Value, precision: int = 4) -> str:
    """The same with the numbers put in: "20 * 0.9854"."""
    return _composed(z.op, [_number(x.real, precision) for x in z.inputs])[0] if z.op else ""


@dataclass(slots=True)
class Derivative:
    """∂z/∂x of an input x.

    formula:  in the names of z and of its inputs: "1 - y * y"
    numbers:  the same with the numbers put in: "1 - 0.8 * 0.8"
    value:    what that is
    """

    formula: str
    numbers: str
    value: float


def derivatives(z: Value, names: dict[Value, str], precision: int = 4) -> list[Derivative]:
    """∂z/∂x for each input x, as the row of the table has it; of a choice between two terms, the one that holds.

    Raises what Python's arithmetic raises where a derivative does not exist, as backward does.
    """
    values = partials_as_numbers(z)
    own = [x if type(x) is float else Value(x.data) for x in (z, *z.inputs)]  # fresh leaves: what is done is recorded
    with enable_grad():
        partials = z.op.partials(*own)  # type: ignore[union-attr]
    order = topological_order(partials)[::-1]
    called = {x: (short_name(names[y], CELLS), ATOM) for x, y in zip(own, (z, *z.inputs)) if type(x) is not float}
    formulas, numbers = (_written(partials, order, start, precision) for start in (called, {}))
    return [Derivative(f, n, number(value)) for f, n, value in zip(formulas, numbers, values)]


def _written(partials: Sequence[Any], order: Sequence[Value], start: dict[Any, Part], precision: int) -> list[str]:
    """The `partials` as formulas, of the parts that they begin with; what has no name is a number."""
    parts = dict(start)
    for d in order:
        inputs = [parts.get(x) or _number(x.real, precision) for x in d.inputs]
        taken = inputs[1 if d.inputs[0] else 2] if d.op is select else None
        if d.op is div and inputs[1] == ("1", ATOM) and (type(d.y) is float or not d.y.requires_grad):
            taken = inputs[0]  # what is left of a constant that corrects rounding
        parts[d] = taken or _composed(d.op, inputs)  # type: ignore[arg-type]
    return [(parts.get(d) or _number(number(d), precision))[0] for d in partials]


def _composed(op: Op, parts: Sequence[Part]) -> Part:
    """`op` of the parts, with parentheses where they are needed. What is very long loses its end."""
    if isinstance(op, Reduction):
        return elided(_of_lists(op, parts, lambda part: part[0]), LONGEST), ATOM
    symbol = op.form.replace("{}", "").strip()
    if symbol.endswith(")"):
        return elided(op.form.format(*[part for part, _ in parts]), LONGEST), ATOM
    own = PRECEDENCE.get(symbol, 0) if len(parts) == 2 else UNARY
    needed = [own + 1] * len(parts)
    if own in (1, 2):  # read from the left: a - b - c is (a - b) - c, and a - (b - c) is another number
        needed = [own, own + (symbol in ("-", "/"))]
    texts = [part if precedence >= needed[i] else f"({part})" for i, (part, precedence) in enumerate(parts)]
    return elided(op.form.format(*texts), LONGEST), own


def _of_lists(op: Reduction, inputs: Sequence[Any], write: Callable[[Any], str]) -> str:
    n = len(inputs) // op.lists
    lists = [_listed(inputs[k * n : (k + 1) * n], write) for k in range(op.lists)]
    return f"{op.name}({', '.join(f'[{xs}]' for xs in lists) if op.lists > 1 else lists[0]})"


def _listed(inputs: Sequence[Any], write: Callable[[Any], str]) -> str:
    if len(inputs) <= FEW:
        return ", ".join([write(x) for x in inputs])
    return ", ".join([write(x) for x in inputs[: FEW - 1]]) + f", … {len(inputs):,} in all"


def _operand(x: Any, names: dict[Value, str], digits: int) -> str:
    """A name, or a constant; a negative one in parentheses."""
    if type(x) is float:
        return shown(x, digits) if not x < 0 else f"({shown(x, digits)})"
    return short_name(names[x], CELLS)


def _number(x: float, precision: int) -> Part:
    number = shown(x, precision)
    return number, NEGATIVE if number.startswith("−") else ATOM

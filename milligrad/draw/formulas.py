"""How a Value was made, and its derivatives, as formulas in the names of its inputs.

The form of each operation stands in its row of the table, and so do its derivatives. To write these down, a row's
partials are run on Values, and what the Values remember is read off: nothing is differentiated here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from milligrad.engine import Op, Reduction, Value, enable_grad, number, partials_as_numbers, topological_order
from milligrad.markup import elided, short_name, shown
from milligrad.ops import div, select
from milligrad.typing import Any

CELLS = 24  # of a name, in a formula as in a sentence
FEW = 4  # a longer list is not written out
DIGITS = 6  # of a constant, unless more are asked for: 3.14159, and not 3.142, is what a user wrote
LONGEST = 100  # letters of a derivative: that of a product of a thousand inputs would have a thousand factors

EXACT = 17  # digits tell any float from all others


class Part(NamedTuple):
    """A part of a formula, and what it is when computed of the numbers that stand in it.

    precedence:  a part of lower precedence than what surrounds it needs parentheses
    """

    text: str
    precedence: int
    number: float


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
    """The same with the numbers put in: "20 * 0.9854", with so many digits that it is what z is."""
    if z.op is None:
        return ""

    def written(digits: int) -> list[Part]:
        return [_composed(z.op, [_number(x.real, digits) for x in z.inputs])]  # type: ignore[arg-type]

    return _that_hold(written, [z.data], precision)[0]


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
    values = [number(d) for d in partials_as_numbers(z)]
    own = [x if type(x) is float else Value(x.data) for x in (z, *z.inputs)]  # fresh leaves: what is done is recorded
    with enable_grad():
        partials = z.op.partials(*own)  # type: ignore[union-attr]
    order = topological_order(partials)[::-1]
    called = {
        x: Part(short_name(names[y], CELLS), ATOM, x.real) for x, y in zip(own, (z, *z.inputs)) if type(x) is not float
    }
    formulas = _written(partials, order, called, precision)
    numbers = _that_hold(lambda digits: _written(partials, order, {}, digits), values, precision)
    return [Derivative(part.text, n, value) for part, n, value in zip(formulas, numbers, values)]


def ordinals(inputs: Sequence[Any]) -> list[str]:
    """Of a Value among them that goes in more than once which time it is, "1st", "2nd", …; of all else ""."""
    times = Counter(id(x) for x in inputs if type(x) is not float)
    so_far: Counter[int] = Counter()
    which = []
    for x in inputs:
        so_far[id(x)] += 1
        which.append(_ordinal(so_far[id(x)]) if times[id(x)] > 1 else "")
    return which


def _ordinal(n: int) -> str:
    return f"{n:,}{'th' if n // 10 % 10 == 1 else {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10, 'th')}"


def partial(z: str, x: str, which: str = "") -> str:
    """`∂z/∂x`; or `∂z/∂x through the 2nd x`: only what comes through there, of an x that goes in more than once."""
    return f"∂{z}/∂{x}{f' through the {which} {x}' * bool(which)}"


# Numbers with as many digits as it takes for what is written to be true.


def digits_for(holds: Callable[[int], bool], precision: int) -> int:
    """The fewest digits, at least `precision`, with which an equation holds; `precision` if it does with none."""
    for digits in range(precision, EXACT + 1):
        with suppress(ValueError, ArithmeticError):  # of a number that was rounded to 0, or is none
            if holds(digits):
                return digits
    return precision


def rounded(x: float, digits: int) -> float:
    """The number that `shown` shows."""
    return float(f"{x:.{min(digits, EXACT)}g}")


def _that_hold(written: Callable[[int], list[Part]], values: Sequence[float], precision: int) -> list[str]:
    """What is written with so many digits, each as few as it needs to be its value to the digits of `precision`.

    What leaves something out, and what does not hold with all digits, is written with `precision`.
    """
    parts = written(precision)
    texts = [part.text for part in parts]
    waiting = {i for i, part in enumerate(parts) if "…" not in part.text}
    for digits in range(precision, EXACT + 1):
        done = {i for i in waiting if shown(parts[i].number, precision) == shown(values[i], precision)}
        texts = [parts[i].text if i in done else text for i, text in enumerate(texts)]
        waiting -= done
        if not waiting:
            break
        parts = written(digits + 1)
    return texts


def _written(partials: Sequence[Any], order: Sequence[Value], start: dict[Any, Part], precision: int) -> list[Part]:
    """The `partials` as formulas, of the parts that they begin with; what has no name is a number."""
    parts = dict(start)
    for d in order:
        inputs = [parts.get(x) or _number(x.real, precision) for x in d.inputs]
        taken = inputs[1 if d.inputs[0].real else 2] if d.op is select else None
        if d.op is div and inputs[1].text == "1" and (type(d.y) is float or not d.y.requires_grad):
            taken = inputs[0]  # what is left of a constant that corrects rounding
        parts[d] = taken or _composed(d.op, inputs)  # type: ignore[arg-type]
    return [parts.get(d) or _number(number(d), precision) for d in partials]


def _composed(op: Op, parts: Sequence[Part]) -> Part:
    """`op` of the parts, with parentheses where they are needed. What is very long loses its end."""
    number = _computed(op, [part.number for part in parts])
    if isinstance(op, Reduction):
        return Part(elided(_of_lists(op, parts, lambda part: part.text), LONGEST), ATOM, number)
    symbol = op.form.replace("{}", "").strip()
    if symbol.endswith(")"):
        return Part(elided(op.form.format(*[part.text for part in parts]), LONGEST), ATOM, number)
    own = PRECEDENCE.get(symbol, 0) if len(parts) == 2 else UNARY
    needed = [own + 1] * len(parts)
    if own in (1, 2):  # read from the left: a - b - c is (a - b) - c, and a - (b - c) is another number
        needed = [own, own + (symbol in ("-", "/"))]
    texts = [part.text if part.precedence >= needed[i] else f"({part.text})" for i, part in enumerate(parts)]
    return Part(elided(op.form.format(*texts), LONGEST), own, number)


def _computed(op: Op, numbers: Sequence[float]) -> float:
    """`op` of numbers; NaN where that is none, and of compiled code: it is no formula of its inputs, and refuses."""
    try:
        return op.value(*numbers)
    except (TypeError, ValueError, ArithmeticError, RuntimeError):
        return math.nan


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
    text = shown(x, precision)
    return Part(text, NEGATIVE if text.startswith("−") else ATOM, rounded(x, precision))

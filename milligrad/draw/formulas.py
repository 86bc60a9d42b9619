"""How a Value was made, as a formula in the names of its inputs. The form of each operation stands in its row."""

from __future__ import annotations

from collections.abc import Sequence

from milligrad.engine import Reduction, Value
from milligrad.markup import elided
from milligrad.typing import Any

CELLS = 16  # of a name in a formula
FEW = 4  # so many inputs of a list are written out


def formula(z: Value, names: dict[Value, str]) -> str:
    """Such as "speed * v2", "dot([w, v1], [0.5, 2.0])"; of a long list the first inputs and how many it has."""
    op, inputs = z.op, z.inputs
    if op is None:
        return ""
    if isinstance(op, Reduction):
        n = len(inputs) // op.lists
        lists = [_listed(inputs[k * n : (k + 1) * n], names) for k in range(op.lists)]
        return f"{op.name}({', '.join(f'[{xs}]' for xs in lists) if op.lists > 1 else lists[0]})"
    form: str = op.form
    return form.format(*[_operand(x, names) for x in inputs])


def _operand(x: Any, names: dict[Value, str]) -> str:
    """A name, or a constant; a negative one in parentheses."""
    if type(x) is float:
        return f"{x:.6g}" if x >= 0 else f"({x:.6g})"
    name: str = names[x]
    return name if len(name) <= CELLS and name.isascii() else elided(name, CELLS)


def _listed(inputs: Sequence[Any], names: dict[Value, str]) -> str:
    if len(inputs) <= FEW:
        return ", ".join([_operand(x, names) for x in inputs])
    return ", ".join([_operand(x, names) for x in inputs[: FEW - 1]]) + f", … {len(inputs):,} in all"

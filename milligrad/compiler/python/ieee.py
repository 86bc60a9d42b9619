"""The rows' values as IEEE 754 has them: NaN or inf where Python's arithmetic raises an error.

Native code computes so by itself. Python's does in the second text of a program, which is run once the first one has
raised: a number that makes no sense matters only if a result depends on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from milligrad import ops
from milligrad.engine import Op


def unrefusing(op: Op) -> Callable[..., float]:
    """The value of `op`, which raises nothing; its attribute `op` is the op."""
    value = op.value

    def ieee(*xs: float) -> float:
        try:
            return value(*xs)
        except OverflowError:
            return -math.inf if _is_negative(op, xs) else math.inf
        except ZeroDivisionError:
            return _at_pole(op, xs)
        except (ValueError, ArithmeticError):
            return _at_pole(op, xs)

    ieee.__name__ = f"{op.name}_or_nan"
    ieee.op = op  # type: ignore[attr-defined]
    return ieee


def _is_negative(op: Op, xs: tuple[float, ...]) -> bool:
    """Whether what is too large for a float is below 0."""
    x = xs[0]
    return math.copysign(1.0, x) < 0 and (op is ops.sinh or (op in POWERS and abs(xs[1]) % 2 == 1))


def _at_pole(op: Op, xs: tuple[float, ...]) -> float:
    """x / 0, 0 to a negative power, and logarithms of 0; elsewhere there is no number."""
    if op is ops.log1p or op is ops.log1mexp:
        return -math.inf if xs[0] == (-1.0 if op is ops.log1p else 0.0) else math.nan
    if op is ops.xlogy:
        return math.copysign(math.inf, -xs[0]) if xs[1] == 0 else math.nan
    if op is ops.div:
        x, y = xs
        return math.nan if x == 0 or x != x else math.copysign(math.inf, x) * math.copysign(1.0, y)
    return (-math.inf if _is_negative(op, xs) else math.inf) if op in POWERS and xs[0] == 0 else math.nan


POWERS = (ops.power, ops.exponential, ops.pow)

# mypy: disable-error-code="method-assign,assignment"
"""THE TABLE: every operation of milligrad, as one row: its value and its partial derivatives.

All calculus of the project is on this page. The backward pass, second derivatives, pictures, the compiler, layers
and losses are derived from it, and none of them knows a derivative of its own.

In a row, x, y, … are the inputs and z is the output, which often makes the shortest formula: tanh' = 1 - z².
A comparison counts as 0 or 1, so `(x > 0) - (x < 0)` is the sign of x; `1 - (x <= 0)` is `x > 0`, but keeps the
gradient of a NaN, as PyTorch does. Some rows have a corner where the derivative
jumps; there they take the side that PyTorch takes (relu' = 0 and abs' = 0 at 0, max shares among equals).

`sum`, `min`, `max`, `abs` and `pow` are here what they are in mathematics; Python's own are under `builtins`.
"""

from __future__ import annotations

import builtins
import math
import operator
from collections.abc import Iterable, Sequence
from itertools import accumulate

from milligrad.engine import Number, Op, Reduction, Value, infix, node, number, numbers, tracer
from milligrad.typing import Any

__all__ = [
    "LOG_EPSILON", "abs", "acos", "asin", "atan", "clamp", "cos", "cosh", "dot", "erf", "exp", "expm1", "log", "log1p",
    "logsumexp", "max", "maximum", "mean", "min", "minimum", "prod", "relu", "sigmoid", "sin", "sinh", "softplus", "sqrt",
    "sum", "tan", "tanh", "where",
]  # fmt: skip

LOG_EPSILON = 1e-8
"""What log takes for an input of exactly 0: log(0) = ln(1e-8) ≈ -18.42, with the derivative 1/1e-8 = 1e8."""

NAN = math.nan
POWER_DOMAIN = "x > 0 or y % 1 == 0 and (x < 0 or y >= 0)"
BCE_FLOOR = -100.0  # what PyTorch's binary cross entropy takes for a logarithm below it
BCE_SMALLEST = 9.999999960041972e-13  # and for a smaller x·(1 - x) in its derivative: 1e-12, in single precision


# Values that Python's math module does not have in this form. Each is finite wherever the result is.


def _power(x: float, y: float) -> float:
    if x == 0 and y < 0:
        raise ZeroDivisionError("0 to a negative power")
    return math.pow(x, y)


def _sigmoid(x: float) -> float:
    if x >= 0:
        return 1 / (1 + math.exp(-x))
    e = math.exp(x)
    return e / (1 + e)


def _softplus(x: float) -> float:
    return builtins.max(x, 0.0) + math.log1p(math.exp(-builtins.abs(x)))


def _clamp(x: float, lo: float, hi: float) -> float:
    if x != x or lo != lo or hi != hi:
        return NAN
    return hi if x > hi or lo > hi else lo if x < lo else x


def _bce(x: float, y: float) -> float:
    if not 0 <= x <= 1:
        raise ValueError("x is no probability")
    if y < 0 or y > 1:
        raise ValueError("y is no probability")
    log_x = math.log(x) if x > 0 else BCE_FLOOR
    log_1_x = math.log1p(-x) if x < 1 else BCE_FLOOR
    return -(y * builtins.max(log_x, BCE_FLOOR) + (1 - y) * builtins.max(log_1_x, BCE_FLOOR))


def _dot(*xy: float) -> float:
    n = len(xy) // 2
    return builtins.sum(map(operator.mul, xy[:n], xy[n:]), 0.0)


def _logsumexp(*xs: float) -> float:
    """m + log(1 + Σ exp(x - m)) over all x but one largest, m: exact also where m stands far above the rest."""
    m = builtins.max(xs)
    if math.isinf(m):
        return _largest(*xs)  # a NaN among infinities
    rest = list(xs)
    rest.remove(m)
    return m + math.log1p(builtins.sum([math.exp(x - m) for x in rest]))


def _largest(*xs: float) -> float:
    return NAN if any(x != x for x in xs) else builtins.max(xs)


def _smallest(*xs: float) -> float:
    return NAN if any(x != x for x in xs) else builtins.min(xs)


# Partials too long for their row.


def _halves(xy: tuple[Any, ...]) -> tuple[Any, ...]:
    """(*xs, *ys) → (*ys, *xs)"""
    n = len(xy) // 2
    return xy[n:] + xy[:n]


def _products_of_others(xs: tuple[Any, ...]) -> list[Any]:
    """The product of all but one, for each one: what stands left of it times what stands right. Exact at zeros."""
    left = accumulate(xs[:-1], operator.mul, initial=1.0)
    right = list(accumulate(xs[:0:-1], operator.mul, initial=1.0))
    return [a * b for a, b in zip(left, reversed(right))]


def _shares(extreme: list[Any]) -> list[Any]:
    """1 where `extreme` holds, divided by how many hold."""
    n = builtins.sum(extreme)
    return [e / n for e in extreme]


def _pow_partials(z: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """y·x^(y-1) and z·ln x. 0⁰ = 1 has the derivatives 0 and 0, and for x < 0 the second is no number.

    Only at x = y = 0 is the base taken to be 1: elsewhere at y = 0 the second derivative 1/x needs the true x.
    """
    base = where((x < 0) + (x > 0) + (y < 0) + (y > 0), x, 1.0)
    return y * base ** (y - 1), z * _log_of_base(x)


def _log_of_base(x: Any) -> Any:
    """ln x in ∂x^y/∂y = x^y·ln x: 0 at x = 0, since 0^y stays 0, and no number below."""
    return log(where(x > 0, x, where(x >= 0, 1.0, NAN)))


def _bce_partials(z: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """(x - y) / (x·(1 - x)) and ln(1 - x) - ln x, within PyTorch's bounds.

    It is a row because of them: below the floor the value stands still, but PyTorch's derivative goes on.
    """
    log_x = log(maximum(x, math.exp(BCE_FLOOR)))
    log_1_x = where(x < 1, log1p(-where(x < 1, x, 0.0)), BCE_FLOOR)
    return (x - y) / maximum(x * (1 - x), BCE_SMALLEST), log_1_x - log_x


# fmt: off
# ── Arithmetic ───────────────────────────────────────────────────────────────────────────────────────────────────
add      = Op("add", operator.add,     lambda z, x, y: (1.0, 1.0),     "{} + {}", "x plus y.")
sub      = Op("sub", operator.sub,     lambda z, x, y: (1.0, -1.0),    "{} - {}", "x minus y.")
mul      = Op("mul", operator.mul,     lambda z, x, y: (y, x),         "{} * {}", "x times y.")
div      = Op("div", operator.truediv, lambda z, x, y: (1/y, -z/y),    "{} / {}", "x divided by y.", "y != 0")
power    = Op("power", _power,         lambda z, x, y: (y * x**(y - 1) if y else 0.0, 0.0),
              "{} ** {}", "x to the power of a constant y.", POWER_DOMAIN)
exponential = Op("exponential", _power, lambda z, x, y: (0.0, z * _log_of_base(x)),
              "{} ** {}", "A constant x to the power of y.", POWER_DOMAIN)
pow      = Op("pow", _power,           _pow_partials,
              "{} ** {}", "x to the power of y.",            POWER_DOMAIN)
neg      = Op("neg", operator.neg,     lambda z, x: (-1.0,),           "-{}",     "x with the other sign.")
identity = Op("identity", operator.pos, lambda z, x: (1.0,),           "+{}",     "x itself, as a new node.")

# ── Exponentials and logarithms ──────────────────────────────────────────────────────────────────────────────────
exp      = Op("exp",   math.exp,       lambda z, x: (z,),              "exp({})",   "e to the power of x.")
expm1    = Op("expm1", math.expm1,     lambda z, x: (z + 1,),          "expm1({})", "exp(x) - 1, exact near 0.")
log      = Op("log",   lambda x: math.log(x or LOG_EPSILON), lambda z, x: (1 / where(x <= 0, LOG_EPSILON, x),),
              "log({})", "The natural logarithm of x; at 0 that of LOG_EPSILON.", "x >= 0")
log1p    = Op("log1p", math.log1p,     lambda z, x: (1 / (1 + x),),    "log1p({})", "log(1 + x), exact near 0.", "x > -1")
sqrt     = Op("sqrt",  math.sqrt,      lambda z, x: (1 / (2*z),),      "sqrt({})",  "The square root of x.", "x >= 0")

# ── Trigonometry: angles are in radians ──────────────────────────────────────────────────────────────────────────
sin      = Op("sin",   math.sin,       lambda z, x: (cos(x),),         "sin({})",  "The sine of x.",    "-inf < x < inf")
cos: Op  = Op("cos",   math.cos,       lambda z, x: (-sin(x),),        "cos({})",  "The cosine of x.",  "-inf < x < inf")
tan      = Op("tan",   math.tan,       lambda z, x: (1 + z*z,),        "tan({})",  "The tangent of x.", "-inf < x < inf")
asin     = Op("asin",  math.asin,      lambda z, x: (1 / sqrt(1 - x*x),),  "asin({})", "The angle in [-π/2, π/2] whose sine is x.", "-1 <= x <= 1")
acos     = Op("acos",  math.acos,      lambda z, x: (-1 / sqrt(1 - x*x),), "acos({})", "The angle in [0, π] whose cosine is x.",    "-1 <= x <= 1")
atan     = Op("atan",  math.atan,      lambda z, x: (1 / (1 + x*x),),      "atan({})", "The angle in (-π/2, π/2) whose tangent is x.")
sinh     = Op("sinh",  math.sinh,      lambda z, x: (cosh(x),),        "sinh({})", "The hyperbolic sine of x.")
cosh: Op = Op("cosh",  math.cosh,      lambda z, x: (sinh(x),),        "cosh({})", "The hyperbolic cosine of x.")
tanh     = Op("tanh",  math.tanh,      lambda z, x: (1 - z*z,),        "tanh({})", "The hyperbolic tangent of x.")

# ── What networks are made of ────────────────────────────────────────────────────────────────────────────────────
sigmoid  = Op("sigmoid",  _sigmoid,    lambda z, x: (z * (1 - z),),    "sigmoid({})",  "1 / (1 + exp(-x)).")
softplus = Op("softplus", _softplus,   lambda z, x: (sigmoid(x),),     "softplus({})", "log(1 + exp(x)): a smooth relu.")
erf      = Op("erf",      math.erf,    lambda z, x: (2 / math.sqrt(math.pi) * exp(-(x*x)),), "erf({})", "The error function of x.")
bce      = Op("bce",      _bce,        _bce_partials,
              "bce({}, {})", "-(y·ln x + (1-y)·ln(1-x)), each logarithm at least -100: the binary cross entropy.", "0 <= x <= 1 and 0 <= y <= 1")

# ── Corners: a comparison counts as 0 or 1 ───────────────────────────────────────────────────────────────────────
relu     = Op("relu",  lambda x: 0.0 if x <= 0 else x, lambda z, x: (1 - (z <= 0),), "relu({})", "x where it is positive, else 0.")
abs      = Op("abs",   math.fabs,      lambda z, x: ((x > 0) - (x < 0),),            "abs({})",  "x without its sign.")
clip     = Op("clamp", _clamp,         lambda z, x, lo, hi: ((lo <= x) * (x <= hi), (lo < hi) * (x < lo), (hi < lo) + (lo <= hi) * (x > hi)),
              "clamp({}, {}, {})", "x, but at least the second input and at most the third.")
select   = Op("where", lambda c, x, y: x if c else y, lambda z, c, x, y: (0.0, c, 1.0 - c),
              "where({}, {}, {})", "The second input where the condition (1 or 0) holds, else the third.")
less       = Op("less",       lambda x, y: float(x < y),  lambda z, x, y: (0.0, 0.0), "{} < {}",  "1 where x is below y, else 0.")
less_equal = Op("less_equal", lambda x, y: float(x <= y), lambda z, x, y: (0.0, 0.0), "{} <= {}", "1 where x is at most y, else 0.")
equal      = Op("equal",      lambda x, y: float(x == y), lambda z, x, y: (0.0, 0.0), "{} == {}", "1 where x and y are the same number, else 0.")

# ── Of many inputs, in one node ──────────────────────────────────────────────────────────────────────────────────
sum       = Reduction("sum",  lambda *xs: builtins.sum(xs, 0.0), lambda z, *xs: (1.0,) * len(xs), "sum({})", "All x added up; 0 for none.")
prod      = Reduction("prod", lambda *xs: math.prod(xs, start=1.0), lambda z, *xs: _products_of_others(xs), "prod({})", "All x multiplied; 1 for none.")
dot       = Reduction("dot",  _dot,    lambda z, *xy: _halves(xy),               "dot({})", "x₁·y₁ + x₂·y₂ + … of two lists x and y.", lists=2)
logsumexp = Reduction("logsumexp", _logsumexp, lambda z, *xs: [exp(x - z) for x in xs], "logsumexp({})", "log(exp(x₁) + exp(x₂) + …), without overflow.")
max       = Reduction("max",  _largest,  lambda z, *xs: _shares([1 - (x < z) for x in xs]), "max({})", "The largest x; equals share the derivative.")
min       = Reduction("min",  _smallest, lambda z, *xs: _shares([1 - (x > z) for x in xs]), "min({})", "The smallest x; equals share the derivative.")
# fmt: on

TABLE: dict[str, Op] = {row.name: row for row in list(globals().values()) if isinstance(row, Op)}
"""Every row by its name."""


# Functions that call a row in another form.


def where(condition: Any, x: Number, y: Number) -> Any:
    """x where the condition holds, else y: an `if` that can be differentiated (and, one day, compiled).

    The condition is a comparison, or a number that counts as true unless it is 0; no derivative passes through it.
    """
    if isinstance(condition, Value) and tracer():
        condition = +condition  # a parameter, too, has no number while it is traced
    if isinstance(condition, Value) and condition.symbolic:
        return select(condition if condition.op in (less, less_equal, equal) else 1 - equal(condition, 0.0), x, y)
    return select(float(bool(number(condition, "condition"))), x, y)


def matvec(rows: Iterable[Sequence[Any]], xs: Iterable[Number]) -> list[Any]:
    """dot(row, xs) for each of the rows. It looks up the numbers of xs once for all, and takes a third of the time."""
    ys = tuple(xs)
    if not {*map(type, ys)} <= {Value, float}:
        return [dot(row, ys) for row in rows]
    reals = [y.real for y in ys]

    def one(row: Sequence[Any]) -> Any:
        if len(row) != len(ys):
            return dot(row, ys)
        try:
            data = builtins.sum(map(operator.mul, [x.data for x in row], reals), 0.0)
        except (AttributeError, TypeError):  # not all of the row are Values
            return dot(row, ys)
        return node(dot, tuple(list.copy(row) if isinstance(row, list) else row) + ys, data)  # in no time

    return [one(row) for row in rows]


def clamp(x: Number, min: Number | None = None, max: Number | None = None) -> Any:
    """x, but at least `min` and at most `max`; None is no bound. If min > max, it is max, as in PyTorch."""
    return clip(x, -math.inf if min is None else min, math.inf if max is None else max)


def maximum(x: Number, y: Number) -> Any:
    """The larger of x and y; each gets half of the derivative where they are equal."""
    return max((x, y))


def minimum(x: Number, y: Number) -> Any:
    """The smaller of x and y; each gets half of the derivative where they are equal."""
    return min((x, y))


def mean(xs: Iterable[Number]) -> Any:
    """The arithmetic mean of xs. Raises ValueError if there are none."""
    inputs = numbers(xs, "mean")
    if not inputs:
        raise ValueError("mean: expected at least one number, got an empty list")
    return sum(inputs) / len(inputs)


# Operators and methods of Value, which engine.py declares (hence the first line of this file). A constant exponent or
# base has a rule of its own: shorter, and it holds also where the derivative by the constant would not exist.


Value.__add__, Value.__radd__ = infix(add)
Value.__sub__, Value.__rsub__ = infix(sub)
Value.__mul__, Value.__rmul__ = infix(mul)
Value.__truediv__, Value.__rtruediv__ = infix(div)
Value.__pow__, Value.__rpow__ = infix(pow, power, exponential)
Value.__neg__, Value.__pos__, Value.__abs__ = neg, identity, abs

for _row in (
    exp, expm1, log, log1p, sqrt, sin, cos, tan, asin, acos, atan, sinh, cosh, tanh, sigmoid, softplus, erf, relu, abs
):  # fmt: skip
    setattr(Value, _row.name, _row)
Value.sum_of_products = staticmethod(dot)
Value.clamp, Value.maximum, Value.minimum = clamp, maximum, minimum
Value.where = lambda x, condition, y: where(condition, x, y)

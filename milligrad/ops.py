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
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate

from milligrad import engine
from milligrad.engine import Number, Op, Reduction, Value, infix, node, number, numbers, tracer
from milligrad.typing import Any

__all__ = [
    "LOG_EPSILON", "abs", "acos", "asin", "atan", "clamp", "cos", "cosh", "dot", "erf", "erfc", "exp", "expm1", "log",
    "log1mexp", "log1p", "log_normal_cdf", "log_sigmoid", "logaddexp", "logsumexp", "max", "maximum", "mean", "min",
    "minimum", "normal_cdf", "prod", "relu", "sigmoid", "sin", "sinh", "softplus", "sqrt", "sum", "tan", "tanh", "where",
    "xlogy",
]  # fmt: skip

LOG_EPSILON = 1e-8
"""What log takes for an input of exactly 0: log(0) = ln(1e-8) ≈ -18.42, with the derivative 1/1e-8 = 1e8."""

NAN = math.nan
POWER_DOMAIN = "x > 0 or y % 1 == 0 and (x < 0 or y >= 0)"
BCE_FLOOR = -100.0  # what PyTorch's binary cross entropy takes for a logarithm below it
BCE_SMALLEST = 9.999999960041972e-13  # and for a smaller x·(1 - x) in its derivative: 1e-12, in single precision
LOG_2 = math.log(2)
LOG_SQRT_2_PI = math.log(2 * math.pi) / 2
NORMAL_TAIL = -8.0  # where the normal distribution's left tail begins, in which Φ is taken from a continued fraction


# Sums of floats, of which every one of milligrad's is made: from left to right, each rounded. Python's own `sum` does
# that up to 3.11; from 3.12 on it carries the rounding errors along, but only if its start is exactly a float.


class _Start(float):
    __slots__ = ()


def _added(xs: Iterable[float], start: float = 0.0) -> float:
    z = builtins.sum(xs, _Start(start))
    return float(z) if type(z) is _Start else z  # the sum of nothing is the start


added: Callable[..., float] = builtins.sum if builtins.sum([1e16, 1.0, -1e16]) == 0.0 else _added
"""`added(xs, start)`: start + x₁ + x₂ + …, the same number on every version of Python."""


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


def _xlogy(x: float, y: float) -> float:
    return 0.0 if x == 0 and y == y else x * math.log(y)


def _log1mexp(x: float) -> float:
    if x <= 0:
        raise ValueError("x is not positive")
    return math.log(-math.expm1(-x)) if x < LOG_2 else math.log1p(-math.exp(-x))


def _log_normal_cdf(x: float) -> float:
    if x < NORMAL_TAIL:
        return -x * x / 2 - LOG_SQRT_2_PI - math.log(tail_ratio(-x))
    q = math.erfc(math.fabs(x) * math.sqrt(0.5)) / 2  # the probability of what lies further out, on the side of x
    return math.log1p(-q) if x > 0 else math.log(q)


def tail_ratio(a: Any) -> Any:
    """φ(a) / Φ(-a) of the normal distribution, far out: a + 1/(a + 2/(a + 3/(a + …))). Laplace 1805.

    16 terms are exact to the last digit for a ≥ 8, and all derivatives of the fraction with it.
    """
    z = a
    for k in range(16, 0, -1):
        z = a + k / z
    return z


def _dot(*xy: float) -> float:
    n = len(xy) // 2
    return added(map(operator.mul, xy[:n], xy[n:]), 0.0)


def _chain(*xy: float) -> float:
    total = _dot(*xy)
    if total == total:
        return total  # a product of 0 and inf or NaN would have made it NaN
    n = len(xy) // 2
    return added([x * y for x, y in zip(xy[:n], xy[n:]) if x and y], 0.0)


def _logsumexp(*xs: float) -> float:
    """m + log(1 + Σ exp(x - m)) over all x but one largest, m: exact also where m stands far above the rest."""
    m = builtins.max(xs)
    if math.isinf(m):
        return _largest(*xs)  # a NaN among infinities
    rest = list(xs)
    rest.remove(m)
    return m + math.log1p(added([math.exp(x - m) for x in rest]))


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
    """1 where `extreme` holds, divided by how many hold; where none does, there was a NaN, and NaN is the share of each."""
    n = builtins.sum(extreme)
    n = where(n > 0, n, NAN)
    return [e / n for e in extreme]


def _logsumexp_partials(z: Any, *xs: Any) -> list[Any]:
    """exp(x - z), divided by their sum. That is 1 but for the rounding of z, so it is no function of x: a constant.

    If every x is -inf, each share is 0.
    """
    middle = where(z <= -math.inf, 0.0, z)
    shares = [exp(x - middle) for x in xs]
    total = sum([share.detach() if isinstance(share, Value) else share for share in shares])
    total = where(total > 0, total, 1.0)
    return [share / total for share in shares]


def _xlogy_partials(z: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """ln y and x / y; both are 0 where x is 0 and y is not positive."""
    y = where(y <= 0, lambda: where(equal(x, 0.0), 1.0, where(y < 0, NAN, y)), y)
    return log(y), x / y


def _log_normal_cdf_partials(z: Any, x: Any) -> tuple[Any]:
    """φ(x) / Φ(x), with Φ(x) = exp(z): the inverse of Mills' ratio. In the left tail, where that cancels, its fraction."""
    tail = x < NORMAL_TAIL
    near, z, a = where(tail, 0.0, x), where(tail, 0.0, z), where(tail, -x, 1.0)
    return (where(tail, tail_ratio(a), exp(-near * near / 2 - LOG_SQRT_2_PI - z)),)


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
    spread = x * (1 - x)
    return (x - y) / maximum(where(spread < 0, NAN, spread), BCE_SMALLEST), log_1_x - log_x


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
expm1    = Op("expm1", math.expm1,     lambda z, x: (exp(x),),         "expm1({})", "exp(x) - 1, exact near 0.")
log      = Op("log",   lambda x: math.log(x or LOG_EPSILON), lambda z, x: (1 / where(x <= 0, lambda: where(x < 0, NAN, LOG_EPSILON), x),),
              "log({})", "The natural logarithm of x; at 0 that of LOG_EPSILON.", "x >= 0")
log1p    = Op("log1p", math.log1p,     lambda z, x: (1 / (1 + where(x < -1, NAN, x)),),    "log1p({})", "log(1 + x), exact near 0.", "x > -1")
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
erfc     = Op("erfc",     math.erfc,   lambda z, x: (-2 / math.sqrt(math.pi) * exp(-(x*x)),), "erfc({})", "1 - erf(x), exact in the right tail.")
log_normal_cdf = Op("log_normal_cdf", _log_normal_cdf, _log_normal_cdf_partials,
              "log_normal_cdf({})", "log Φ(x) of the standard normal distribution, exact in both tails.")
log1mexp = Op("log1mexp", _log1mexp,   lambda z, x: (-exp(-x) / expm1(-where(x < 0, NAN, x)),),
              "log1mexp({})", "log(1 - exp(-x)), exact for large and for small x. Mächler 2012, eq. 7.", "x > 0")
xlogy    = Op("xlogy",    _xlogy,      _xlogy_partials,
              "xlogy({}, {})", "x times log(y); 0 where x is 0.", "x == 0 or y > 0")
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
sum       = Reduction("sum",  lambda *xs: added(xs, 0.0), lambda z, *xs: (1.0,) * len(xs), "sum({})", "All x added up from left to right; 0 for none.", symmetric=True)
prod      = Reduction("prod", lambda *xs: math.prod(xs, start=1.0), lambda z, *xs: _products_of_others(xs), "prod({})", "All x multiplied; 1 for none.", symmetric=True)
dot       = Reduction("dot",  _dot,    lambda z, *xy: _halves(xy),               "dot({})", "x₁·y₁ + x₂·y₂ + …, from left to right, of two lists x and y.", lists=2, symmetric=True)
chain     = Reduction("chain", _chain, lambda z, *xy: _halves(xy),               "chain({})", "x₁·y₁ + x₂·y₂ + …, where 0 times anything is 0: what the chain rule adds up.", lists=2, symmetric=True)
logsumexp = Reduction("logsumexp", _logsumexp, _logsumexp_partials, "logsumexp({})", "log(exp(x₁) + exp(x₂) + …), without overflow.", symmetric=True)
max       = Reduction("max",  _largest,  lambda z, *xs: _shares([x >= z for x in xs]), "max({})", "The largest x; equals share the derivative.", symmetric=True)
min       = Reduction("min",  _smallest, lambda z, *xs: _shares([x <= z for x in xs]), "min({})", "The smallest x; equals share the derivative.", symmetric=True)
# fmt: on

TABLE: dict[str, Op] = engine.TABLE  # every row by its name
TABLE.update({row.name: row for row in list(globals().values()) if isinstance(row, Op)})


# Functions that call a row in another form.


def where(condition: Any, x: Any, y: Any) -> Any:
    """x where the condition holds, else y: an `if` that can be differentiated and compiled.

    The condition is a comparison, or a number that counts as true unless it is 0; no derivative passes through it.
    x and y are numbers, or functions without arguments that return them: of these eager code calls only the one whose
    result is taken, as in `where(x > 0, lambda: sqrt(x), 0.0)`, while sqrt(x) alone would be refused below 0. Compiled
    code computes both, and a number that makes no sense in the one that is not taken does not matter there.
    """
    if isinstance(condition, Value) and not condition.symbolic and tracer():
        condition = +condition  # a parameter, too, has no number while it is traced
    if isinstance(condition, Value) and condition.symbolic:
        is_answer = condition.op in (less, less_equal, equal)
        return select(condition if is_answer else 1 - equal(condition, 0.0), _called(x), _called(y))
    holds = bool(number(condition, "condition"))
    if callable(x) or callable(y):
        taken = _called(x if holds else y)
        return taken if isinstance(taken, Value) else number(taken, "x" if holds else "y")
    return select(float(holds), x, y)


def _called(x: Any) -> Any:
    return x() if callable(x) else x


def _where(x: Value, condition: Any, y: Any) -> Any:
    """x where the condition holds, else y."""
    return where(condition, x, y)


_where.__name__ = _where.__qualname__ = "where"  # as the method is called, and printed


def matvec(rows: Iterable[Sequence[Any]], xs: Iterable[Number]) -> list[Any]:
    """dot(row, xs) for each of the rows. It looks up the numbers of xs once for all, and takes a third of the time."""
    ys = tuple(xs)
    if not {*map(type, ys)} <= {Value, float}:
        return [dot(row, ys) for row in rows]
    reals = [y._data if isinstance(y, Value) else y for y in ys]

    def one(row: Sequence[Any]) -> Any:
        if len(row) != len(ys):
            return dot(row, ys)
        try:
            data = added(map(operator.mul, [x._data for x in row], reals), 0.0)
        except (AttributeError, TypeError):  # not all of the row are Values
            return dot(row, ys)
        return node(dot, tuple(list.copy(row) if isinstance(row, list) else row) + ys, data)  # in no time

    return [one(row) for row in rows]


def clamp(x: Number, min: Number | None = None, max: Number | None = None) -> Any:
    """x, but at least `min` and at most `max`; None is no bound. If min > max, it is max, as in PyTorch."""
    return clip(x, -math.inf if min is None else min, math.inf if max is None else max)


def maximum(x: Number, y: Number) -> Any:
    """The larger of x and y; each gets half of the derivative where they are equal, and NaN where one is NaN."""
    return max((x, y))


def minimum(x: Number, y: Number) -> Any:
    """The smaller of x and y; each gets half of the derivative where they are equal, and NaN where one is NaN."""
    return min((x, y))


def log_sigmoid(x: Number) -> Any:
    """log(sigmoid(x)) = -log(1 + exp(-x)), exact in both tails."""
    return -softplus(-x)


def logaddexp(x: Number, y: Number) -> Any:
    """log(exp(x) + exp(y)), without overflow: the logarithm of a sum, from the logarithms of its terms."""
    return logsumexp((x, y))


def normal_cdf(x: Number) -> Any:
    """Φ(x) = erfc(-x / √2) / 2: the standard normal distribution function, exact in the left tail, too."""
    return erfc(-x * math.sqrt(0.5)) / 2


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
    exp, expm1, log, log1p, sqrt, sin, cos, tan, asin, acos, atan, sinh, cosh, tanh, sigmoid, softplus, erf, erfc, relu,
    abs,
):  # fmt: skip
    setattr(Value, _row.name, _row)
Value.sum_of_products = staticmethod(chain)
Value.clamp, Value.maximum, Value.minimum = clamp, maximum, minimum
Value.where = _where

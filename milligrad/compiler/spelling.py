"""How each op of the table is spelled: one row each, for Python, LLVM and C, and what it costs.

    formula  the op's value as arithmetic, choices and functions of the C library. It is written once: on LLVM's numbers
             (`llvm.instructions.Num`) it gives instructions, on pieces of C (`c.in_order.Piece`) an expression
    python   an expression of Python, where one is quicker than a call of the op's value
    cost     the time of the op, in additions

The same values and the same corners as in the table. But outside of its domain a formula gives NaN or an infinity
instead of an error. What is known beforehand is computed by the op's own value, so no row tells how.

    Fold     how an op of many inputs takes them, one after the other
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

from milligrad.engine import TABLE, Op
from milligrad.ops import BCE_FLOOR, LOG_2, LOG_EPSILON, LOG_SQRT_2_PI, NORMAL_TAIL, tail_ratio

# ── Python ─────────────────────────────────────────────────────────────────────────────────────────────────────────

CHOICE, SUM, PRODUCT, SIGN, ATOM = range(5)  # how tightly the outermost operator binds


class Expr(NamedTuple):
    """A piece of Python.

    binds:  how tightly its outermost operator does
    ops:    how many operations it has
    total:  whether it has a value for all numbers, and may therefore be left out of the way of an `if`
    test:   for a comparison, the condition alone
    """

    text: str
    binds: int = ATOM
    ops: int = 0
    total: bool = True
    test: str = ""

    def at(self, level: int) -> str:
        """Its text for a place that wants operators to bind at least that tightly."""
        return self.text if self.binds >= level else f"({self.text})"


class Block(Protocol):
    """Where an expression is written."""

    def atom(self, x: Expr) -> Expr:
        """The expression by a name, which may be written several times."""


N = TypeVar("N")
N_co = TypeVar("N_co", covariant=True)
Form: TypeAlias = "Callable[..., Expr | None]"  # (block, *expressions) → None, if it is not the op's value for these


def literal(x: float) -> Expr:
    return Expr(repr(float(x)), SIGN if math.copysign(1, x) < 0 else ATOM)


def literally(x: Expr) -> float | None:
    """The number that it is, if it is a literal."""
    try:
        return float(x.text)
    except ValueError:
        return None


def call(name: str, *xs: Expr) -> Expr:
    return Expr(f"{name}({', '.join(x.text for x in xs)})", ops=1 + sum(x.ops for x in xs), total=False)


def infix(symbol: str, binds: int) -> Callable[[Block, Expr, Expr], Expr]:
    def form(block: Block, x: Expr, y: Expr) -> Expr:
        text = f"{x.at(binds)} {symbol} {y.at(binds + 1)}"
        return Expr(text, binds, x.ops + y.ops + 1, x.total and y.total and symbol != "/")

    return form


plus, times = infix("+", SUM), infix("*", PRODUCT)


def _compare(symbol: str) -> Form:
    def form(block: Block, x: Expr, y: Expr) -> Expr:
        test = f"{x.at(SUM)} {symbol} {y.at(SUM)}"
        return Expr(f"1.0 if {test} else 0.0", CHOICE, x.ops + y.ops + 1, x.total and y.total, test)

    return form


def _minus(block: Block, x: Expr) -> Expr:
    return Expr(f"-{x.at(SIGN)}", SIGN, x.ops + 1, x.total)


def _log(block: Block, x: Expr) -> Expr:
    return Expr(f"log({x.at(SUM)} or {LOG_EPSILON})", ATOM, x.ops + 1, False)


def _relu(block: Block, x: Expr) -> Expr:
    x = block.atom(x)
    return Expr(f"0.0 if {x.text} <= 0.0 else {x.text}", CHOICE, 1)


def _where(block: Block, c: Expr, x: Expr, y: Expr) -> Expr:
    """Both sides are computed even if one is not wanted, as in eager code, unless that cannot be noticed."""
    x, y = (side if side.total else block.atom(side) for side in (x, y))
    test = c.test or c.at(SUM)
    return Expr(f"{x.at(SUM)} if {test} else {y.at(CHOICE)}", CHOICE, c.ops + x.ops + y.ops + 1, c.total)


def _clamped(block: Block, x: Expr, lo: Expr, hi: Expr) -> Expr | None:
    if literally(lo) is None or literally(hi) is None or not float(lo.text) <= float(hi.text):
        return None
    x = block.atom(x)
    return Expr(f"{hi.text} if {x.text} > {hi.text} else {lo.text} if {x.text} < {lo.text} else {x.text}", CHOICE, 1)


def _pow(block: Block, x: Expr, y: Expr) -> Expr | None:
    """math.pow, where the row's check for 0 to a negative power is known to be of no use."""
    base, exponent = literally(x), literally(y)
    return call("pow", x, y) if base or (exponent is not None and exponent >= 0) else None


def _of_two(symbol: str) -> Callable[[Block, Expr, Expr], Expr]:
    """The first of equals, or a NaN if there is one."""

    def form(block: Block, x: Expr, y: Expr) -> Expr:
        x, y = block.atom(x), block.atom(y)
        return Expr(f"{y.text} if {y.text} {symbol} {x.text} or {y.text} != {y.text} else {x.text}", CHOICE, 1)

    return form


PAIRS = {"max": _of_two(">"), "min": _of_two("<")}  # of two inputs

# ── Formulas ───────────────────────────────────────────────────────────────────────────────────────────────────────


def select(condition: Any, x: Any, y: Any) -> Any:
    """x where the condition holds, else y."""
    return condition.code.select(condition, x, y)


def function(name: str) -> Callable[..., Any]:
    """A function of the C library."""
    return lambda x, *others: x.code.function(name, x, *others)


def intrinsic(name: str) -> Callable[..., Any]:
    """A function that processors have an instruction for, by LLVM's name."""
    return lambda x, *others: x.code.intrinsic(name, x, *others)


larger, smaller = intrinsic("maximum"), intrinsic("minimum")  # NaN if one of the two is
exp, log, log1p, sqrt = function("exp"), function("log"), function("log1p"), intrinsic("sqrt")
expm1, erfc, pow = function("expm1"), function("erfc"), function("pow")


def _sigmoid(x: Any) -> Any:
    e = exp(-abs(x))
    return select(x >= 0.0, 1.0, e) / (e + 1.0)


def _bce(x: Any, y: Any) -> Any:
    log_x, log_1_x = log(x), log1p(-x)
    z = y * select(log_x > BCE_FLOOR, log_x, BCE_FLOOR) + (1.0 - y) * select(log_1_x > BCE_FLOOR, log_1_x, BCE_FLOOR)
    return select((x >= 0.0) & (x <= 1.0) & (y >= 0.0) & (y <= 1.0), -z, math.nan)


def _xlogy(x: Any, y: Any) -> Any:
    return select(x.equals(0.0) & y.equals(y), 0.0, x * log(y))


def _log1mexp(x: Any) -> Any:
    near = x < LOG_2
    return select(near, log(-expm1(-x)), log1p(-exp(-x)))


def _log_normal_cdf(x: Any) -> Any:
    q = erfc(abs(x) * math.sqrt(0.5)) * 0.5
    tail = -x * x * 0.5 - LOG_SQRT_2_PI - log(tail_ratio(-x))
    return select(x < NORMAL_TAIL, tail, select(x > 0.0, log1p(-q), log(q)))


def _clamp(x: Any, lo: Any, hi: Any) -> Any:
    z = select((x > hi) | (lo > hi), hi, select(x < lo, lo, x))
    return select(x.or_is_nan(lo) | hi.or_is_nan(hi), math.nan, z)


# fmt: off
POWERS: dict[float, Callable[[Any], Any]] = {  # of a constant exponent; calls of pow took 5 times as long
    -2.0: lambda x: 1.0 / (x * x),
    -1.0: lambda x: 1.0 / x,
    0.0:  lambda x: 1.0,
    0.5:  lambda x: select(x <= -math.inf, math.inf, sqrt(x) + 0.0),  # √-0 is -0, but (-0)^½ is 0; and (-∞)^½ is ∞
    1.0:  lambda x: x,
    2.0:  lambda x: x * x,
    3.0:  lambda x: x * x * x,
    4.0:  lambda x: (x * x) * (x * x),
}


CALL = 20.0  # of a function of the C library


class Spelling(NamedTuple):
    formula: Callable[..., Any]
    python: Form | None = None
    cost: float = CALL


SPELLINGS = {
    "add":         Spelling(operator.add, plus, 1),
    "sub":         Spelling(operator.sub, infix("-", SUM), 1),
    "mul":         Spelling(operator.mul, times, 1),
    "div":         Spelling(operator.truediv, infix("/", PRODUCT), 6),
    "power":       Spelling(pow, _pow),
    "exponential": Spelling(pow, _pow),
    "pow":         Spelling(pow, _pow),
    "neg":         Spelling(operator.neg, _minus, 1),
    "identity":    Spelling(operator.pos, lambda block, x: x, 1),
    "exp":         Spelling(exp),
    "expm1":       Spelling(expm1),
    "log":         Spelling(lambda x: log(select(x.equals(0.0), LOG_EPSILON, x)), _log),
    "log1p":       Spelling(log1p),
    "sqrt":        Spelling(sqrt, cost=6),
    "sin":         Spelling(function("sin")),
    "cos":         Spelling(function("cos")),
    "tan":         Spelling(function("tan")),
    "asin":        Spelling(function("asin")),
    "acos":        Spelling(function("acos")),
    "atan":        Spelling(function("atan")),
    "sinh":        Spelling(function("sinh")),
    "cosh":        Spelling(function("cosh")),
    "tanh":        Spelling(function("tanh")),
    "sigmoid":     Spelling(_sigmoid),
    "softplus":    Spelling(lambda x: larger(x, 0.0) + log1p(exp(-abs(x)))),
    "erf":         Spelling(function("erf")),
    "erfc":        Spelling(erfc),
    "log_normal_cdf": Spelling(_log_normal_cdf),
    "log1mexp":    Spelling(_log1mexp),
    "xlogy":       Spelling(_xlogy),
    "bce":         Spelling(_bce),
    "relu":        Spelling(lambda x: select(x <= 0.0, 0.0, x), _relu, 1),
    "abs":         Spelling(abs, cost=1),
    "clamp":       Spelling(_clamp, _clamped, 1),
    "where":       Spelling(lambda c, x, y: select(c.differs(0.0), x, y), _where, 1),
    "less":        Spelling(lambda x, y: select(x < y, 1.0, 0.0), _compare("<"), 1),
    "less_equal":  Spelling(lambda x, y: select(x <= y, 1.0, 0.0), _compare("<="), 1),
    "equal":       Spelling(lambda x, y: select(x.equals(y), 1.0, 0.0), _compare("=="), 1),
}
# fmt: on


def python_form(op: Op) -> Form | None:
    """The expression of Python for a row of the table, if it has one."""
    return SPELLINGS[op.name].python if op.name in SPELLINGS and TABLE.get(op.name) is op else None


def check_is_row(op: Op) -> None:
    """Raise NotImplementedError for what native code cannot compute: an op that is no row of the table."""
    if TABLE.get(op.name) is not op:
        raise NotImplementedError(f"the llvm backend has no op {op.name!r}: write backend='python'")


def cost(name: str) -> float:
    """The time of the op of that name, in additions."""
    return 1.0 if name in FOLDS or name in ("dot", "chain") else SPELLINGS[name].cost if name in SPELLINGS else CALL


class Notation(Protocol[N_co]):
    """What formulas are written in; it also has select, function and intrinsic."""

    def num(self, x: Any) -> N_co:
        """A number that is known, or is one of the notation's own."""


def spelled(notation: Notation[N], name: str, *xs: N | float) -> N:
    """The formula of the op of that name, of its numbers in that notation; those that are known may be floats."""
    first, *others = xs
    if name == "power" and others[0] in POWERS:
        return notation.num(POWERS[others[0]](notation.num(first)))
    return SPELLINGS[name].formula(*map(notation.num, xs))  # type: ignore[no-any-return]


# ── Of many inputs ─────────────────────────────────────────────────────────────────────────────────────────────────

Owner: TypeAlias = "tuple[int, int | None]"


class Fold(NamedTuple):
    """How inputs are reduced: from `identity` on, `take` another one (its factors), and `join` two results.

    `take` is told for whom: the number of a copy and the lane in it (None for all); None stands for nothing so far.
    """

    identity: float
    take: Callable[[Owner, Any, list[Any]], Any]
    join: Callable[[Any, Any], Any]


def _add_product(owner: Owner, z: Any, factors: list[Any]) -> Any:
    if len(factors) == 1:
        return factors[0] if z is None else z + factors[0]
    x, y = factors
    return x * y if z is None else x.code.intrinsic("fmuladd", x, y, z)


def _taking(join: Callable[[Any, Any], Any]) -> Callable[[Owner, Any, list[Any]], Any]:
    """Take single factors by joining them."""
    return lambda owner, z, factors: factors[0] if z is None else join(z, factors[0])


FOLDS = {
    "sum": Fold(0.0, _add_product, operator.add),
    "prod": Fold(1.0, _taking(operator.mul), operator.mul),
    "max": Fold(-math.inf, _taking(larger), larger),
    "min": Fold(math.inf, _taking(smaller), smaller),
}


def rest_folds(largest: Callable[[Owner], Any]) -> list[Fold]:
    """For logsumexp: Σ exp(x - m) over all x but those that equal the largest, m; and how many do."""

    def rest(owner: Owner, z: Any, factors: list[Any]) -> Any:
        (x,), m = factors, largest(owner)
        y = select(x.equals(m), 0.0, exp(x - m))
        return y if z is None else z + y

    def equals(owner: Owner, z: Any, factors: list[Any]) -> Any:
        y = select(factors[0].equals(largest(owner)), 1.0, 0.0)
        return y if z is None else z + y

    return [Fold(0.0, rest, operator.add), Fold(0.0, equals, operator.add)]


def logsumexp(m: Any, rest: Any, equals: Any) -> Any:
    """m + log(1 + …) over all but one largest: exact also where m stands far above the rest."""
    return select(abs(m).equals(math.inf), m, m + log1p(rest + (equals - 1.0)))

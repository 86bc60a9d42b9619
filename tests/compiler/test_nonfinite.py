"""Numbers that make no sense, in compiled code: they matter if a result depends on them, on both backends alike."""

import math
from array import array

import pytest

from milligrad import Value, compile, manual_seed, ops
from milligrad.compiler.backends import has_llvmlite
from milligrad.engine import number
from milligrad.ops import asin, div, exp, log, log1p, sinh, sqrt, where
from milligrad.random import uniform
from milligrad.transforms import grad, value_and_grad

BACKENDS = ["python", pytest.param("llvm", marks=pytest.mark.skipif(not has_llvmlite(), reason="needs llvmlite"))]


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


REFUSED = {  # what eager code refuses at x = -1, by each row that does
    "sqrt": lambda x: sqrt(x),
    "log": lambda x: log(x),
    "log1p": lambda x: log1p(2 * x),
    "asin": lambda x: asin(1.5 * x),
    "division": lambda x: div(x, x + 1),
    "power": lambda x: x**0.5,
    "negative power": lambda x: (x + 1) ** -1.0,
    "power of two": lambda x: x ** (x / 3),
    "exp": lambda x: exp(-1000 * x),
    "sinh": lambda x: sinh(1000 * x),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_eager_code_refuses_matters_where_a_result_depends_on_it(backend, name):
    f = REFUSED[name]
    with pytest.raises((ValueError, ArithmeticError)):
        f(Value(-1.0))
    with pytest.raises(FloatingPointError, match=r"the result is not finite \((nan|-?inf)\)"):
        compile(f, backend=backend)(-1.0)
    assert not math.isfinite(compile(f, backend=backend, nonfinite="allow")(-1.0))

    masked = compile(value_and_grad(lambda x: where(x > 0, f(x), 2 * x)), backend=backend)
    assert masked(-1.0) == (-2.0, 2.0)
    z = Value(0.6)
    f(z).backward() if name != "power of two" else None
    assert masked(0.6)[0] == pytest.approx(number(f(Value(0.6))), rel=1e-14)
    assert name == "power of two" or masked(0.6)[1] == pytest.approx(z.grad, rel=1e-13)


@pytest.mark.parametrize(
    "name", [name for name in REFUSED if name not in ("exp", "sinh", "division", "negative power")]
)
def test_a_choice_by_a_number_that_is_none_is_none(backend, name):
    f = REFUSED[name]
    choices = (
        lambda x: where(f(x) < 1, 1.0, 2.0),
        lambda x: where(f(x) == f(x), 1.0, 2.0),
        lambda x: where((f(x) > 0) | (x < 0), 1.0, 2.0),
        lambda x: ops.equal(f(x), 1.0),
        lambda x: ops.relu(f(x)),
        lambda x: ops.maximum(f(x), 3.0),
        lambda x: ops.clamp(f(x), 0.0, 1.0),
    )
    for choice in choices:
        with pytest.raises(FloatingPointError):
            compile(choice, backend=backend)(-1.0)
        assert math.isnan(compile(choice, backend=backend, nonfinite="allow")(-1.0))


@pytest.mark.parametrize(
    "name", [name for name in REFUSED if name not in ("exp", "sinh", "division", "negative power")]
)
def test_a_gradient_alone_that_was_chosen_by_a_number_that_is_none_is_none(backend, name):
    f = REFUSED[name]
    for choose in (ops.relu, ops.abs, lambda x: ops.maximum(x, 0.5), lambda x: ops.max([x, 0.5, 0.25])):
        with pytest.raises(FloatingPointError, match=r"not finite"):
            compile(grad(lambda x, choose=choose: choose(f(x))), backend=backend)(-1.0)
    with pytest.raises(FloatingPointError, match=r"not finite"):
        compile(lambda x: where(f(x) >= ops.max([x, f(x), 0.25]), 1.0, 2.0), backend=backend)(-1.0)


def test_infinities_on_the_way_are_numbers(backend):
    f = compile(value_and_grad(lambda x: 1 / (1 + exp(x))), backend=backend)
    assert f(1000.0) == (0.0, 0.0)
    assert compile(lambda x: where(exp(x) > 1, 1.0, 2.0), backend=backend)(1000.0) == 1.0


def test_nan_among_the_arguments_is_a_number_like_any_other(backend):
    f = compile(lambda x, y: [where(x == x, x, 0.0), x + y, y], backend=backend, nonfinite="allow")
    first, second, third = f(math.nan, math.inf)
    assert first == 0.0 and math.isnan(second) and third == math.inf
    with pytest.raises(FloatingPointError, match=r"results 1 and 2 of 3 are not finite"):
        compile(lambda x, y: [where(x == x, x, 0.0), x + y, y], backend=backend)(math.nan, math.inf)


def test_one_bad_row_costs_that_row_only(backend):
    rows = [[4.0], [-1.0], [9.0], [-2.0], [16.0]]
    for given in (rows, array("d", [x for (x,) in rows])):
        with pytest.raises(FloatingPointError, match="rows 1 and 3"):
            compile(sqrt_of, backend=backend).map(given)
        found = list(compile(sqrt_of, backend=backend, nonfinite="allow").map(given))
        assert found[::2] == [2.0, 3.0, 4.0] and all(map(math.isnan, found[1::2]))
    pairs = compile(lambda x: (sqrt(x), x), backend=backend, nonfinite="allow").map(rows)
    assert [pair[1] for pair in pairs] == [x for (x,) in rows] and [p[0] for p in pairs[::2]] == [2.0, 3.0, 4.0]
    masked = compile(lambda x: where(x > 0, sqrt(x), x), backend=backend)
    assert masked.map(rows) == [2.0, -1.0, 3.0, -2.0, 4.0]


def sqrt_of(x):
    return sqrt(x)


def test_random_numbers_are_not_drawn_twice(backend):
    """The exact code, which runs once the other one has failed, computes with the numbers that were drawn."""
    f = compile(lambda x: where(x > 0, sqrt(x), x) + uniform(), backend=backend)
    g = compile(lambda x: x + uniform(), backend=backend)
    found = []
    for h in (f, g):
        manual_seed(1)
        found.append([h(-1.0), *h.map([[-1.0], [-2.0]]), h(-3.0)])
    assert found[0] == found[1]


def test_nonfinite_is_checked():
    with pytest.raises(ValueError, match="nonfinite: expected 'raise' or 'allow', got 'ignore'"):
        compile(sqrt_of, backend="python", nonfinite="ignore")


OUTSIDE = {
    "log": (log, -1.0),
    "log1p": (log1p, -2.0),
    "sqrt": (sqrt, -1.0),
    "asin": (asin, 1.5),
    "log1mexp": (ops.log1mexp, -1.0),
    "xlogy": (lambda x: ops.xlogy(2.0, x), -1.0),
    "bce": (lambda x: ops.bce(x, 0.3), 1.5),
    "power": (lambda x: x**1.5, -1.0),
    "exponential": (lambda x: (-2.0) ** x, 0.5),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_outside_of_its_domain_a_row_has_no_derivative_either(backend, name):
    f, x = OUTSIDE[name]
    with pytest.raises((ValueError, ArithmeticError)):
        grad(f)(x)
    with pytest.raises(FloatingPointError):
        compile(grad(f), backend=backend)(x)


POLES = {  # what eager code refuses on the way, and compiled code goes on with, to a number
    "xlogy": (lambda x: exp(ops.xlogy(x + 1, x)), 0.0, 0.0),
    "xlogy of a negative": (lambda x: 1 / ops.xlogy(x - 1, x), 0.0, 0.0),
    "log1mexp": (lambda x: exp(ops.log1mexp(x)), 0.0, 0.0),
    "log1p": (lambda x: exp(log1p(x - 1)), 0.0, 0.0),
    "a quotient": (lambda x: 1 / (1 + 1 / (x * x)), 0.0, 0.0),
    "the root of minus infinity": (lambda x: 1 / (1 + (-(x * 1e200) * 1e200) ** 0.5), 1.0, 0.0),
}


@pytest.mark.parametrize("name", POLES)
def test_at_a_pole_both_backends_go_on_with_the_same_infinity(backend, name):
    f, x, want = POLES[name]
    assert compile(f, backend=backend)(x) == want

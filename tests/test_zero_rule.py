"""A factor that is exactly 0 makes a product of the chain rule exactly 0: one loop over all ways to differentiate."""

import importlib.util
import math

import pytest

import milligrad as mg
from milligrad import Value, exp, hessian, hvp, jacobian, jvp, log, maximum, sqrt, value_and_grad, where
from milligrad.engine import number
from milligrad.transforms import grad

BACKENDS = ["python"] + ["llvm"] * (importlib.util.find_spec("llvmlite") is not None)


def backward(f, xs):
    values = [Value(x) for x in xs]
    z = f(values)
    z.backward()
    return [v.grad for v in values]


def gradient(create_graph):
    def of(f, xs):
        values = [Value(x) for x in xs]
        return [g.data for g in mg.grad(f(values), values, create_graph=create_graph)]

    return of


def forward(f, xs):
    directions = [[float(i == k) for i in range(len(xs))] for k in range(len(xs))]
    return [jvp(f, (xs,), (v,))[1] for v in directions]


def beside_a_parameter(f, xs):
    """The transform, where the derivatives are Values."""
    w = Value(1.0)
    return [number(g) for g in grad(lambda xs: f(xs) * w)(xs)]


def compiled(transform, backend):
    return lambda f, xs: mg.compile(transform(f), backend=backend)(xs)


def value_of_compiled(backend):
    def of(f, xs):
        values = [Value(x) for x in xs]
        mg.compile(f, backend=backend).value(values).backward()
        return [v.grad for v in values]

    return of


WAYS = {
    "backward": backward,
    "grad with a graph": gradient(True),
    "grad without": gradient(False),
    "transforms.grad": lambda f, xs: grad(f)(xs),
    "value_and_grad": lambda f, xs: value_and_grad(f)(xs)[1],
    "jacobian": lambda f, xs: jacobian(f)(xs),
    "jvp": forward,
    "beside a parameter": beside_a_parameter,
    **{f"compiled grad, {b}": compiled(grad, b) for b in BACKENDS},
    **{f"compiled jacobian, {b}": compiled(jacobian, b) for b in BACKENDS},
    **{f"compiled jvp, {b}": compiled(lambda f: lambda xs: forward(f, xs), b) for b in BACKENDS},
    **{f"value, {b}": value_of_compiled(b) for b in BACKENDS},
}

# A function of a list, a point, and the gradient there: by hand, a factor of 0 being 0.
CASES = {
    "sqrt behind where": (lambda x: where(x[0] > 0, sqrt(x[0]), 0.0 * x[0]), [0.0], [0.0]),
    "division behind where": (lambda x: where(x[0] > 1, log(x[0]) / (x[0] - 1), x[0]), [1.0 - 2**-52], [1.0]),
    "sqrt behind maximum": (lambda x: maximum(sqrt(x[0] * x[0]), 1e-10), [0.0], [0.0]),
    "log of a quotient": (lambda x: log(1 / maximum(1e-200, x[0])), [0.0], [0.0]),
    "inf in the other branch": (lambda x: where(x[0] > 0, x[0], math.inf * x[0]), [1.0], [1.0]),
    "a norm squared": (lambda x: (sqrt(x[0] * x[0] + x[1] * x[1])) ** 2, [0.0, 0.0], [0.0, 0.0]),
    "0 times sqrt": (lambda x: x[0] * sqrt(x[1]), [0.0, 0.0], [0.0, 0.0]),
    "sqrt of 0 times x": (lambda x: sqrt(0.0 * x[0]) + x[0], [3.0], [1.0]),
    "relu of a root": (lambda x: mg.relu(sqrt(x[0]) - 1), [0.0], [0.0]),
    "a root clamped": (lambda x: mg.clamp(sqrt(x[0]), 0.5, 1.0), [0.0], [0.0]),
    "a power behind where": (lambda x: where(x[0] > 0, x[0] ** 0.5, 2 * x[0]), [0.0], [2.0]),
    "asin behind where": (lambda x: where(x[0] < 1, mg.asin(x[0]), x[0]), [1.0], [1.0]),
    "through a dot": (lambda x: mg.dot([0.0, x[1]], [sqrt(x[0]), x[1]]), [0.0, 3.0], [0.0, 6.0]),
    "through a prod": (lambda x: mg.prod([sqrt(x[0]), 0.0, x[1]]), [0.0, 3.0], [0.0, 0.0]),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CASES)
def test_a_factor_of_zero_makes_the_product_zero_in_every_way(name, way):
    f, xs, expected = CASES[name]
    assert WAYS[way](f, xs) == expected


SECOND = {
    "hessian": lambda f, x: hessian(f)(x),
    "hvp": lambda f, x: hvp(f, x, 1.0),
    "grad of grad": lambda f, x: grad(grad(f))(x),
    "grad twice": lambda f, x: (lambda v: mg.grad(mg.grad(f(v), v), v).data)(Value(x)),
    **{f"compiled, {b}": lambda f, x, b=b: mg.compile(hessian(f), backend=b)(x) for b in BACKENDS},
    **{f"compiled hvp, {b}": lambda f, x, b=b: mg.compile(lambda x: hvp(f, x, 1.0), backend=b)(x) for b in BACKENDS},
}


@pytest.mark.parametrize("way", SECOND)
def test_second_derivatives_too(way):
    for f, x, expected in (
        (lambda x: x * (1 - x**1.1), 0.0, 0.0),
        (lambda x: where(x > 0, x * sqrt(x), x * x), 0.0, 2.0),
        (lambda x: x**3, 0.0, 0.0),
    ):
        assert SECOND[way](f, x) == expected


@pytest.mark.parametrize("way", SECOND)
def test_a_derivative_that_a_factor_of_zero_hid_is_missed_by_the_next_one(way):
    """(√x)² at 0: the 2√x of the first derivative is 0, but moves at once."""
    for f in (lambda x: sqrt(x) ** 2, lambda x: x * sqrt(x), lambda x: x * (1 - x**0.5), lambda x: sqrt(x) * x**0.5):
        with pytest.raises((ValueError, ArithmeticError)):
            SECOND[way](f, 0.0)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_a_zero_is_no_end_of_the_graph(order):
    """x³ at 0: the adjoint x of x·x is 0 there, but its derivative is not."""
    f = lambda x: x * x * x  # noqa: E731
    for _ in range(order):
        f = grad(f)
    assert f(0.0) == [0.0, 0.0, 6.0, 0.0][order - 1]


@pytest.mark.parametrize("way", WAYS)
def test_a_derivative_that_does_not_exist_is_refused_where_a_result_depends_on_it(way):
    for f in (lambda x: sqrt(x[0]), lambda x: 1 / (1 + sqrt(x[0])), lambda x: x[0] ** 0.5 + x[0]):
        with pytest.raises((ValueError, ArithmeticError)):
            WAYS[way](f, [0.0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_overflow_on_the_way_is_no_matter(backend):
    f = lambda x: 1 / (1 + exp(x))  # noqa: E731
    assert mg.compile(value_and_grad(f), backend=backend)(1000.0) == (0.0, 0.0)


AT_INFINITY = {  # the first and the second derivative where x is inf, and where it is -inf: limits
    "atan": (mg.atan, (0.0, 0.0), (0.0, 0.0)),
    "erf": (mg.erf, (0.0, 0.0), (0.0, 0.0)),
    "tanh": (mg.tanh, (0.0, 0.0), (0.0, 0.0)),
    "sigmoid": (mg.sigmoid, (0.0, 0.0), (0.0, 0.0)),
    "silu": (lambda x: x * mg.sigmoid(x), (1.0, 0.0), (0.0, 0.0)),
    "gelu": (mg.functional.gelu, (1.0, 0.0), (0.0, 0.0)),
}


@pytest.mark.parametrize("name", AT_INFINITY)
def test_the_derivatives_at_infinity_are_limits(name):
    f, *expected = AT_INFINITY[name]
    for x, (first, second) in zip((math.inf, -math.inf), expected):
        assert grad(f)(x) == first and hessian(f)(x) == second
        assert [mg.compile(g, backend=b)(x) for b in BACKENDS for g in (grad(f), hessian(f))] == [first, second] * len(
            BACKENDS
        )

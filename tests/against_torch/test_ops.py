"""Every row and function of the table against PyTorch in float64: values, gradients and second derivatives."""

import math
import operator
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import milligrad as mg
from milligrad import Value
from milligrad.engine import number
from milligrad.ops import TABLE

torch.set_num_threads(1)


def softplus(x):
    return torch.nn.functional.softplus(x, threshold=40)  # beyond its threshold PyTorch takes x itself: 1e-9 off at 20


def log1mexp(x):
    """As PyTorch's users write it: each branch kept away from where it cancels."""
    near = x < math.log(2)
    small, large = torch.where(near, x, 1.0), torch.where(near, 1.0, x)
    return torch.where(near, torch.log(-torch.expm1(-small)), torch.log1p(-torch.exp(-large)))


def bce(x, y):
    return torch.nn.functional.binary_cross_entropy(x, y)


def stacked(f):
    return lambda *xs: f(torch.stack(xs))


def logsumexp(x):
    """With the largest taken off first: of large numbers the shares of PyTorch's do not add up to 1."""
    largest = x.max().detach()
    return torch.logsumexp(x - largest, 0) + largest if largest.isfinite() else torch.logsumexp(x, 0)


def halves(xs):
    return xs[: len(xs) // 2], xs[len(xs) // 2 :]


UNARY = {
    "neg": torch.neg,
    "identity": torch.clone,
    "exp": torch.exp,
    "expm1": torch.expm1,
    "log": torch.log,
    "log1p": torch.log1p,
    "sqrt": torch.sqrt,
    "sin": torch.sin,
    "cos": torch.cos,
    "tan": torch.tan,
    "asin": torch.asin,
    "acos": torch.acos,
    "atan": torch.atan,
    "sinh": torch.sinh,
    "cosh": torch.cosh,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": softplus,
    "erf": torch.erf,
    "erfc": torch.erfc,
    "log_normal_cdf": torch.special.log_ndtr,
    "log1mexp": log1mexp,
    "relu": torch.relu,
    "abs": torch.abs,
}
BINARY = {"add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "pow": torch.pow}
BINARY |= {"xlogy": torch.xlogy}
COMPARISONS = {"less": torch.lt, "less_equal": torch.le, "equal": torch.eq}
REDUCTIONS = {
    "sum": stacked(torch.sum),
    "prod": stacked(torch.prod),
    "dot": lambda *xy: torch.dot(*map(torch.stack, halves(xy))),
    "chain": lambda *xy: torch.dot(*map(torch.stack, halves(xy))),
    "logsumexp": stacked(logsumexp),
    "max": stacked(torch.amax),
    "min": stacked(torch.amin),
}


def reduction(name):
    """The row as a function of the numbers themselves."""
    return lambda *xs: TABLE[name](*halves(xs)) if name in ("dot", "chain") else TABLE[name](xs)


OTHERS = {"power", "exponential", "clamp", "where", "bce"}  # each has tests of its own below


def derivatives(f, numbers):
    """f's value, gradient and hessian by milligrad, the gradient twice: by `backward` and by `mg.grad`."""
    xs = [Value(x) for x in numbers]
    z = f(*xs)
    z.backward()
    gradient = mg.grad(z, xs)
    assert same([x.grad for x in xs], [g.data for g in gradient], 1e-14)
    rows = [mg.grad(g, xs) if g.requires_grad else [0.0] * len(xs) for g in gradient]
    return z.data, [g.data for g in gradient], [number(d) for row in rows for d in row]


def torch_derivatives(f, numbers):
    xs = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in numbers]
    z = f(*xs)
    gradient = torch.autograd.grad(z, xs, create_graph=True, materialize_grads=True)

    def row(g):
        return torch.autograd.grad(g, xs, retain_graph=True, materialize_grads=True) if g.requires_grad else zeros

    zeros = [torch.zeros(())] * len(xs)
    return z.item(), [g.item() for g in gradient], [d.item() for g in gradient for d in row(g)]


def same(xs, ys, rtol=1e-9, atol=0.0):
    return all(
        x == y or (x != x and y != y) or math.isclose(x, y, rel_tol=rtol, abs_tol=atol)
        for x, y in zip(xs, ys, strict=True)
    )


def limits(ours, theirs, xs):
    """PyTorch's derivatives; but where it multiplies 0 by inf and has NaN, a number of ours, to which 0 times inf is 0.

    tests/test_zero_rule.py has the numbers that come out. Of a NaN all is NaN.
    """
    given = all(x == x for x in xs) or 1.0 in xs  # 1 to the power of NaN is 1
    return [x if y != y and given and x == x else y for x, y in zip(ours, theirs, strict=True)]


# ── The edges, all of them ───────────────────────────────────────────────────────────────────────────────────────

EDGES = [0.0, -0.0, 1.0, -1.0, 0.5, -2.0, 3.0, 1e-300, -1e-300, 1e300, -1e300, 1e-160, 1e160, 1e-8, 20.0, 40.0]
EDGES += [709.0, -709.0, 745.0, -745.0, 1e4, -1e4, math.inf, -math.inf, math.nan]


def finite(numbers):
    return all(map(math.isfinite, numbers))


def agree(f, g, xs, second=True, atol=0.0):
    """f and g agree at xs in value, gradient and hessian; where f raises, PyTorch has no finite answer either."""
    value, gradient, hessian = torch_derivatives(g, xs)
    try:
        ours = derivatives(f, xs)
    except (ValueError, ArithmeticError):
        assert not finite([value, *gradient, *hessian])
        return
    assert same([ours[0]], [value], atol=atol), (xs, ours[0], value)
    assert same(ours[1], limits(ours[1], gradient, xs), atol=atol), (xs, ours[1], gradient)
    assert not second or same(ours[2], limits(ours[2], hessian, xs), atol=atol), (xs, ours[2], hessian)


# 1 - z² and z·(1 - z) cancel where z is near 1, in PyTorch's derivatives as in ours, and PyTorch's vectorised exp
# takes numbers below 1e-308 for 0. The derivative of its expm1 is z + 1.
ATOL = {"tanh": 1e-15, "sigmoid": 1e-15, "softplus": 1e-300, "expm1": 2e-16, "log1mexp": 1e-300}


def better(name, x):
    """Whether milligrad has a number of its own there: log(0), and the left tail of the normal distribution.

    In it PyTorch's derivatives cancel, down to -1.54 for -1 at -1e4. `tests/test_ops.py` has their digits.
    """
    return (name == "log" and x == 0) or (name == "log_normal_cdf" and x < -30)


@pytest.mark.parametrize("name", UNARY)
def test_functions_of_one_number_at_the_edges(name):
    for x in EDGES:
        if not better(name, x):
            agree(TABLE[name], UNARY[name], [x], atol=ATOL.get(name, 0.0))


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div"])
def test_arithmetic_at_the_edges(name):
    for x, y in product(EDGES, EDGES):
        agree(TABLE[name], BINARY[name], [x, y])


@pytest.mark.parametrize("y", [*EDGES, 2.0])
def test_xlogy_at_the_edges(y):
    for x in EDGES:
        if x == 0 and y <= 0:  # at y = 0 PyTorch's derivative by y is 0/0; here it is 0, as for all other y
            assert derivatives(mg.xlogy, [x, y])[:2] == (0.0, [0.0, 0.0])
        elif not (x != x and y <= 0):  # which raises
            agree(mg.xlogy, torch.xlogy, [x, y], second=x != 0, atol=1e-300)


def test_the_composed_functions_at_the_edges():
    for x in EDGES:
        agree(mg.normal_cdf, torch.special.ndtr, [x], second=math.isfinite(x), atol=1e-300)
        agree(mg.log_sigmoid, torch.nn.functional.logsigmoid, [x], atol=1e-15)  # log_sigmoid'' is that of softplus
        for y in EDGES:
            infinite = math.inf in (x, y) or x == y == -math.inf
            value, gradient, hessian = derivatives(mg.logaddexp, [x, y])
            expected = torch_derivatives(torch.logaddexp, [x, y])
            assert same([value], expected[:1])
            assert infinite or same(gradient, expected[1], atol=1e-300)
            assert not finite(expected[2]) or same(hessian, expected[2], atol=1e-15)


@pytest.mark.parametrize("f, g", [(mg.maximum, torch.maximum), (mg.minimum, torch.minimum)])
def test_the_larger_and_the_smaller_at_the_edges_and_in_ties(f, g):
    for x, y in product(EDGES, EDGES):
        if x == x and y == y:
            agree(f, g, [x, y])
        else:  # the derivative of a NaN is NaN, that of PyTorch's amax; its maximum gives 1 to both
            agree(f, stacked(torch.amax), [x, y])


def test_a_power_of_two_values_at_the_edges():
    for x, y in product(EDGES, EDGES):
        # At y = 0 PyTorch's mixed derivative is 0 rather than 1/x, and at x = 0 its second ones are NaN.
        if not (x == 0 and y == -math.inf):
            agree(operator.pow, torch.pow, [x, y], second=x > 0 and y != 0, atol=1e-300)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, -1, -2, 0.5, -0.5, 1.5, 2.5, -3.5, 1 / 3, -0.0, 100, 1e-5, *EDGES[-3:]])
def test_a_constant_power_at_the_edges(n):
    for x in EDGES:
        if not (x == -math.inf and n % 1 == 0.5):  # (-inf)^½ is inf in C and here, and NaN in PyTorch
            agree(lambda x: x**n, lambda x: x**n, [x], atol=1e-300)


@pytest.mark.parametrize("base", [0.5, 1, 2, 10, 1e-300, 1e300, -2.0, math.inf, math.nan])
def test_a_power_of_a_constant_at_the_edges(base):
    for y in EDGES:
        agree(lambda y: base**y, lambda y: torch.pow(base, y), [y])


def test_a_power_of_zero():
    for y in (0.0, -0.0, 1e-300, 0.5, 1.0, 2.0, 1e300, math.inf):
        value, gradient, _ = torch_derivatives(lambda y: torch.pow(0, y), [y])  # its second derivative is NaN, not 0
        assert derivatives(lambda y: 0**y, [y]) == (value, gradient, [0.0])


CLAMPED = [-1.0, 0.0, -0.0, 1.0, 2.0, 1e300, math.inf, -math.inf]


def test_clamp_at_its_corners_and_with_bounds_in_the_wrong_order():
    for x, lo, hi in product([*CLAMPED, math.nan], CLAMPED, CLAMPED):
        agree(mg.clamp, torch.clamp, [x, lo, hi])
    for xs in product([math.nan, 0.0, 1.0], repeat=3):
        assert same([mg.clamp(*xs)], [torch.clamp(*torch.tensor([xs]).T).item()])


@pytest.mark.parametrize("bounds", [{"min": 0.5}, {"max": 1.0}, {"min": -1, "max": 1}, {"min": 1, "max": 0}])
def test_clamp_with_plain_bounds(bounds):
    for x in [*EDGES, *CLAMPED]:
        agree(lambda x: mg.clamp(x, **bounds), lambda x: torch.clamp(x, **bounds), [x])
        agree(lambda x: x.clamp(**bounds), lambda x: x.clamp(**bounds), [x])


def test_where_gives_the_derivative_to_the_branch_that_was_taken():
    for x, y in product(EDGES, EDGES):
        agree(lambda x, y: mg.where(x > y, x, y) * 2, lambda x, y: torch.where(x > y, x, y) * 2, [x, y])
        agree(lambda x, y: x.where(x <= y, y), lambda x, y: x.where(x <= y, y), [x, y])


def test_the_binary_cross_entropy_up_to_its_bounds():
    for x, y in product(
        [0.0, 1e-300, 1e-50, 1e-13, 1e-5, 0.3, 0.5, 0.9, 1 - 1e-10, 1 - 1e-16, 1.0], [0.0, 0.2, 0.5, 1.0]
    ):
        # By y PyTorch leaves out the bound of -100; its second derivative is an approximation near 0 and 1.
        value, gradient, hessian = torch_derivatives(bce, [x, y])
        ours = derivatives(TABLE["bce"], [x, y])
        assert same([ours[0], ours[1][0]], [value, gradient[0]])
        assert not 1e-40 < x < 1 or same(ours[1], gradient)
        assert not 0.1 < x < 0.95 or same(ours[2], hessian)


FEW_EDGES = [0.0, -0.0, 1.0, -2.0, 1e300, 1e-300, 1000.0, math.inf, -math.inf, math.nan]


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("name", ["sum", "prod", "logsumexp", "max", "min"])
def test_reductions_at_the_edges_and_in_ties(name, n):
    for xs in product(FEW_EDGES, repeat=n):
        if name == "logsumexp" and {*xs} == {-math.inf}:  # PyTorch's gradients are NaN; here they are 0
            assert derivatives(reduction(name), xs) == (-math.inf, [0.0] * n, [0.0] * n * n)
        elif name == "prod" and not all(1e-9 < abs(x) < 1e9 for x in xs if x):  # PyTorch divides by x, and gets ∞/∞
            value, gradient, _ = derivatives(reduction(name), xs)
            assert same([value, *gradient], [math.prod(xs), *[math.prod(xs[:i] + xs[i + 1 :]) for i in range(n)]])
        else:
            agree(reduction(name), REDUCTIONS[name], xs, second=name != "logsumexp" or finite(xs))


def test_the_dot_product_at_the_edges():
    for xs in [*product(FEW_EDGES, repeat=2), *product(FEW_EDGES[::2], repeat=4)]:
        agree(reduction("dot"), REDUCTIONS["dot"], xs)


# ── Anywhere ─────────────────────────────────────────────────────────────────────────────────────────────────────

signs = st.sampled_from([1.0, -1.0])
wide = st.builds(lambda s, e: s * 10**e, signs, st.floats(-300, 300))
moderate = st.floats(-10, 10).filter(lambda x: x == 0 or abs(x) > 1e-6)
numbers = moderate | wide
some = settings(max_examples=60, deadline=None)


@pytest.mark.parametrize("name", UNARY)
@given(x=numbers)
@some
def test_functions_of_one_number(name, x):
    if not better(name, x):
        agree(TABLE[name], UNARY[name], [x], atol=ATOL.get(name, 0.0))


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div"])
@given(x=numbers, y=numbers)
@some
def test_arithmetic(name, x, y):
    agree(TABLE[name], BINARY[name], [x, y])


@given(x=numbers.map(abs).filter(bool), y=moderate.filter(bool) | st.integers(1, 9).map(float))
@settings(max_examples=200, deadline=None)
def test_powers_of_positive_numbers(x, y):
    agree(operator.pow, torch.pow, [x, y], atol=1e-300)
    agree(lambda x: x**y, lambda x: x**y, [x], atol=1e-300)
    agree(lambda y: x**y, lambda y: torch.pow(x, y), [y], atol=1e-300)


@given(x=numbers, n=st.integers(-9, 9))
@some
def test_whole_powers_of_any_number(x, n):
    agree(lambda x: x**n, lambda x: x**n, [x], atol=1e-300)
    agree(operator.pow, torch.pow, [x, float(n)], second=False, atol=1e-300)


@given(x=numbers, y=numbers, z=numbers)
@some
def test_functions_with_corners(x, y, z):
    agree(mg.maximum, torch.maximum, [x, y])
    agree(mg.minimum, torch.minimum, [x, y])
    agree(mg.clamp, torch.clamp, [x, y, z])
    agree(lambda x, y: mg.where(x < y, x * y, x + y), lambda x, y: torch.where(x < y, x * y, x + y), [x, y])


@given(x=st.floats(0.05, 0.95), y=st.floats(0, 1))
@some
def test_the_binary_cross_entropy(x, y):
    agree(TABLE["bce"], bce, [x, y], atol=1e-14)


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons_at_all_pairs_of_edges(name):
    for x, y in product(EDGES, repeat=2):
        pair = [torch.tensor(number, dtype=torch.float64, requires_grad=True) for number in (x, y)]
        expected = COMPARISONS[name](*pair)
        assert not expected.requires_grad  # what PyTorch has no derivative of has the derivative 0 here
        assert derivatives(TABLE[name], [x, y]) == (expected.item(), [0.0] * 2, [0.0] * 4)


@pytest.mark.parametrize("name", REDUCTIONS)
@given(data=st.data())
@some
def test_reductions(name, data):
    n = data.draw(st.integers(1, 6)) * (2 if name in ("dot", "chain") else 1)
    tenths = st.integers(-100, 100).map(lambda i: i / 10)  # among them ties and zeros
    xs = data.draw(st.lists(tenths, min_size=n, max_size=n))
    # What is 0 here is 1e-16 of what it cancelled in PyTorch, which adds in another order and divides for prod.
    agree(reduction(name), REDUCTIONS[name], xs, atol=1e-12 * math.prod(max(1.0, abs(x)) for x in xs))


@given(st.lists(st.floats(-800, 800), min_size=1, max_size=6))
@some
def test_logsumexp_of_wide_ranges(xs):
    agree(reduction("logsumexp"), REDUCTIONS["logsumexp"], xs, atol=1e-13)


@given(st.lists(numbers, min_size=1, max_size=6))
@some
def test_the_mean(xs):
    agree(lambda *xs: mg.mean(xs), stacked(torch.mean), xs, atol=1e-15 * max(map(abs, xs)))


def test_every_row_of_the_table_is_compared_with_pytorch():
    assert {*UNARY, *BINARY, *COMPARISONS, *REDUCTIONS, *OTHERS} == set(TABLE)

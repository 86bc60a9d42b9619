"""The table, row by row, against finite differences; then values known in closed form, corners, and errors."""

import math
import random
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import milligrad as mg
from milligrad import LOG_EPSILON, Value, ops
from milligrad.engine import Op, Reduction
from milligrad.ops import TABLE

NUMBERS = [-2.9, -1.3, -0.72, -0.31, 0.14, 0.46, 0.85, 1.7, 3.2]
TIGHT = {"eps": 1e-5, "atol": 1e-8, "rtol": 1e-6}  # a partial that is 1 % off is 1,000 times outside


def holds(domain, *xs):
    """Whether the point and its surroundings lie in a row's domain."""
    names = ("x", "y", "z")
    near = product(*[(x - 0.01, x, x + 0.01) for x in xs])
    return not domain or all(eval(domain, {"inf": math.inf}, dict(zip(names, point))) for point in near)


def apart(xs):
    return all(abs(a - b) > 0.1 for i, a in enumerate(xs) for b in xs[:i])


def cases(row):
    """Functions of the row's differentiable inputs, with points of its domain away from corners."""
    if row.name == "power":  # the exponent is a constant
        exponents = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 2.5, 3.0)
        points = [(x, n) for x in NUMBERS for n in exponents if x > 0 or n % 1 == 0]
        return [(lambda x, n=n: row(x, n), [x]) for x, n in points]
    if row.name == "exponential":  # the base is
        return [(lambda y, x=x: row(x, y), [y]) for x in (0.3, 1.7, 4.0) for y in NUMBERS]
    if row.name == "where":  # so is the condition
        return [(lambda x, y, c=c: row(c, x, y), [x, y]) for c in (0.0, 1.0) for x, y in [(0.3, -2.0), (-1.5, 0.7)]]
    if row.name == "bce":
        return [(row, [x, y]) for x in (0.12, 0.35, 0.5, 0.88) for y in (0.01, 0.2, 0.7, 0.99)]
    if row.name in ("dot", "chain"):
        return [(row, [xs[: len(xs) // 2], xs[len(xs) // 2 :]]) for xs in lists(2, 4, 6)]
    if isinstance(row, Reduction):
        return [(row, [xs]) for xs in lists(1, 2, 3, 5)]
    n = row.form.count("{}")
    points = [list(xs) for xs in product(NUMBERS, repeat=n) if apart(xs) and holds(row.domain, *xs)]
    return [(row, xs) for xs in (points[::7] if n == 3 else points)]


def lists(*sizes):
    generator = random.Random(0)
    return [generator.sample(NUMBERS, n) for n in sizes for _ in range(3)]


@pytest.mark.parametrize("name", TABLE)
def test_first_derivatives_of_each_row_agree_with_finite_differences(name):
    tried = cases(TABLE[name])
    assert len(tried) >= 4
    for f, point in tried:
        assert mg.gradcheck(f, point, **TIGHT)


@pytest.mark.parametrize("name", TABLE)
def test_second_derivatives_of_each_row_agree_with_finite_differences(name):
    for f, point in cases(TABLE[name]):
        assert mg.gradgradcheck(f, point, **TIGHT)


@pytest.mark.parametrize("name", TABLE)
def test_backward_gives_the_same_numbers_as_grad(name):
    for f, point in cases(TABLE[name]):
        lifted = [[Value(x) for x in xs] if isinstance(xs, list) else Value(xs) for xs in point]
        flat = [x for xs in lifted for x in (xs if isinstance(xs, list) else [xs])]
        z = f(*lifted)
        z.backward()
        assert [x.grad for x in flat] == pytest.approx([g.data for g in mg.grad(z, flat)], rel=1e-14, abs=0)


@pytest.mark.parametrize("name", TABLE)
def test_of_floats_a_row_gives_the_float_that_it_gives_as_a_value(name):
    for f, point in cases(TABLE[name])[:20]:
        lifted = [[Value(x) for x in xs] if isinstance(xs, list) else Value(xs) for xs in point]
        number, value = f(*point), f(*lifted)
        assert type(number) is float and type(value) is Value and type(value.data) is float
        assert number == value.data


@pytest.mark.parametrize("name", TABLE)
def test_each_row_says_what_it_is(name):
    row = TABLE[name]
    assert isinstance(row, Op) and row.name == name and repr(row) == f"<op {name}>"
    assert row.__doc__.endswith(".") and "{}" in row.form


def test_each_partial_of_a_row_belongs_to_one_input():
    for row in TABLE.values():
        for n in [2, 4, 6] if isinstance(row, Reduction) else [row.form.count("{}")]:
            xs = [0.25 + 0.125 * i for i in range(n)]
            assert len(row.partials(row.value(*xs), *xs)) == n


def test_the_table_has_the_rows_of_the_documentation():
    assert set(TABLE) == {
        *("add", "sub", "mul", "div", "power", "exponential", "pow", "neg", "identity"),
        *("exp", "expm1", "log", "log1p", "sqrt"),
        *("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh"),
        *("sigmoid", "softplus", "erf", "erfc", "log_normal_cdf", "log1mexp", "xlogy", "bce"),
        *("relu", "abs", "clamp", "where"),
        *("less", "less_equal", "equal"),
        *("sum", "prod", "dot", "chain", "logsumexp", "max", "min"),
    }


IN_MATH = [
    "exp",
    "expm1",
    "log",
    "log1p",
    "sqrt",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "sinh",
    "cosh",
    "tanh",
    "erf",
    "erfc",
]
METHODS = [*IN_MATH, "sigmoid", "relu", "softplus", "abs"]


@pytest.mark.parametrize("name", METHODS)
def test_functions_are_methods_too(name):
    f = getattr(mg, name)
    x = Value(0.4)
    assert getattr(x, name)().data == f(x).data == f(0.4)
    assert getattr(x, name)().op is TABLE[name] and getattr(Value, name) is TABLE[name]


def test_functions_of_two_and_three_inputs_are_methods_too():
    x = Value(0.4)
    assert x.maximum(3).data == 3.0 and x.minimum(3).data == 0.4
    assert x.clamp(0.5).data == 0.5 and x.clamp(max=0.1).data == 0.1 and x.clamp(0, 1).data == 0.4
    assert x.where(x > 0, 7).data == 0.4 and x.where(x < 0, 7).data == 7.0


@pytest.mark.parametrize("name", IN_MATH)
@given(x=st.floats(-1.0, 700.0))
@settings(max_examples=50, deadline=None)
def test_values_are_those_of_the_math_module(name, x):
    f = getattr(mg, name)
    try:
        expected = getattr(math, name)(x)
    except ValueError:
        if not (name == "log" and x == 0):
            with pytest.raises(ValueError):
                f(x)
        return
    assert f(x) == expected and f(Value(x)).data == expected


# Derivatives in closed form, written with the math module alone.
CLOSED = {
    "exp": (math.exp, math.exp),
    "expm1": (math.exp, math.exp),
    "log": (lambda x: 1 / x, lambda x: -1 / x**2),
    "log1p": (lambda x: 1 / (1 + x), lambda x: -1 / (1 + x) ** 2),
    "sqrt": (lambda x: 0.5 / math.sqrt(x), lambda x: -0.25 * x**-1.5),
    "sin": (math.cos, lambda x: -math.sin(x)),
    "cos": (lambda x: -math.sin(x), lambda x: -math.cos(x)),
    "tan": (lambda x: math.cos(x) ** -2, lambda x: 2 * math.tan(x) / math.cos(x) ** 2),
    "asin": (lambda x: (1 - x * x) ** -0.5, lambda x: x * (1 - x * x) ** -1.5),
    "acos": (lambda x: -((1 - x * x) ** -0.5), lambda x: -x * (1 - x * x) ** -1.5),
    "atan": (lambda x: 1 / (1 + x * x), lambda x: -2 * x / (1 + x * x) ** 2),
    "sinh": (math.cosh, math.sinh),
    "cosh": (math.sinh, math.cosh),
    "tanh": (lambda x: math.cosh(x) ** -2, lambda x: -2 * math.tanh(x) / math.cosh(x) ** 2),
    "sigmoid": (lambda x: 0.25 / math.cosh(x / 2) ** 2, lambda x: -0.25 * math.tanh(x / 2) / math.cosh(x / 2) ** 2),
    "softplus": (lambda x: 1 / (1 + math.exp(-x)), lambda x: 0.25 / math.cosh(x / 2) ** 2),
    "erfc": (
        lambda x: -2 / math.sqrt(math.pi) * math.exp(-x * x),
        lambda x: 4 * x / math.sqrt(math.pi) * math.exp(-x * x),
    ),
    "log1mexp": (lambda x: 1 / math.expm1(x), lambda x: -math.exp(x) / math.expm1(x) ** 2),
    "log_sigmoid": (lambda x: 1 / (1 + math.exp(x)), lambda x: -0.25 / math.cosh(x / 2) ** 2),
    "normal_cdf": (
        lambda x: math.exp(-x * x / 2) / math.sqrt(2 * math.pi),
        lambda x: -x * math.exp(-x * x / 2) / math.sqrt(2 * math.pi),
    ),
    "erf": (
        lambda x: 2 / math.sqrt(math.pi) * math.exp(-x * x),
        lambda x: -4 * x / math.sqrt(math.pi) * math.exp(-x * x),
    ),
}


@pytest.mark.parametrize("name", CLOSED)
@given(x=st.floats(0.01, 0.99))
@settings(max_examples=25, deadline=None)
def test_first_and_second_derivatives_agree_with_the_closed_forms(name, x):
    first, second = CLOSED[name]
    v = Value(x)
    gradient = mg.grad(getattr(mg, name)(v), v)
    assert gradient.data == pytest.approx(first(x), rel=1e-12)
    assert mg.grad(gradient, v).data == pytest.approx(second(x), rel=1e-12)


# f, x, f(x), f'(x), f''(x): to 60 digits by mpmath 1.4, rounded. f is composed of mpmath's erfc, expm1, log1p and exp.
DIGITS = [
    ("erfc", -6.0, 2.0, -2.617301239249265e-16, -3.1407614870991178e-15),
    ("erfc", -1.0, 1.8427007929497148, -0.4151074974205947, -0.8302149948411894),
    ("erfc", -0.0, 1.0, -1.1283791670955126, 0.0),
    ("erfc", 0.3, 0.6713732405408726, -1.031260909618963, 0.6187565457713778),
    ("erfc", 2.0, 0.004677734981047266, -0.020666985354092053, 0.08266794141636821),
    ("erfc", 10.0, 2.088487583762545e-45, -4.197656231354417e-44, 8.395312462708834e-43),
    ("erfc", 26.0, 5.663192408856143e-296, -2.9470349932662697e-294, 1.53245819649846e-292),
    ("normal_cdf", -37.0, 5.725571222524577e-300, 2.1200065515246056e-298, 7.84402424064104e-297),
    ("normal_cdf", -10.0, 7.619853024160525e-24, 7.694598626706419e-23, 7.694598626706419e-22),
    ("normal_cdf", -2.5, 0.006209665325776135, 0.017528300493568537, 0.043820751233921346),
    ("normal_cdf", 0.0, 0.5, 0.3989422804014327, 0.0),
    ("normal_cdf", 0.7, 0.758036347776927, 0.31225393336676127, -0.21857775335673288),
    ("normal_cdf", 10.0, 1.0, 7.694598626706419e-23, -7.694598626706419e-22),
    ("log_normal_cdf", -10000.0, -50000010.12927891, 10000.000099999997, -0.9999999900000006),
    ("log_normal_cdf", -40.0, -804.6084420137538, 40.02496884720726, -0.9993773316214086),
    ("log_normal_cdf", -37.5, -707.6689893175072, 37.526628874883656, -0.9992919051145792),
    ("log_normal_cdf", -10.0, -53.23128515051247, 10.098093233962512, -0.9905546221743438),
    ("log_normal_cdf", -8.0, -35.01343715991455, 8.121368112236112, -0.9856751165566591),
    ("log_normal_cdf", -7.9, -34.20622817098172, 8.022817246208781, -0.9853403210156723),
    ("log_normal_cdf", -2.5, -5.08164827727869, 2.822744797663907, -0.9110261985788846),
    ("log_normal_cdf", 0.0, -0.6931471805599453, 0.7978845608028654, -0.6366197723675814),
    ("log_normal_cdf", 0.7, -0.2770239422771313, 0.41192475041929066, -0.45802932530149837),
    ("log_normal_cdf", 10.0, -7.619853024160525e-24, 7.694598626706419e-23, -7.694598626706419e-22),
    ("log_normal_cdf", 37.0, -5.725571222524577e-300, 2.1200065515246056e-298, -7.84402424064104e-297),
    ("log1mexp", 1e-100, -230.25850929940458, 1e100, -1e200),
    ("log1mexp", 1e-09, -20.723265837446412, 999999999.4999999, -9.999999999999999e17),
    ("log1mexp", 0.5, -0.9327521295671886, 1.5414940825367982, -3.917698089032764),
    ("log1mexp", 0.7, -0.6863410028083852, 0.9864338636344634, -1.9594856309592785),
    ("log1mexp", 3.0, -0.05106918094270159, 0.05239569649125595, -0.05514100550205976),
    ("log1mexp", 40.0, -4.248354255291589e-18, 4.248354255291589e-18, -4.248354255291589e-18),
    ("log1mexp", 700.0, -9.85967654375977e-305, 9.85967654375977e-305, -9.85967654375977e-305),
    ("log_sigmoid", -10000.0, -10000.0, 1.0, -0.0),
    ("log_sigmoid", -40.0, -40.0, 1.0, -4.248354255291589e-18),
    ("log_sigmoid", -10.0, -10.000045398899218, 0.9999546021312976, -4.5395807735951673e-05),
    ("log_sigmoid", 0.0, -0.6931471805599453, 0.5, -0.25),
    ("log_sigmoid", 1.5, -0.2014132779827524, 0.18242552380635635, -0.14914645207033286),
    ("log_sigmoid", 10.0, -4.539889921686465e-05, 4.5397868702434395e-05, -4.5395807735951673e-05),
]


def compiled(backend, name):
    """value, first and second derivative, as functions of a number."""
    f = getattr(mg, name)
    first = mg.transforms.grad(f)
    three = f, first, mg.transforms.grad(first)
    if backend == "eager":
        return three
    if backend == "llvm":
        pytest.importorskip("llvmlite")
    return [mg.compile(g, backend=backend) for g in three]


@pytest.mark.parametrize("backend", ["eager", "python", "llvm"])
@pytest.mark.parametrize("name", sorted({name for name, *_ in DIGITS}))
def test_the_stable_functions_are_right_to_the_last_digits(name, backend):
    three = compiled(backend, name)
    for x, *expected in [row[1:] for row in DIGITS if row[0] == name]:
        # erfc near 26 turns the last digit of x into 10⁻¹³; log_sigmoid'' is sigmoid · (1 - sigmoid).
        atol = 1e-16 if name == "log_sigmoid" else 0.0
        assert [float(f(x)) for f in three] == pytest.approx(expected, rel=5e-13, abs=atol), (x, backend)


@pytest.mark.parametrize("backend", ["eager", "python", "llvm"])
def test_the_logarithm_of_the_normal_distribution_has_no_seam_where_its_tail_begins(backend):
    three = compiled(backend, "log_normal_cdf")
    below, above = math.nextafter(-8.0, -9), math.nextafter(-8.0, 0)
    for f in three:
        assert float(f(below)) == pytest.approx(float(f(above)), rel=1e-12)


@pytest.mark.parametrize("backend", ["eager", "python", "llvm"])
def test_xlogy_is_0_where_x_is_0_and_so_is_what_cannot_be_told(backend):
    f = mg.value_and_grad(mg.xlogy, argnums=(0, 1))
    if backend != "eager":
        if backend == "llvm":
            pytest.importorskip("llvmlite")
        f = mg.compile(f, backend=backend)
    for x, y, z, dx, dy in [
        (0.0, 0.0, 0.0, 0.0, 0.0),
        (-0.0, 0.0, 0.0, 0.0, 0.0),
        (0.0, -1.0, 0.0, 0.0, 0.0),
        (0.0, 2.0, 0.0, math.log(2), 0.0),
        (3.0, 2.0, 3 * math.log(2), math.log(2), 1.5),
        (-3.0, 1e-300, -3 * math.log(1e-300), math.log(1e-300), -3e300),
    ]:
        value, gradient = f(x, y)
        assert [float(value), *map(float, gradient)] == pytest.approx([z, dx, dy], rel=1e-14, abs=0)


@pytest.mark.parametrize("x, y", [(0.3, -1.2), (1000.0, 999.0), (-1000.0, -1000.0), (5.0, -math.inf), (0.0, -800.0)])
def test_logaddexp_adds_two_numbers_by_their_logarithms(x, y):
    largest = max(x, y)
    share = math.exp(x - largest) / (math.exp(x - largest) + math.exp(y - largest))
    assert mg.logaddexp(x, y) == pytest.approx(largest + math.log1p(math.exp(min(x, y) - largest)), rel=1e-15)
    assert gradient(mg.logaddexp, x, y) == pytest.approx([share, 1 - share], rel=1e-12, abs=1e-15)
    assert mg.logaddexp(math.inf, math.inf) == mg.logaddexp(x, math.inf) == math.inf
    assert mg.logaddexp(-math.inf, -math.inf) == -math.inf


def both_gradients(f, xs):
    """By backward, and by grad with and without a graph."""
    v = [Value(x) for x in xs]
    return [gradient(f, *xs), *[[g.data for g in mg.grad(f(*v), v, create_graph=c)] for c in (True, False)]]


@pytest.mark.parametrize("size", [0.0, 1.0, 1e3, 1e8, 1e16, 1e30, 1e300])
@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_the_shares_of_logsumexp_add_up_to_1_at_any_size(size, n):
    for sign in (1, -1):
        for shares in both_gradients(lambda *xs: mg.logsumexp(xs), [sign * size] * n):
            assert shares == pytest.approx([1 / n] * n, rel=1e-15)
        for shares in both_gradients(lambda *xs: mg.logsumexp(xs), [sign * size + i for i in range(n)]):
            assert math.fsum(shares) == pytest.approx(1, rel=1e-15)
    v = [Value(size), Value(size)]
    second = [[h.data for h in mg.grad(g, v)] for g in mg.grad(mg.logsumexp(v), v)]
    assert second == [[0.25, -0.25], [-0.25, 0.25]]


NOTHING = [-math.inf, -math.inf]
OF_NOTHING = {
    "flat": lambda *xs: mg.logsumexp(xs),
    "nested": lambda *xs: mg.logsumexp([mg.logsumexp(xs), mg.logsumexp(xs[:1])]),
    "beside a number": lambda *xs: mg.logsumexp([mg.logsumexp(xs), 0.5]),
    "by pairs": lambda x, y: mg.logaddexp(mg.logaddexp(x, y), x),
}


@pytest.mark.parametrize("name", OF_NOTHING)
def test_logsumexp_of_nothing_but_minus_infinity_has_the_derivatives_0(name):
    f, zeros = OF_NOTHING[name], [0.0, 0.0]
    assert both_gradients(f, NOTHING) == [zeros] * 3
    v = [Value(x) for x in NOTHING]
    assert [[h.data for h in mg.grad(g, v)] for g in mg.grad(f(*v), v)] == [zeros] * 2


@pytest.mark.parametrize("backend", ["python", "llvm"])
@pytest.mark.parametrize("name", OF_NOTHING)
def test_compiled_logsumexp_shares_alike(name, backend):
    if backend == "llvm":
        pytest.importorskip("llvmlite")
    f = OF_NOTHING[name]
    first = mg.compile(mg.transforms.grad(f, argnums=(0, 1)), backend=backend)
    second = mg.compile(mg.transforms.hessian(lambda xs: f(*xs)), backend=backend)
    assert [*map(float, first(*NOTHING))] == [0.0, 0.0]
    assert [[*map(float, row)] for row in second(NOTHING)] == [[0.0, 0.0]] * 2
    for xs in ([1e16, 1e16], [-1e30, -1e30], [3.0, 3.0]):
        assert [*map(float, first(*xs))] == pytest.approx(gradient(f, *xs), rel=1e-14)
        expected = mg.transforms.hessian(lambda xs: f(*xs))(xs)
        for row, right in zip(second(xs), expected, strict=True):
            assert [*map(float, row)] == pytest.approx([*map(float, right)], rel=1e-13, abs=1e-16)


@pytest.mark.parametrize("xs", [[math.nan], [1.0, math.nan], [math.nan, math.inf], [math.nan, math.nan, 0.0]])
def test_the_derivative_of_a_largest_number_that_is_none_is_none(xs):
    for f in (mg.max, mg.min, *[lambda xs, f=f: f(xs[0], xs[-1]) for f in (mg.maximum, mg.minimum)]):
        for shares in both_gradients(lambda *xs, f=f: f(xs), xs):
            assert all(math.isnan(g) for g in (shares if f in (mg.max, mg.min) else [shares[0], shares[-1]]))


# ── Sums: from left to right ─────────────────────────────────────────────────────────────────────────────────────


def from_left_to_right(xs):
    total = 0.0
    for x in xs:
        total += x
    return total


@pytest.mark.parametrize("xs", [[1e16, 1.0, -1e16], [1.0, 1e100, 1.0, -1e100] * 5, [0.1] * 10, [], [-0.0], [5.0]])
def test_sums_are_made_from_left_to_right_on_every_version_of_python(xs):
    ones, expected = [1.0] * len(xs), from_left_to_right(xs)
    lifted = [Value(x) for x in xs]
    sums = [mg.sum(xs), mg.dot(xs, ones), ops.matvec([xs], ones)[0].real, ops.added(xs, 0.0), ops._added(xs)]
    sums += [mg.sum(lifted).real, mg.dot(lifted, ones).real, ops.matvec([lifted], ones)[0].real]
    assert sums == [expected] * len(sums) and {*map(type, sums)} == {float}
    assert ops.added(xs, 0.5) == ops._added(xs, 0.5) == from_left_to_right([0.5, *xs])
    assert type(ops._added(xs, 0.5)) is float
    if xs:
        z = ops._added(lifted)
        z.backward()
        assert z.data == expected and {x.grad for x in lifted} == {1.0}


def gradient(f, *xs):
    values = [Value(x) for x in xs]
    f(*values).backward()
    return [v.grad for v in values]


# ── Extremes: finite, and right ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "f, x, value, derivative",
    [
        (mg.tanh, 400.0, 1.0, 0.0),
        (mg.tanh, -400.0, -1.0, 0.0),
        (mg.sigmoid, 1e4, 1.0, 0.0),
        (mg.sigmoid, -1e4, 0.0, 0.0),
        (mg.sigmoid, -700.0, math.exp(-700), math.exp(-700)),
        (mg.softplus, 1e4, 1e4, 1.0),
        (mg.softplus, -1e4, 0.0, 0.0),
        (mg.softplus, -700.0, math.exp(-700), math.exp(-700)),
        (mg.softplus, 1e300, 1e300, 1.0),
        (mg.erf, 1e200, 1.0, 0.0),
        (mg.atan, 1e300, math.pi / 2, 0.0),
        (mg.expm1, 1e-300, 1e-300, 1.0),
        (mg.expm1, -50.0, -1.0, math.exp(-50)),
        (mg.expm1, -700.0, -1.0, math.exp(-700)),
        (mg.expm1, -math.inf, -1.0, 0.0),
        (mg.log1mexp, math.inf, 0.0, 0.0),
        (mg.log_sigmoid, 1e4, 0.0, 0.0),
        (mg.log_sigmoid, -math.inf, -math.inf, 1.0),
        (mg.log_sigmoid, math.inf, 0.0, 0.0),
        (mg.erfc, math.inf, 0.0, 0.0),
        (mg.erfc, -math.inf, 2.0, 0.0),
        (mg.normal_cdf, -40.0, 0.0, 0.0),
        (mg.normal_cdf, math.inf, 1.0, 0.0),
        (mg.normal_cdf, -math.inf, 0.0, 0.0),
        (mg.log_normal_cdf, 40.0, 0.0, 0.0),
        (mg.log_normal_cdf, math.inf, 0.0, 0.0),
        (mg.log_normal_cdf, -math.inf, -math.inf, math.inf),
        (mg.log_normal_cdf, -1e200, -math.inf, 1e200),
        (mg.log1p, 1e-300, 1e-300, 1.0),
        (mg.log, 1e-300, math.log(1e-300), 1e300),
        (mg.sqrt, 1e300, 1e150, 5e-151),
        (mg.exp, -1e4, 0.0, 0.0),
        (mg.abs, -1e300, 1e300, -1.0),
        (mg.exp, -math.inf, 0.0, 0.0),
        (mg.sigmoid, -math.inf, 0.0, 0.0),
        (mg.sigmoid, math.inf, 1.0, 0.0),
        (mg.tanh, math.inf, 1.0, 0.0),
        (mg.log, math.inf, math.inf, 0.0),
    ],
)
def test_extremes_are_finite_and_right(f, x, value, derivative):
    v = Value(x)
    z = f(v)
    z.backward()
    assert z.data == pytest.approx(value, rel=1e-15, abs=0) and v.grad == pytest.approx(derivative, rel=1e-15, abs=0)


def test_logsumexp_neither_overflows_nor_loses_digits():
    assert mg.logsumexp([1000, 0]) == 1000.0
    assert mg.logsumexp([-1000, -1000]) == pytest.approx(-1000 + math.log(2), rel=1e-15)
    assert mg.logsumexp([0, -40]) == pytest.approx(math.exp(-40), rel=1e-12)  # 1 + exp(-40) would be lost in the sum
    assert gradient(lambda x, y: mg.logsumexp([x, y]), 1000.0, 0.0) == [1.0, 0.0]
    assert gradient(lambda x, y: mg.logsumexp([x, y]), 5.0, 5.0) == pytest.approx([0.5, 0.5], rel=1e-15)


@pytest.mark.parametrize("xs", [[math.inf, math.nan], [math.nan, math.inf], [1.0, math.nan], [-math.inf, math.nan]])
def test_a_nan_among_the_inputs_is_seen_in_the_result(xs):
    for f in (mg.logsumexp, mg.max, mg.min, mg.sum, mg.prod, mg.mean):
        assert math.isnan(f(xs)) and math.isnan(f([Value(x) for x in xs]).data)
        assert math.isnan(f(xs[::-1]))
    assert math.isnan(mg.maximum(*xs)) and math.isnan(mg.minimum(*xs))


@pytest.mark.parametrize(
    "f",
    [
        *(mg.relu, mg.abs, mg.exp, mg.log, mg.sigmoid, mg.softplus, mg.tanh, mg.clamp, lambda x: mg.clamp(1.0, x, 0.0)),
        *(mg.erfc, mg.log1mexp, mg.log_sigmoid, mg.normal_cdf, mg.log_normal_cdf),
        *(lambda x: mg.xlogy(0.0, x), lambda x: mg.xlogy(x, 2.0), lambda x: mg.logaddexp(x, 1.0)),
    ],
)
def test_a_nan_stays_a_nan(f):
    assert math.isnan(f(math.nan)) and math.isnan(f(Value(math.nan)).data)


# ── Corners ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "f, xs, expected",
    [
        (mg.relu, [0.0], [0.0]),
        (mg.relu, [-0.0], [0.0]),
        (mg.relu, [1e-300], [1.0]),
        (mg.abs, [0.0], [0.0]),
        (mg.abs, [-0.0], [0.0]),
        (mg.maximum, [2.0, 2.0], [0.5, 0.5]),
        (mg.minimum, [2.0, 2.0], [0.5, 0.5]),
        (mg.maximum, [2.0, 3.0], [0.0, 1.0]),
        (mg.minimum, [2.0, 3.0], [1.0, 0.0]),
        (lambda *xs: mg.max(xs), [1.0, 3.0, 3.0, 3.0], [0.0, 1 / 3, 1 / 3, 1 / 3]),
        (lambda *xs: mg.min(xs), [1.0, 1.0, 3.0], [0.5, 0.5, 0.0]),
        (mg.clamp, [0.5, 0.0, 1.0], [1.0, 0.0, 0.0]),
        (mg.clamp, [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]),
        (mg.clamp, [1.0, 0.0, 1.0], [1.0, 0.0, 0.0]),
        (mg.clamp, [-1.0, 0.0, 1.0], [0.0, 1.0, 0.0]),
        (mg.clamp, [2.0, 0.0, 1.0], [0.0, 0.0, 1.0]),
        (mg.clamp, [0.5, 1.0, 0.0], [0.0, 0.0, 1.0]),
        (lambda x, y: mg.where(x < y, x * x, y), [2.0, 3.0], [4.0, 0.0]),
        (lambda x, y: mg.where(x > y, x * x, y), [2.0, 3.0], [0.0, 1.0]),
        (lambda *xs: mg.prod(xs), [0.0, 2.0, 3.0], [6.0, 0.0, 0.0]),
        (lambda *xs: mg.prod(xs), [0.0, 0.0, 3.0], [0.0, 0.0, 0.0]),
        (lambda *xs: mg.mean(xs), [1.0, 2.0, 3.0, 4.0], [0.25] * 4),
    ],
)
def test_corners_take_the_side_that_pytorch_takes(f, xs, expected):
    assert gradient(f, *xs) == pytest.approx(expected, rel=1e-15, abs=0)


def test_clamp_without_a_bound_is_open_on_that_side():
    x = Value(5.0)
    assert mg.clamp(x).data == 5.0 and mg.clamp(x, max=3).data == 3.0 and mg.clamp(x, 7).data == 7.0
    assert mg.clamp(x, 2, 1).data == 1.0, "min > max gives max"
    assert mg.clamp(math.inf, 0) == math.inf


def test_a_condition_may_be_a_comparison_a_number_or_a_value():
    assert mg.where(True, 1, 2) == mg.where(0.5, 1, 2) == mg.where(Value(-1), 1, 2) == 1.0
    assert mg.where(False, 1, 2) == mg.where(0, 1, 2) == mg.where(Value(0), 1, 2) == 2.0
    for bad in ("yes", None, [1]):
        with pytest.raises(TypeError, match=r"condition: expected a real number"):
            mg.where(bad, 1, 2)


@pytest.mark.parametrize("x, y", list(product([-1.5, -0.0, 0.0, 2.0, math.inf, math.nan], repeat=2)))
def test_comparisons_are_1_or_0_and_have_no_derivative(x, y):
    relations = {"less": x < y, "less_equal": x <= y, "equal": x == y}
    for name, holds in relations.items():
        row, a, b = TABLE[name], Value(x), Value(y)
        z = row(a, b)
        z.backward()
        assert row(x, y) == z.data == (1.0 if holds else 0.0) and type(row(x, y)) is float
        assert [a.grad, b.grad] == [0.0, 0.0] and [g.data for g in mg.grad(row(a, b), [a, b])] == [0.0, 0.0]


def test_the_derivative_of_a_choice_goes_to_what_was_chosen_alone():
    for c, expected in ((1.0, [1.0, 0.0]), (0.0, [0.0, 1.0])):
        condition, x, y = Value(c), Value(3.0), Value(4.0)
        z = TABLE["where"](condition, x, y)
        z.backward()
        assert z.data == (3.0 if c else 4.0)
        assert [condition.grad, x.grad, y.grad] == [0.0, *expected]


def test_a_product_of_many_inputs_with_one_zero_has_its_second_derivatives():
    xs = [Value(x) for x in (0.0, 2.0, 3.0)]
    first = mg.grad(mg.prod(xs), xs)
    assert [g.data for g in first] == [6.0, 0.0, 0.0]
    assert [mg.grad(g, xs)[0].data for g in first] == [0.0, 3.0, 2.0]


def test_reductions_of_nothing():
    assert mg.sum([]) == 0.0 and mg.prod([]) == 1.0 and mg.dot([], []) == 0.0
    assert all(type(x) is float for x in (mg.sum([]), mg.prod([]), mg.dot([], [])))
    for f in (mg.mean, mg.max, mg.min, mg.logsumexp):
        with pytest.raises(ValueError, match=f"^{f.__name__ if f is mg.mean else f.name}"):
            f([])


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: mg.dot([1, 2]), "dot: expected 2 lists, got 1 arguments"),
        (lambda: mg.sum([1, 2], [3, 4]), "sum: expected 1 list, got 2 arguments"),
        (lambda: mg.max(Value(1.0), 0), "max: expected 1 list, got 2 arguments"),
        (lambda: mg.sum(Value(1.0)), "sum: expected a list of numbers or Values, got Value"),
        (lambda: mg.logsumexp(None), "logsumexp: expected a list of numbers or Values, got NoneType None"),
        (lambda: mg.mean(5), "mean: expected a list of numbers or Values, got int 5"),
    ],
)
def test_reductions_say_what_they_expected(call, complaint):
    with pytest.raises(TypeError, match=f"^{complaint}"):
        call()


def test_reductions_take_any_iterable():
    assert mg.sum(x for x in (1, Value(2), 3.0)).data == 6.0
    assert mg.dot(range(3), (4, 5, 6)) == 17.0
    assert mg.max({1: "a", 5: "b"}) == 5.0
    with pytest.raises(ValueError, match=r"dot: expected lists of one length, got 2 and 1"):
        mg.dot([1, 2], [3])
    for bad in ([[1.0]], "12", [None], [1j]):
        with pytest.raises(TypeError, match=r"expected a real number or a Value"):
            mg.sum(bad)


# ── Powers ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("x", [-1.7, -0.4, 0.3, 1.0, 2.6])
@pytest.mark.parametrize("n", [-3, -1, 0, 1, 2, 5])
def test_a_whole_power_has_the_derivatives_of_the_power_rule(x, n):
    v = Value(x)
    first = mg.grad(v**n, v)
    second = mg.grad(first, v) if first.requires_grad else Value(0.0)
    assert (v**n).data == x**n
    assert first.data == pytest.approx(n * x ** (n - 1), rel=1e-14)
    assert second.data == pytest.approx(n * (n - 1) * x ** (n - 2), rel=1e-14)


@pytest.mark.parametrize("x, y", [(0.3, 1.7), (2.0, -0.5), (1.0, 3.0), (3.0, 0.0), (2.5, 1.0)])
def test_a_power_of_two_values_has_all_its_derivatives_also_where_the_exponent_is_0(x, y):
    a, b = Value(x), Value(y)
    dx, dy = mg.grad(a**b, [a, b])
    ln = math.log(x)
    assert [dx.data, dy.data] == pytest.approx([y * x ** (y - 1), x**y * ln], rel=1e-14)
    mixed = x ** (y - 1) * (1 + y * ln)
    assert [d.data for d in mg.grad(dx, [a, b])] == pytest.approx([y * (y - 1) * x ** (y - 2), mixed], rel=1e-13, abs=0)
    assert [d.data for d in mg.grad(dy, [a, b])] == pytest.approx([mixed, x**y * ln**2], rel=1e-13, abs=0)


def test_powers_at_zero():
    assert (Value(0.0) ** 0).data == (0 ** Value(0.0)).data == (Value(0.0) ** Value(0.0)).data == 1.0
    assert gradient(lambda x: x**0, 0.0) == [0.0]
    assert gradient(lambda x: x**1, 0.0) == [1.0]
    assert gradient(lambda x: x**2, 0.0) == [0.0]
    assert gradient(lambda x, y: x**y, 0.0, 0.0) == [0.0, 0.0]
    assert gradient(lambda x, y: x**y, 0.0, 2.0) == [0.0, 0.0]
    assert gradient(lambda y: 0**y, 2.0) == gradient(lambda y: 0**y, 0.5) == gradient(lambda y: 0.0**y, 0.0) == [0.0]


def test_a_negative_base_has_no_derivative_by_the_exponent():
    dx, dy = gradient(lambda x, y: x**y, -2.0, 3.0)
    assert dx == 12.0 and math.isnan(dy)
    assert gradient(lambda x: x**3, -2.0) == [12.0]


# ── Outside the domain ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "f, x, error",
    [
        (mg.log, -1.0, ValueError),
        (mg.log, -1e-300, ValueError),
        (mg.log, -math.inf, ValueError),
        (mg.log1p, -1.0, ValueError),
        (mg.log1p, -2.0, ValueError),
        (mg.sqrt, -1.0, ValueError),
        (mg.asin, 2.0, ValueError),
        (mg.acos, -1.5, ValueError),
        (mg.sin, math.inf, ValueError),
        (mg.cos, -math.inf, ValueError),
        (mg.tan, math.inf, ValueError),
        (mg.exp, 1000.0, OverflowError),
        (mg.expm1, 1000.0, OverflowError),
        (mg.sinh, -1000.0, OverflowError),
        (mg.cosh, 1000.0, OverflowError),
        (mg.log1mexp, 0.0, ValueError),
        (mg.log1mexp, -1.0, ValueError),
        (mg.log1mexp, -1e4, ValueError),
    ],
)
def test_outside_its_domain_an_operation_raises_and_names_itself_the_number_and_the_value(f, x, error):
    with pytest.raises(error, match=rf"^{f.name} of {x}: "):
        f(x)
    with pytest.raises(error, match=rf"^{f.name} of {x}: "):
        f(Value(x))
    with pytest.raises(error, match=rf"^{f.name} of price = {x}: "):
        f(Value(x, "price"))


@pytest.mark.parametrize(
    "f, x, error, message",
    [
        (lambda x: 1 / x, 0.0, ZeroDivisionError, r"^div of 1.0, price = 0.0: expected y != 0"),
        (lambda x: x / 0, 3.0, ZeroDivisionError, r"^div of price = 3.0, 0.0: expected y != 0"),
        (lambda x: x / -0.0, 3.0, ZeroDivisionError, r"^div of price = 3.0, -0.0: "),
        (lambda x: x / Value(0, "count"), 3.0, ZeroDivisionError, r"^div of price = 3.0, count = 0.0: "),
        (lambda x: x ** (1 / 3), -8.0, ValueError, r"^power of price = -8.0, 0.333\d*: expected x > 0 or"),
        (lambda x: x ** Value(0.5), -8.0, ValueError, r"^pow of price = -8.0, 0.5: expected x > 0 or"),
        (lambda x: x**-1, 0.0, ZeroDivisionError, r"^pow(er)? of price = 0.0, -1.0: "),
        (lambda x: x ** Value(-1), 0.0, ZeroDivisionError, r"^pow of price = 0.0, -1.0: "),
        (lambda x: 0**x, -2.0, ZeroDivisionError, r"^exponential of 0.0, price = -2.0: "),
        (lambda x: (-8) ** x, 0.5, ValueError, r"^exponential of -8.0, price = 0.5: "),
        (lambda x: x**2, 1e200, OverflowError, r"^pow(er)? of price = 1e\+200, 2.0: "),
        (lambda x: 10**x, 400.0, OverflowError, r"^exponential of 10.0, price = 400.0: "),
        (lambda x: mg.xlogy(x, 0), 2.0, ValueError, r"^xlogy of price = 2.0, 0.0: expected x == 0 or y > 0"),
        (lambda x: mg.xlogy(1, x), -1.0, ValueError, r"^xlogy of 1.0, price = -1.0: expected x == 0 or y > 0"),
        (lambda x: TABLE["bce"](x, 1.0), 1.5, ValueError, r"^bce of price = 1.5, 1.0: expected 0 <= x <= 1"),
        (lambda x: TABLE["bce"](x, 0.5), -0.1, ValueError, r"^bce of price = -0.1, 0.5: expected 0 <= x <= 1"),
        (lambda x: TABLE["bce"](x, 0.5), math.nan, ValueError, r"^bce of price = nan, 0.5: expected 0 <= x <= 1"),
    ],
)
def test_arithmetic_outside_its_domain_names_both_numbers(f, x, error, message):
    value = Value(x, "price")
    with pytest.raises(error, match=message):
        f(value)
    assert value.data == x or x != x


def test_many_inputs_are_not_all_shown():
    with pytest.raises(ValueError, match=r"^max of 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, …: "):
        Reduction("max", lambda *xs: math.log(-1), lambda z, *xs: xs, "max({})", "Fails.")(range(20))


# ── log(0) and sqrt(0) ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("zero", [0, 0.0, -0.0, False])
def test_log_of_zero_is_that_of_the_epsilon_and_the_input_is_unchanged(zero):
    assert LOG_EPSILON == 1e-8
    x = Value(zero)
    z = x.log()
    z.backward()
    assert z.data == mg.log(zero) == math.log(1e-8)
    assert x.grad == pytest.approx(1e8, rel=1e-15) and mg.grad(z, x).data == pytest.approx(1e8, rel=1e-15)
    assert x.data == 0.0 and math.copysign(1, x.data) == math.copysign(1, zero)


@pytest.mark.parametrize(
    "f, edge, error",
    [
        (lambda x: x.sqrt(), 0.0, "sqrt of edge = 0.0: no finite derivative"),
        (lambda x: x**0.5, 0.0, "power of edge = 0.0, 0.5: no finite derivative"),
        (lambda x: x.asin(), 1.0, "asin of edge = 1.0: no finite derivative"),
        (lambda x: x.acos(), -1.0, "acos of edge = -1.0: no finite derivative"),
    ],
)
def test_where_a_derivative_is_infinite_backward_raises_and_no_grad_changes(f, edge, error):
    x, y = Value(edge, "edge"), Value(2.0)
    before = y * 3.0
    z = f(x) + before * y
    for v, grad in zip((x, y, before, z), (0.25, 0.5, 0.75, 1.0)):
        v.grad = grad
    with pytest.raises(ZeroDivisionError, match=error):
        z.backward()
    assert [v.grad for v in (x, y, before, z)] == [0.25, 0.5, 0.75, 1.0]


def test_methods_are_printed_by_their_names():
    v = Value(1.0)
    for name in ("exp", "abs", "where", "maximum", "minimum", "clamp"):
        assert repr(getattr(v, name)) == f"<bound method {name} of {v!r}>"

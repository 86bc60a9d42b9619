"""Compiled programs in order, on every backend, against the eager engine: all kinds of loops, called in all ways."""

import math
import random

import pytest

from milligrad import Value, compile, manual_seed, ops, value_and_grad
from milligrad.compiler.backends import has_llvmlite
from milligrad.engine import number
from milligrad.random import uniform
from tests.compiler.random_programs import Example, failure, numbers
from tests.compiler.rolled import assert_close, forced

BACKENDS = ["python", pytest.param("llvm", marks=pytest.mark.skipif(not has_llvmlite(), reason="needs llvmlite"))]
EXAMPLES = 60  # random programs; `random_programs.py --order` tries more


@pytest.fixture(params=BACKENDS)
def backend(request, monkeypatch):
    forced(monkeypatch)
    return request.param


R = random.Random(5)
ORDER = R.sample(range(12), 12)
WEIGHTS = [round(R.uniform(0.2, 1.0), 2) for _ in range(12)]
LABELS = [R.randrange(3) for _ in range(14)]


def pendulum(x):
    theta, omega = x[0], x[1]
    for _ in range(30):
        theta, omega = theta + 0.05 * omega, omega - 0.05 * x[2] * ops.sin(theta)
    return [theta, omega]


def rk4(x):
    def rate(s):
        return [s[1], -ops.sin(s[0]) - 0.1 * s[1]]

    def along(s, k, h):
        return [a + h * b for a, b in zip(s, k)]

    s = x[:2]
    for _ in range(15):
        k1 = rate(s)
        k2 = rate(along(s, k1, 0.05))
        k3 = rate(along(s, k2, 0.05))
        k4 = rate(along(s, k3, 0.1))
        s = [a + 0.1 / 6 * (b + 2 * c + 2 * d + e) for a, b, c, d, e in zip(s, k1, k2, k3, k4)]
    return s


def heat(x):
    """In time and space, the ends fixed."""
    for _ in range(8):
        x = [x[0], *[0.6 * b + 0.2 * (a + c) * ops.cos(b) for a, b, c in zip(x, x[1:], x[2:])], x[-1]]
    return x


def cholesky(x):
    n = 8
    lower = [[0.0] * n for _ in range(n)]
    for i in range(n):
        for j in range(i + 1):
            s = 0.3 * x[i] * x[j] + (2.0 if i == j else 0.0)
            for k in range(j):
                s = s - lower[i][k] * lower[j][k]
            lower[i][j] = ops.sqrt(s) if i == j else s / lower[j][j]
    return [ops.log(lower[i][i]) for i in range(n)] + [lower[n - 1][0]]


def gaussian_process(x):
    """Rows that grow, and sums that go on from row to row: what is handed on is not always as many numbers back."""
    n = len(x)
    lower = [[0.0] * n for _ in range(n)]
    log_det, zs = 0.0, []
    for i in range(n):
        for j in range(i + 1):
            s = ops.exp(-(x[i] - x[j]) * (x[i] - x[j])) + (1.5 if i == j else 0.0)
            for k in range(j):
                s = s - lower[i][k] * lower[j][k]
            lower[i][j] = ops.sqrt(s) if i == j else s / lower[j][j]
        log_det = log_det + ops.log(lower[i][i])
        z = math.sin(i)
        for k in range(i):
            z = z - lower[i][k] * zs[k]
        zs.append(z / lower[i][i])
    return [log_det, ops.dot(zs, zs)]


def substitution(x):
    y = []
    for i in range(12):
        y.append(x[i] - ops.dot(WEIGHTS[:i], y) if i else x[i])
    return y[-3:]


def hidden_markov(x):
    alpha = x[:3]
    for label in LABELS:
        alpha = [ops.logsumexp([a + x[3 * j + i] for i, a in enumerate(alpha)]) + x[9 + label] for j in range(3)]
    return [ops.logsumexp(alpha)]


def permuted(x):
    z = [ops.sin(x[k]) * w for k, w in zip(ORDER, WEIGHTS)]
    return [ops.exp(z[k]) / (2 + z[i]) for i, k in enumerate(ORDER)]


def scattered(x):
    """Sums over what an index says, as in a histogram or a sparse matrix."""
    r = random.Random(3)
    rows = [r.sample(range(12), 6) for _ in range(20)]
    return [ops.tanh(ops.dot([x[k] for k in row], WEIGHTS[:6])) for row in rows]


def vectors(x):
    """Rows of computed numbers, looked up."""
    rows = [[ops.sin(a * b) for b in x] for a in x]
    return [ops.dot(rows[k], rows[j]) * ops.exp(rows[j][k]) for k, j in zip(ORDER + ORDER[::-1], ORDER[::-1] * 2)]


def anchored(x):
    """Each iteration reads what the first one computed, the first one included."""
    y, z = [], []
    for a in x:
        y.append(ops.sin(a))
        z.append(ops.exp(y[-1] * y[0]))
    return z


def running(x):
    """In place, and a maximum that is carried."""
    y, z = list(x), x[0]
    for i in range(1, 12):
        y[i] = 0.5 * y[i - 1] + y[i]
        z = ops.maximum(z, y[i] * WEIGHTS[i])
    return [y[-1], z, ops.max(y), ops.min(y), ops.prod(y[:5])]


def triangle(x):
    return [ops.sum([ops.sin(x[i] - x[j]) * WEIGHTS[j] for i in range(12) for j in range(i)])]


def growing(x):
    """Runs that grow with the index, of leaves, of what was computed, and with constants of their own."""
    z = [ops.tanh(a) for a in x]
    return [ops.dot(z[: i + 1], WEIGHTS[: i + 1]) + ops.max(x[i:]) + ops.logsumexp(z[: i + 1][::-1]) for i in range(12)]


def between_triangles(x):
    """What a growing loop computes last is read after it, as far back as the loop has grown by: that is not carried."""
    a = x[0]
    for i in range(9):
        for j in range(i + 1):
            b = a * x[j]
            a = ops.cos(ops.sin(b))
        c, d = ops.exp(a), ops.tanh(b)
        for j in range(i + 1):
            c = ops.sin(c * x[j])
        a = ops.sin(c + d)
    return [a, b, c, d]


def network(x):
    w = [[math.sin(3 * i + j) for j in range(12)] for i in range(6)]
    for _ in range(3):
        h = [ops.tanh(ops.dot(row, x) + 0.1 * i) for i, row in enumerate(w)]
        x = [ops.dot(column, h) for column in zip(*w)]
    return x


def results(x):
    """Leaves, constants, the same twice, in another order."""
    z = [ops.sin(a) for a in x]
    return [*z[::-1], x[0], 2.5, z[3], z[3], x[0], 0.0, -0.0, *x[::2]]


KINDS = [
    pendulum, rk4, heat, cholesky, gaussian_process, substitution, hidden_markov, permuted, scattered, vectors,
    anchored, running, triangle, growing, between_triangles, network, results,
]  # fmt: skip
POINTS = [[math.sin(1 + 2 * k + 5 * n) + 0.01 * k for k in range(12)] for n in range(4)]


def total(f):
    return lambda x: ops.dot([math.cos(k) for k in range(len(f(x)))], f(x))


def values(f, x):
    return [number(z) for z in f([Value(a) for a in x])]


def gradient(f, x):
    """By the eager engine's own walk."""
    xs = [Value(a) for a in x]
    z = total(f)(xs)
    z.backward()
    return [z.data, *[a.grad for a in xs]]


def goes_in_order(compiled):
    """Whether the program took the way that this file is about."""
    times = [line for line in compiled.explain().split("\n") if "simplify: " in line]
    return bool(times) and all("registers: " in line for line in times)


@pytest.mark.parametrize("f", KINDS)
def test_values_rows_and_gradients(backend, f):
    compiled = compile(f, backend=backend)
    for x in POINTS[:2]:
        assert_close(compiled(x), values(f, x))
    assert goes_in_order(compiled)
    for row, x in zip(compiled.map([[x] for x in POINTS]), POINTS, strict=True):
        assert_close(row, values(f, x))
    derived = compile(value_and_grad(total(f)), backend=backend)
    for x in POINTS[:2]:
        assert_close(numbers(derived(x)), gradient(f, x))
    assert goes_in_order(derived)
    for row, x in zip(derived.map([[x] for x in POINTS]), POINTS, strict=True):
        assert_close(numbers(row), gradient(f, x))


@pytest.mark.skipif(not has_llvmlite(), reason="needs llvmlite")
@pytest.mark.parametrize("f", KINDS)
def test_float32(monkeypatch, f):
    forced(monkeypatch)
    compiled = compile(value_and_grad(total(f)), backend="llvm", dtype="float32")
    for x in POINTS[:2]:
        assert_close(numbers(compiled(x)), gradient(f, x), 1e-4)


@pytest.mark.parametrize("f", KINDS)
def test_captured_numbers_are_those_of_each_call(backend, f):
    w = [Value(a) for a in POINTS[0]]
    compiled = compile(lambda scale: [scale[0] * z for z in f(w)], backend=backend)
    for point in POINTS[:3]:
        for v, a in zip(w, point):
            v.data = a
        assert_close(compiled([0.5]), [0.5 * z for z in values(f, point)])
    assert goes_in_order(compiled)


def test_captured_numbers_learn(backend):
    """The gradient by captured Values, through `value`, which stores and reads computed numbers."""
    w = [Value(0.3), Value(-0.2)]

    def loss(x):
        z = x
        for _ in range(20):
            z = ops.sin(w[0] * z) + w[1]
        return z

    for a, b in ((0.3, -0.2), (0.9, 0.4)):
        w[0].data, w[1].data = a, b
        for v in w:
            v.grad = 0.0
        loss(Value(0.7)).backward()
        expected = [v.grad for v in w]
        for v in w:
            v.grad = 0.0
        compile(loss, backend=backend).value(Value(0.7)).backward()
        assert_close([v.grad for v in w], expected)


def test_random_draws_in_a_loop(backend):
    def walk(x):
        z = x
        for _ in range(15):
            z = 0.9 * z + ops.sin(uniform())
        return z

    compiled = compile(walk, backend=backend)
    for seed in (1, 2):
        manual_seed(seed)
        expected = [number(walk(Value(0.5))) for _ in range(3)]
        manual_seed(seed)
        assert_close([compiled(0.5) for _ in range(3)], expected)
        manual_seed(seed)
        assert_close(compiled.map([[0.5]] * 3), expected)


def root(x):
    """The root of what falls below 0 for a small x."""
    z = x
    for _ in range(12):
        z = ops.sqrt(z) - 0.1
    return z


def test_what_is_no_number_is_refused_or_allowed(backend):
    refusing, allowing = (compile(root, backend=backend, nonfinite=n) for n in ("raise", "allow"))
    assert_close([refusing(2.0), allowing(2.0)], [number(root(Value(2.0)))] * 2)
    with pytest.raises(FloatingPointError, match="not finite"):
        refusing(0.001)
    assert math.isnan(allowing(0.001))
    rows = allowing.map([[2.0], [0.001], [3.0]])
    assert math.isnan(rows[1])
    assert_close([rows[0], rows[2]], [number(root(Value(x))) for x in (2.0, 3.0)])
    with pytest.raises(FloatingPointError, match="row 1 is not finite"):
        refusing.map([[2.0], [0.001], [3.0]])


def test_what_no_result_depends_on_may_be_no_number(backend):
    """Then the program is made anew, exactly: it raises nothing on the way, and 0 · inf is 0 in its chain rule."""

    def f(x):
        z = 0.0
        for a in x:
            z = z + ops.where(a > 0, ops.log(a), a * a) * 0.5
        return z

    x = [(-1) ** k * (0.1 + 0.1 * k) for k in range(12)]
    want = sum(0.5 * (math.log(a) if a > 0 else a * a) for a in x)
    slopes = [0.5 / a if a > 0 else a for a in x]
    compiled = compile(value_and_grad(f), backend=backend)
    assert_close(numbers(compiled(x)), [want, *slopes])
    assert_close(numbers(compiled.map([[x], [x]])[1]), [want, *slopes])


def test_infinities_pass_where_they_are_allowed(backend):
    def f(x):
        z = x
        for _ in range(10):
            z = z * z
        return [z, ops.exp(-z), 1 / z]

    assert compile(f, backend=backend, nonfinite="allow")(10.0) == [math.inf, 0.0, 0.0]


@pytest.mark.parametrize("block", range(4))
def test_random_programs(monkeypatch, block):
    """As test_random_programs.py does it, where every program goes this way; some go to llvm."""
    forced(monkeypatch)
    verdicts = []
    for seed in range(5000 + block, 5000 + EXAMPLES, 4):
        backends = ["python", "llvm"] if has_llvmlite() and seed % 40 == block else ["python"]
        verdict = failure(Example(seed), backends)
        assert not verdict.startswith("FAILED"), f"{verdict}\n{Example(seed)}"
        verdicts.append(verdict)
    assert verdicts.count("") > len(verdicts) / 3

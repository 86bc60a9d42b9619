"""Long scans, whose count is a run-time number: against the same function run eagerly, and against what must refuse."""

import copy
import math
from array import array

import pytest

import milligrad as mg
from milligrad import (
    Value,
    compile,
    cos,
    dot,
    exp,
    log,
    logsumexp,
    mean,
    scan,
    sigmoid,
    sin,
    tanh,
    value_and_grad,
    where,
)
from milligrad.compiler.backends import has_llvmlite
from milligrad.compiler.passes import counts, short
from milligrad.engine import number
from milligrad.random import uniform
from milligrad.transforms import grad, hessian, jacobian, jvp
from tests.compiler.in_c import HAS_CC, loaded
from tests.compiler.random_scans import Example, failure

needs_cc = pytest.mark.skipif(not HAS_CC, reason="there is no C compiler")
BACKENDS = ["python", pytest.param("llvm", marks=pytest.mark.skipif(not has_llvmlite(), reason="needs llvmlite"))]
P = [0.3, 0.4]


def data(n):
    return [math.sin(1.7 * i) for i in range(n)]


def flat(x):
    """All numbers of a result, in order."""
    if isinstance(x, dict):
        x = list(x.values())
    if x is None:
        return []
    return [z for part in x for z in flat(part)] if hasattr(x, "__len__") else [number(x)]


def assert_as_eager(f, g, *args, tolerance=1e-10):
    got, expected = flat(g(*args)), flat(f(*args))
    assert got == pytest.approx(expected, rel=tolerance, abs=tolerance)


def is_counted(g):
    return "steps of a scan" in g.explain()


# Functions of (p, xs), whose scans are over xs, that become programs with a count.


def recurrence(p, xs):
    c, ys = scan(lambda c, x: (tanh(p[0] * c + p[1] * x),) * 2, 0.5, xs)
    return c + mean(ys) * ys[-1] + ys[0]


def sums(p, xs):
    _, ys = scan(lambda c, x: (p[0] * c + p[1] * x,) * 2, 0.0, xs)
    return sum(ys) / len(ys) + mg.sum(xs) / len(xs)


def losses(p, xs):
    _, ys = scan(lambda c, x: (p[0] * c + p[1] * x, c), 0.0, xs)
    return mg.functional.mse_loss(ys, xs) + mg.max(ys) + logsumexp(ys)


def rows(p, xs):
    def step(c, x):
        return [tanh(p[0] * c[0] + x[0] * c[1]), tanh(p[1] * c[1] - x[1])], None

    c, _ = scan(step, [0.1, 0.2], xs)
    return dot(c, c)


def several(p, xs):
    """One over what another gave, forwards and backwards."""
    c, ys = scan(lambda c, x: (p[0] * c + x,) * 2, 0.0, xs)
    d, zs = scan(lambda c, x: (p[1] * c + x * x, c), 0.0, ys)
    e, us = scan(lambda c, x: (p[1] * c + x, sin(c)), p[0], ys[::-1])
    return c + d * e + mean(zs) + us[0] - us[-2]


def without_the_first(p, xs):
    c, _ = scan(lambda c, x: ((x, c[1] + (x - p[0] * c[0]) ** 2), None), (xs[0], 0.0), xs[1:])
    return c[1] + xs[-1]


def pairs(p, xs):
    return scan(lambda c, x: (c + (x[1] - p[0] * x[0]) ** 2, None), 0.0, (xs[:-1], xs[1:]))[0]


def an_inner_scan(p, xs):
    def step(c, x):
        return scan(lambda a, _: (a + 0.1 * (x - a * p[0]), None), c, length=4)[0], None

    return scan(step, 0.0, xs)[0]


def filtered(p, xs):
    def step(c, y):
        m, v = c["state"]
        v = v * 0.81 + exp(p[0])
        total = v + exp(p[1])
        k, error = v / total, y - m
        return {"state": (m + k * error, (1 - k) * v)}, 0.5 * (log(total) + error * error / total)

    return mg.sum(scan(step, {"state": (0.0, 1.0)}, xs)[1])


def a_window(p, xs):
    """Numbers that are handed on for three steps."""

    def step(c, x):
        new = x + p[0] * c[0] + p[1] * c[2]
        return [c[1], c[2], new], new

    c, ys = scan(step, [0.1, 0.2, 0.3], xs)
    return c[0] + c[2] * ys[-2]


def cells(p, xs):
    """An LSTM of two cells."""
    w = [[math.sin(4 * i + j) for j in range(4)] for i in range(8)]

    def step(c, x):
        h, s = c
        z = [dot(row, [x, *h, p[0]]) for row in w]
        i, o, f = [[sigmoid(a) for a in z[2 * k : 2 * k + 2]] for k in range(3)]
        s = [a * b + d * tanh(e) for a, b, d, e in zip(f, s, i, z[6:])]
        return ([a * tanh(b) for a, b in zip(o, s)], s), None

    (h, _), _ = scan(step, ([0.0] * 2, [p[1]] * 2), xs)
    return dot(h, h)


def triangular(p, xs):
    """A Cholesky factor in each step."""

    def step(c, x):
        lower = [[0.0] * 4 for _ in range(4)]
        for i in range(4):
            for j in range(i + 1):
                s = c[i] * c[j] + (3.0 + x * x if i == j else p[0])
                for k in range(j):
                    s = s - lower[i][k] * lower[j][k]
                lower[i][j] = mg.sqrt(s) if i == j else s / lower[j][j]
        return [0.5 * z for z in lower[3]], log(lower[3][3])

    return mg.sum(scan(step, [0.1, 0.2, 0.3, p[1]], xs)[1])


def permuted(p, xs):
    order = [3, 1, 4, 0, 2]
    c, _ = scan(lambda c, x: ([tanh(c[k] * p[k % 2] + x) for k in order], None), [0.1] * 5, xs)
    return dot(c, c)


def chosen(p, xs):
    c, _ = scan(lambda c, x: (where(x > 0, c * p[0], c + x * p[1]), None), 0.0, xs)
    return c


FUNCTIONS = [
    recurrence, sums, losses, rows, several, without_the_first, pairs, an_inner_scan, filtered, a_window, cells,
    triangular, permuted, chosen,
]  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("f", FUNCTIONS, ids=lambda f: f.__name__)
def test_the_program_is_the_same_for_all_lengths(f, backend):
    both = value_and_grad(f, argnums=(0, 1))
    g = compile(both, backend=backend)
    sources = set()
    for n in (80, 120, 121):
        xs = [[x, 1.0] for x in data(n)] if f is rows else data(n)
        assert_as_eager(both, g, P, xs)
        assert is_counted(g), n
        sources.add(g.source)
    assert len(sources) == 1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("n", [65, 66, 71, 75, 76, 77, 78])
def test_lengths_around_which_nothing_may_change(n, backend):
    both = value_and_grad(several)
    assert_as_eager(both, compile(both, backend=backend), P, data(n))


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_derivatives(backend):
    def f(p):
        def step(c, x):
            angle, speed, t = c
            speed = speed - 0.01 * (p[0] * sin(angle) + p[1] * cos(t) * x)
            return (angle + 0.01 * speed, speed, t + 0.01), angle

        (angle, speed, _), ys = scan(step, (1.0, p[1], 0.0), data(90))
        return [angle * speed, mean(ys)]

    for g in (
        hessian(lambda p: f(p)[0]),
        jacobian(f),
        lambda p: jvp(f, (p,), ([1.0, 0.5],)),
        grad(lambda p: dot(grad(lambda p: f(p)[1])(p), [1.0, 2.0])),
    ):
        compiled = compile(g, backend=backend)
        assert_as_eager(g, compiled, P)
        assert is_counted(compiled)


@pytest.mark.parametrize("backend", BACKENDS)
def test_results_for_each_step(backend):
    def f(p, xs):
        return scan(lambda c, x: (p[0] * c + x, (c, {"square": c * c, "both": [c, x]}, None)), p[1], xs)

    g = compile(f, backend=backend)
    for n in (90, 300):
        assert_as_eager(f, g, P, data(n))
        assert is_counted(g)
    carry, (ys, named, nothing) = g(P, data(70))
    assert len(ys) == len(named["square"]) == len(named["both"]) == 70 and nothing is None and carry != ys[-1]


@pytest.mark.parametrize("backend", BACKENDS)
def test_sequences_side_by_side(backend):
    def f(p, sequences):
        total = 0.0
        for xs in sequences:
            c, _ = scan(lambda c, x: (tanh(p[0] * c + p[1] * x), None), 0.0, xs)
            total = total + c * c
        return total

    both = value_and_grad(f, argnums=(0, 1))
    g = compile(both, backend=backend)
    for n in (80, 90):
        assert_as_eager(both, g, P, [data(n), data(n)[::-1], data(n), [0.0] * n, [1.0] * n])
        assert is_counted(g)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_grid_in_time_and_a_delay_longer_than_the_first_tries(backend):
    def ring(p):
        def step(u, _):
            return [a + 0.1 * p[0] * (b - 2 * a + c) for a, b, c in zip(u, [*u[1:], u[0]], [u[-1], *u[:-1]])], None

        u, _ = scan(step, [math.sin(i) for i in range(6)], length=100)
        return u[0] * u[1]

    def delayed(p):
        def step(c, x):
            return [*c[1:], tanh(x + p[0] * c[0] + p[1] * c[-1])], None

        c, _ = scan(step, [0.01 * i for i in range(20)], data(400))
        return c[0] + c[19]

    for f in map(value_and_grad, (ring, delayed)):
        g = compile(f, backend=backend)
        assert_as_eager(f, g, P)
        assert is_counted(g)


# What is read anew in each call, and other ways to call.


@pytest.mark.parametrize("backend", BACKENDS)
def test_captured_values_are_read_anew(backend):
    w = Value(0.3)
    known = [Value(x, requires_grad=False) for x in data(80)]
    f = compile(lambda p: scan(lambda c, x: (p * c * w + x, None), 1.0, known)[0], backend=backend)
    before = f(0.5)
    assert is_counted(f)
    w.data, known[79].data = 0.6, 2.0
    assert f(0.5) != before
    assert_as_eager(f.uncompiled, f, 0.5)
    known[3].data = 100.0
    assert_as_eager(f.uncompiled, f, 0.5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_value_fills_the_gradients_of_captured_parameters_and_of_values_handed_in(backend):
    w, xs = Value(0.7), [Value(x) for x in data(90)]

    def f(xs):
        return scan(lambda c, x: (w * c + x * x, None), 0.0, xs)[0]

    g = compile(f, backend=backend)
    g.value(xs).backward()
    assert is_counted(g)
    found = [w.grad, *[x.grad for x in xs]]
    for x in (w, *xs):
        x.zero_grad()
    f(xs).backward()
    assert found == pytest.approx([w.grad, *[x.grad for x in xs]], rel=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_of_map(backend):
    def f(p, a):
        c, ys = scan(lambda c, x: (p * c + a * x, c), 0.0, data(80))
        return [c, mean(ys)]

    g = compile(f, backend=backend)
    points = [[0.1 * i, 1.0 - 0.2 * i] for i in range(5)]
    assert flat(g.map(points)) == pytest.approx(flat([f(*row) for row in points]), rel=1e-12)
    assert is_counted(g)
    flat_points = memoryview(array("d", flat(points))).cast("B").cast("d", (5, 2))
    assert flat(g.map(flat_points).tolist()) == pytest.approx(flat([f(*row) for row in points]), rel=1e-12)

    def h(xs):
        return scan(lambda c, x: (0.9 * c + x, c), 0.0, xs)

    g = compile(h, backend=backend)
    for n in (70, 90):
        lists = [[data(n)], [data(n)[::-1]], [[1.0] * n]]
        assert flat(g.map(lists)) == pytest.approx(flat([h(*row) for row in lists]), rel=1e-12)
        assert is_counted(g)


@pytest.mark.parametrize("backend", BACKENDS)
def test_random_numbers_are_drawn_anew_in_each_step(backend):
    def f(p):
        return scan(lambda c, _: (p * c + uniform(), uniform()), 0.0, length=80)

    g = compile(f, backend=backend)
    g(0.5)
    mg.manual_seed(3)
    found = flat(g(0.5))
    mg.manual_seed(3)
    assert found == pytest.approx(flat(f(0.5)), rel=1e-12)
    assert is_counted(g) and flat(g(0.5)) != found


@pytest.mark.parametrize("backend", BACKENDS)
def test_buffers_and_out(backend):
    def f(xs, p):
        return scan(lambda c, x: (p * c + x, c), 0.0, xs)

    g = compile(f, backend=backend)
    xs = array("d", data(100))
    assert_as_eager(f, g, xs, 0.5)
    assert_as_eager(f, g, xs, 0.25)
    out = array("d", [0.0] * 101)
    assert g(xs, 0.5, out=out) is out and list(out) == pytest.approx(flat(f(xs, 0.5)), rel=1e-12)


def test_float32():
    if not has_llvmlite():
        pytest.skip("needs llvmlite")
    both = value_and_grad(recurrence, argnums=(0, 1))
    g = compile(both, backend="llvm", dtype="float32")
    for n in (80, 200):
        assert_as_eager(both, g, P, data(n), tolerance=1e-5)
        assert is_counted(g)


@pytest.mark.skipif(not has_llvmlite(), reason="needs llvmlite")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    "f", [recurrence, lambda p, xs: scan(lambda s, x: (s + p[1] * exp(p[0] * x), None), 0.0, xs)[0]]
)
def test_loops_of_unknown_length_in_vectors_and_what_is_left_of_them(f, dtype):
    for argnums in ((0,), (1,), (0, 1)):
        both = value_and_grad(f, argnums=argnums)
        g = compile(both, backend="llvm", dtype=dtype)
        for n in [*range(90, 108), 1000]:
            assert_as_eager(both, g, P, data(n), tolerance=1e-10 if dtype == "float64" else 3e-5)
            assert is_counted(g)
        assert "and i64 %v" in g.source  # how many iterations fill vectors


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_not_finite_is_told_as_ever(backend):
    def f(p, xs):
        return scan(lambda c, x: (c + log(p - x), None), 0.0, xs)[0]

    g = compile(f, backend=backend)
    xs = [0.5] * 80
    assert_as_eager(f, g, 2.0, xs)
    with pytest.raises(FloatingPointError, match=r"the result is not finite \(nan\)"):
        g(0.1, xs)
    assert math.isnan(compile(f, backend=backend, nonfinite="allow")(0.1, xs))

    def h(p, xs):
        """√0 behind a choice: 0 · inf is 0 in the chain rule."""
        return scan(lambda c, x: (c + where(x > 0, mg.sqrt(p * x), 0.0), None), 0.0, xs)[0]

    both = value_and_grad(h)
    assert_as_eager(both, compile(both, backend=backend), 2.0, data(80)[:1] * 80)


def test_copies_and_other_compiled_functions():
    f = compile(value_and_grad(recurrence), backend="python")
    assert_as_eager(value_and_grad(recurrence), copy.deepcopy(f), P, data(80))
    inner = compile(recurrence, backend="python")
    g = compile(lambda p, xs: 2 * inner(p, xs), backend="python")
    assert g(P, data(80)) == pytest.approx(2 * recurrence(P, data(80)))
    assert is_counted(g)


# Chains that go on from step to step for longer than the first tries do: where they end is not seen there.


def delay_line(p, xs, start):
    """Each number is a multiple of its neighbour in the step before: what comes out is 90 steps old."""
    return scan(lambda c, x: ([*[b * p[0] for b in c[1:]], x * p[1]], c[0]), start, xs)


def last(p, xs, start):
    return delay_line(p, xs, start)[0][0]


def all_of_them(p, xs, start):
    return mg.sum(delay_line(p, xs, start)[1])


CHAINS = {
    "value": last,
    "captured": lambda p, xs, start: last(p, data(len(xs)), [0.1 * i for i in range(len(start))]),
    "value and gradient": value_and_grad(last),
    "by what comes in": grad(lambda q, p, xs, start: last([p[0], q], xs, start)),
    "by the start": grad(lambda start, p, xs: all_of_them(p, xs, start)),
    "by one of the start": lambda p, xs, start: grad(lambda z: all_of_them(p, xs, z))(start)[len(start) // 2],
    "forwards": lambda p, xs, start: jvp(lambda z: last(p, xs, z), (start,), ([1.0, *start[1:]],)),
    "forwards, all": lambda p, xs, start: jvp(lambda z: all_of_them(p, xs, z), (start,), ([0.0, *start[1:]],)),
    "twice": hessian(lambda p, xs, start: last(p, xs, start)),
}


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("size", [3, 50])
def test_chains_that_are_longer_than_a_few_steps(name, size):
    f, start = CHAINS[name], [1.0 + 0.01 * i for i in range(size)]
    g = compile(f, backend="python")
    orders = {"by what comes in": (0.5, [0.9, 0.5]), "by the start": (start, [0.9, 0.5])}
    for n in (140, 141):
        first = orders.get(name, ([0.9, 0.5],))
        args = (*first, data(n)) if name == "by the start" else (*first, data(n), start)
        assert_as_eager(f, g, *args)
        assert size > 3 or is_counted(g)


def test_a_derivative_that_goes_through_many_steps(monkeypatch):
    """All steps are needed alike for one output; by the other, a derivative goes back through 50 of them.

    Here addresses would lie outside of their arrays, which is no proof, but would hide that there is none.
    """
    monkeypatch.setattr(counts, "_check", lambda program, short: None)

    def f(p, xs):
        def step(c, x):
            new = [b * p for b in [*c[1:], x]]
            return new, mg.sum(new)

        c, ys = scan(step, [1.0] * 50, xs)
        return [c[0], mg.sum(ys)]

    assert_as_eager(jacobian(f), compile(jacobian(f), backend="python"), 0.95, data(140))


def test_captured_values_that_learn_get_gradients_as_xs():
    xs = [Value(x) for x in data(80)]

    def f(p):
        return scan(lambda c, x: (p * c + x * x, None), 0.0, xs)[0]

    def g(p):
        return mg.grad(f(p), xs)

    assert_as_eager(g, compile(g, backend="python"), 0.5)
    compile(f, backend="python").value(0.5).backward()
    found = [x.grad for x in xs]
    assert found == pytest.approx(flat(g(0.5)), rel=1e-12)


# What must not be concluded from a few steps: it is compiled for its length, and right.


def longer_than(p, xs):
    c, _ = scan(lambda c, x: (p[0] * c + x, c), 0.0, xs)
    return c * (2.0 if len(xs) > 100 else 3.0)


def by_length(p, xs):
    c, _ = scan(lambda c, x: (p[0] * c + x / len(xs), c), 1.0 / len(xs), xs)
    return c * (len(xs) % 7)


def half(p, xs):
    _, ys = scan(lambda c, x: (p[0] * c + x, c), 0.0, xs)
    return ys[len(ys) // 2]


def later_ones(p, xs):
    _, ys = scan(lambda c, x: (p[0] * c + x, c), 0.0, xs)
    return sum([y for i, y in enumerate(ys) if i >= 70]) + mean(ys[72:])


def until(p, xs):
    total = p[1]
    for i, y in enumerate(scan(lambda c, x: (p[0] * c + x, c), 0.0, xs)[1]):
        if i == 50:
            break
        total = total + y
    return total


def taken_as_a_list(p, xs):
    ys = list(scan(lambda c, x: (p[0] * c + x, c), 0.0, xs)[1])
    return sum(ys[75:]) + len(ys)


def a_weight_for_each_step(p, xs):
    weights, calls = [Value(1.0 + 0.1 * i) for i in range(len(xs))], []

    def step(c, x):
        calls.append(x)
        return p[0] * c + weights[len(calls) - 1] * x, None

    return scan(step, 0.0, xs)[0]


def a_loop_of_its_own(p, xs):
    _, ys = scan(lambda c, x: (p[0] * c + x, c), 0.0, xs)
    return sum([(y - x) ** 2 for x, y in zip(xs, ys)]) / len(ys)


def every_third(p, xs):
    _, ys = scan(lambda c, x: (p[0] * c + x, c), 0.0, xs)
    return mg.sum(ys[::3])


def weights_by_place(p, xs):
    weights = [0.9**i for i in range(len(xs))]
    _, ys = scan(lambda c, x: (p[0] * c + x, c), 0.0, xs)
    return dot(weights, ys)


def counted_by_itself(p, xs):
    calls = []

    def step(c, x):
        calls.append(x)
        return p[0] * c + len(calls) * x, None

    return scan(step, 0.0, xs)[0]


def alternating(p, xs):
    flip = [False]

    def step(c, x):
        flip[0] = not flip[0]
        return (p[0] * c + x if flip[0] else p[1] * sin(c) - x), None

    return scan(step, 0.0, xs)[0]


def a_delay_of_90(p, xs):
    def step(c, x):
        return [*c[1:], tanh(x + p[0] * c[0])], None

    c, _ = scan(step, [0.01 * i for i in range(90)], xs)
    return c[0] + c[-1]


def a_scan_in_a_scan(p, xs):
    def step(c, x):
        return scan(lambda a, y: (p[0] * a + 0.01 * y, None), c * x, xs)[0], None

    return scan(step, 1.0, xs)[0]


def a_front(p, xs):
    """What the first number depends on grows from step to step."""

    def step(c, x):
        return [0.9 * a + 0.1 * b * p[0] for a, b in zip(c, [*c[1:], x])], None

    c, _ = scan(step, [0.1 * i for i in range(16)], xs)
    return c[0]


def mutated(p, xs):
    xs = [x for x in xs]
    xs.append(p[1])
    return scan(lambda c, x: (p[0] * c + x, None), 0.0, xs)[0]


def checked(p, xs):
    return scan(lambda c, x: (p[0] * c + x, None), 0.0, xs)[0] * (2 if isinstance(xs, list) else 1)


HARD = [
    longer_than, by_length, half, later_ones, until, taken_as_a_list, a_weight_for_each_step,
    a_loop_of_its_own, every_third, weights_by_place,
    counted_by_itself, alternating, a_delay_of_90, a_scan_in_a_scan, a_front, mutated, checked,
]  # fmt: skip


@pytest.mark.parametrize("f", HARD, ids=lambda f: f.__name__)
def test_what_depends_on_the_length_is_right_all_the_same(f):
    both = f if f is a_scan_in_a_scan else value_and_grad(f)
    g = compile(both, backend="python")
    for n in (66, 75) if f is a_scan_in_a_scan else (80, 110, 111):
        assert_as_eager(both, g, P, data(n))


@pytest.mark.parametrize("f", [later_ones, until, a_loop_of_its_own, weights_by_place, counted_by_itself])
def test_these_are_compiled_for_each_length(f):
    g = compile(f, backend="python")
    g(P, data(80))
    assert not is_counted(g)


def test_what_is_told_of_the_length_is_true():
    seen = []

    def f(xs):
        seen.append((len(xs), len(xs[1:]), len(xs[:-2]), len(xs[::-1]), isinstance(xs, list)))
        _, ys = scan(lambda c, x: (c + x, c), 0.0, xs)
        seen.append((len(ys), len(ys[1:]), len(ys[:-2]), len(ys[-2:]) + 78, True))
        return ys[-1] + xs[-80] + xs[79]

    g = compile(f, backend="python")
    assert g(data(80)) == pytest.approx(f(data(80)))
    assert is_counted(g)
    told = [x for x in seen if x[0] != 81]  # a trace is told of one more
    assert {*told} == {(80, 79, 78, 80, True)}


def test_a_list_that_stands_for_a_longer_one():
    xs = short.Cut([*"abcdefvwxyz."], 100)
    assert len(xs) == 100 and xs[0] == xs[-100] == "a" and xs[99] == xs[-1] == "." and xs[94] == "v"
    assert xs[:3] == ["a", "b", "c"] and xs[-2:] == ["z", "."] and xs[5:1:-1] == ["f", "e", "d", "c"]
    for part, length, items in (
        (xs[1:], 99, "bcdefvwxyz."),
        (xs[::-1], 100, ".zyxwvfedcba"),
        (xs[2:-1], 97, "cdefvwxyz"),
    ):
        assert len(part) == length and "".join(part.items) == items
    for i in (6, 50, 93, -50, slice(50, None), slice(None, None, 2)):
        with pytest.raises(short.Unprovable):
            xs[i]
    with pytest.raises(IndexError):
        xs[100]
    with pytest.raises(short.Unprovable):
        list(xs)
    with pytest.raises(short.Unprovable):
        list(zip(range(20), xs))


def test_compiling_takes_no_more_nodes_for_a_longer_scan():
    def traced(n):
        f = compile(value_and_grad(lambda p: scan(lambda c, _: (sin(p * c), None), 1.0, length=n)[0]), backend="python")
        f(0.5)
        return f.explain().split(" nodes")[0].split()[-1]

    assert traced(100) == traced(10_000)


def test_a_program_is_looked_for_a_few_times_at_most():
    calls = []

    def f(p, xs):
        calls.append(1)
        return recurrence(p, xs)

    g = compile(f, backend="python")
    g(P, data(200))
    assert len(calls) <= 6  # one that meets the scan, four of few steps, one that is told of another length
    g(P, data(300))
    assert len(calls) <= 8


def test_counts_that_are_no_affine_functions_are_refused():
    with pytest.raises(short.Unprovable):
        counts._affine([12, 13, 14, 40], [144, 169, 196, 1600])
    form = counts._affine([12, 13, 14, 40], [25, 27, 29, 81])
    assert form.of(1_000) == 2_001
    assert counts._form([12, 13, 40], [0.5, 0.5, 0.5]) is None
    assert counts._form([12, 13, 40], [1 / 12, 1 / 13, 1 / 40]).of(8) == 1 / 8
    with pytest.raises(short.Unprovable):
        counts._form([12, 13, 40], [0.9**12, 0.9**13, 0.9**40])


def test_no_trace_takes_all_steps_of_a_length_that_is_fixed():
    steps = []

    def f(p):
        def step(c, _):
            steps.append(1)
            return sin(p * c), None

        return scan(step, 1.0, length=100_000)[0]

    compile(f, backend="python")(0.5)
    assert len(steps) < 500


# C.


@needs_cc
@pytest.mark.parametrize("parameters", ["constants", "argument"])
def test_c_for_a_length(parameters, tmp_path):
    w, known = Value(0.8), data(300)

    def f(p, xs):
        def step(c, x):
            c = tanh(w * p[0] * c + mg.sqrt(p[1] * x[0] * x[0]) * x[1])
            return c, c * c

        c, ys = scan(step, 0.5, (xs, known))
        return c + mean(ys)

    both = compile(value_and_grad(f, argnums=(0, 1)), backend="python")
    call = loaded(both.lower(P, known), tmp_path, parameters=parameters)
    inputs = ([*P, *known], [0.8]) if parameters == "argument" else ([*P, *known],)
    assert call(*inputs) == pytest.approx(flat(value_and_grad(f, argnums=(0, 1))(P, known)), rel=1e-9)
    source = both.lower(P, data(300)).c_source
    assert "< 299;" in source and len(source.split("{", 1)[1]) < 30_000


def test_steps_of_which_several_are_found_to_be_one_iteration():
    """An LSTM of four cells: its steps are found in threes, so that there is a program for each rest of the length."""
    h = 4
    w = [0.3 * math.sin(i) for i in range(4 * h * (h + 2))]

    def f(w, xs):
        def step(c, x):
            hidden, state = c
            z = [x, *hidden, 1.0]
            rows = [w[i * (h + 2) : (i + 1) * (h + 2)] for i in range(4 * h)]
            sums = [dot(row, z) for row in rows]
            i, o, keep = [[sigmoid(a) for a in sums[k * h : k * h + h]] for k in range(3)]
            state = [a * b + d * tanh(e) for a, b, d, e in zip(keep, state, i, sums[3 * h :])]
            hidden = [a * tanh(b) for a, b in zip(o, state)]
            return (hidden, state), hidden[0]

        (hidden, _), ys = scan(step, ([0.0] * h, [0.0] * h), xs)
        return [dot(hidden, hidden), ys]

    g = compile(f, backend="python")
    gradient = value_and_grad(lambda w, xs: f(w, xs)[0])
    g_of_gradient = compile(gradient, backend="python")
    for n in (150, 157):
        assert_as_eager(f, g, w, data(n))
        assert_as_eager(gradient, g_of_gradient, w, data(n))
        assert is_counted(g) and is_counted(g_of_gradient)


@pytest.mark.parametrize("backend", [*BACKENDS, pytest.param("c", marks=needs_cc)])
def test_random_functions_with_scans(backend):
    """`random_scans.py` tries more."""
    counted = 0
    for seed in range(40 if backend == "python" else 12):
        wrong, has_count = failure(Example(seed), backend)
        assert wrong is None, Example(seed).text
        counted += has_count
    assert counted > seed / 2 or backend == "c"  # of C nobody tells


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_constant_of_the_length_that_all_terms_of_a_sum_have(backend):
    """The mean of what the steps give: each derivative is multiplied by 1 / length."""

    def f(g, xs):
        _, ys = scan(lambda c, x: (c, g * sin(x)), 0.0, xs)
        return sum(ys) * (1 / len(xs))

    fast = compile(value_and_grad(f), backend=backend)
    for n in (100, 150):
        value, slope = fast(2.0, data(n))
        assert slope == pytest.approx(sum(map(math.sin, data(n))) / n, rel=1e-12)
        assert value == pytest.approx(2 * slope, rel=1e-12)
    assert "count" in fast.source

"""scan against the same loop written out, closed forms and finite differences, by every transform and backend."""

import math
from array import array
from collections import namedtuple

import pytest

import milligrad as mg
from milligrad import Value, compile, cos, scan, sin, value_and_grad, where
from milligrad.compiler.backends import has_llvmlite
from milligrad.engine import number, topological_order
from milligrad.random import uniform
from milligrad.transforms import grad, hessian, hvp, jacobian, jvp

BACKENDS = ["python", pytest.param("llvm", marks=pytest.mark.skipif(not has_llvmlite(), reason="needs llvmlite"))]
State = namedtuple("State", "x v")


def numbers(result):
    """All numbers of a result, of tuples, too."""
    return [z for part in result for z in numbers(part)] if isinstance(result, (list, tuple)) else [number(result)]


def assert_close(got, expected, tolerance):
    assert numbers(got) == pytest.approx(numbers(expected), rel=tolerance, abs=tolerance)


def test_it_is_the_loop():
    seen = []

    def f(carry, x):
        seen.append((carry, x))
        return carry + x, carry * x

    assert scan(f, 1.0, [2.0, 3.0, 4.0]) == (10.0, [2.0, 9.0, 24.0])
    assert seen == [(1.0, 2.0), (3.0, 3.0), (6.0, 4.0)]
    assert scan(lambda c, x: (c + 1, x), 0, length=3) == (3, None)
    assert scan(f, 1.0, [], 0) == (1.0, [])
    assert scan(f, 1.0, range(3), length=3)[0] == 4.0


def test_carry_xs_and_ys_are_nested_as_you_like():
    def f(carry, x):
        s = carry["s"]
        a, b = x["ab"]
        moved = State(s.x + a * b[0], s.v - b[1])
        return {"s": moved, "n": [carry["n"][0] + 1], "none": None}, (moved.x, {"v": [moved.v, 2 * moved.v]}, None)

    xs = {"ab": ([1, 2], [[3.0, 4.0], [5.0, 6.0]])}
    carry, ys = scan(f, {"s": State(0.0, 1.0), "n": [0], "none": None}, xs)
    assert carry == {"s": State(13.0, -9.0), "n": [2], "none": None} and type(carry["s"]) is State
    assert ys == ([3.0, 13.0], {"v": [[-3.0, -6.0], [-9.0, -18.0]]}, None)
    assert scan(lambda c, x: (c + x.x * x.v, x), 0.0, State([1.0, 2.0], [3.0, 4.0])) == (
        11.0, State([1.0, 2.0], [3.0, 4.0]),
    )  # fmt: skip


def test_buffers_are_lists():
    assert scan(lambda c, x: (c + x, x), 0.0, array("d", [1.5, 2.5])) == (4.0, [1.5, 2.5])
    assert scan(lambda c, x: ([c[0] + x, c[1]], None), array("d", [1.0, 2.0]), [3.0])[0] == [4.0, 2.0]


def test_numpy_arrays_are_lists():
    np = pytest.importorskip("numpy")
    rows = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert scan(lambda c, x: (c + x[0] * x[1], x), 0.0, rows) == (14.0, [[1.0, 2.0], [3.0, 4.0]])
    assert scan(lambda c, x: (c + x[0] * x[1], None), np.float64(0.0), rows[::-1]) == (14.0, None)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ((3, 0.0, [1.0]), TypeError, "f: expected a function of a carry and an x, got int 3"),
        ((max, 0.0), ValueError, "scan: expected xs or length, which say how many steps there are, got neither"),
        ((max, 0.0, ()), ValueError, "scan: expected xs or length"),
        ((max, 0.0, ([1.0], [1.0, 2.0])), ValueError, "xs: expected lists of one length.*got 1 of xs.0., 2 of xs.1."),
        ((max, 0.0, [1.0, 2.0], 3), ValueError, "length: expected 2, the length of xs, got 3"),
        ((max, 0.0, None, -1), ValueError, "length: expected a whole number >= 0, got -1"),
        ((max, 0.0, None, 2.0), ValueError, "length: expected a whole number >= 0, got 2.0"),
        ((max, 0.0, (1.0, 2.0)), TypeError, "xs.0.: expected a list with an entry for each step"),
        ((max, {"a": ["b"]}, [1.0]), TypeError, r"carry\['a'\]\[0\]: expected a real number or a Value, got str 'b'"),
        ((max, {1.0}, [1.0]), TypeError, "carry: expected a real number or a Value, got set"),
    ],
)
def test_what_makes_no_sense_is_refused_before_f_is_called(arguments, error, message):
    f, *others = arguments

    def never(carry, x):
        raise AssertionError

    with pytest.raises(error, match=message):
        scan(never if callable(f) else f, *others)


@pytest.mark.parametrize(
    "f, error, message",
    [
        (lambda c, x: c, TypeError, r"f: expected a function that returns \(carry, y\), got list"),
        (lambda c, x: ((c[0],), None), ValueError,
         r"carry: expected the next one nested as the one before, \[2 numbers\], got \(a number,\) from f in step 0"),
        (lambda c, x: ([1.0, {"a": None}], None), ValueError, r"got \[a number, \{'a': None\}\] from f in step 0"),
        (lambda c, x: (c, x if x else None), ValueError,
         "y: expected all nested as the first one, a number, got None from f in step 2"),
        (lambda c, x: (c, "a"), TypeError, "y: expected a real number or a Value, got str 'a'"),
    ],
)  # fmt: skip
def test_what_f_returns_wrongly_is_told(f, error, message):
    with pytest.raises(error, match=message):
        scan(f, [1.0, 2.0], [2.0, 1.0, 0.0])


def pendulum(p, xs):
    """By scan."""

    def step(carry, x):
        angle, speed = carry
        speed = speed - 0.1 * (p[0] * sin(angle) + p[1] * speed) + 0.01 * x
        return (angle + 0.1 * speed, speed), cos(angle)

    (angle, _), ys = scan(step, (1.0, p[2]), xs)
    return angle * angle + mg.mean(ys) * ys[-1]


def written_out(p, xs):
    """By a loop."""
    angle, speed, ys = 1.0, p[2], []
    for x in xs:
        ys.append(cos(angle))
        speed = speed - 0.1 * (p[0] * sin(angle) + p[1] * speed) + 0.01 * x
        angle = angle + 0.1 * speed
    return angle * angle + mg.mean(ys) * ys[-1]


P, XS = [2.0, 0.3, 0.4], [math.sin(3.0 * i) for i in range(12)]
DIRECTION = [0.5, -1.0, 2.0]
TRANSFORMS = {
    "value_and_grad": lambda f: lambda p, xs: value_and_grad(f)(p, xs),
    "by xs": lambda f: lambda p, xs: grad(f, argnums=(1, 0))(p, xs),
    "jacobian": lambda f: lambda p, xs: jacobian(lambda p: [f(p, xs), p[0]])(p),
    "hessian": lambda f: lambda p, xs: hessian(lambda p: f(p, xs))(p),
    "jvp": lambda f: lambda p, xs: jvp(lambda p: f(p, xs), (p,), (DIRECTION,)),
    "hvp": lambda f: lambda p, xs: hvp(lambda p: f(p, xs), p, DIRECTION),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_every_transform_differentiates_through_it(name):
    t = TRANSFORMS[name]
    expected = t(written_out)(P, XS)
    assert_close(t(pendulum)(P, XS), expected, 1e-12)


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("steps", [12, 90])
def test_compiled_it_is_the_same(name, backend, steps):
    t, xs = TRANSFORMS[name], (XS * 9)[:steps]
    expected = t(written_out)(P, xs)
    assert_close(compile(t(pendulum), backend=backend)(P, xs), expected, 1e-9)


def test_its_gradient_is_that_of_finite_differences():
    mg.gradcheck(lambda *p: pendulum(p, XS), [Value(x) for x in P])
    mg.gradgradcheck(lambda *p: pendulum(p, XS), [Value(x) for x in P])


def test_captured_values_get_gradients():
    w = Value(0.9)
    z, _ = scan(lambda c, x: (w * c + x, c), Value(1.0, requires_grad=False), [0.0] * 5)
    assert number(z) == pytest.approx(0.9**5)
    z.backward()
    assert w.grad == pytest.approx(5 * 0.9**4)
    [second] = mg.grad(mg.grad(z, w), [w])
    assert second.data == pytest.approx(20 * 0.9**3)
    with mg.no_grad():
        assert not scan(lambda c, x: (w * c, None), 1.0, length=3)[0].requires_grad


def newton(x):
    """√x by Newton's method: a while loop of at most 40 steps, which stops where it no longer moves."""

    def step(carry, _):
        z, done, steps = carry
        new = 0.5 * (z + x / z)
        return (where(done, z, new), where(abs(new - z) < 1e-12, 1.0, 0.0), where(done, steps, steps + 1)), None

    (z, _, steps), _ = scan(step, (x, 0.0, 0.0), length=40)
    return z, steps


@pytest.mark.parametrize("backend", ["eager", *BACKENDS])
def test_a_while_loop_is_a_scan_that_stands_still(backend):
    f = newton if backend == "eager" else compile(newton, backend=backend)
    z, steps = map(number, f(2.0))
    assert z == pytest.approx(math.sqrt(2.0), rel=1e-12) and 4 <= steps <= 8
    g = compile(grad(lambda x: newton(x)[0]), backend="python") if backend == "eager" else grad(lambda x: newton(x)[0])
    assert number(g(2.0)) == pytest.approx(0.5 / math.sqrt(2.0), rel=1e-9)


def test_a_while_loop_on_a_traced_number_is_told_of_scan():
    def f(x):
        while x > 1:
            x = x / 2
        return x

    with pytest.raises(mg.TraceError, match=r"(?s)while.*scan\(f, carry, length=n\).*where\(done, carry, new\)"):
        compile(f, backend="python")(3.0)
    with pytest.raises(mg.TraceError, match=r"range\(\).*scan\(f, carry, xs\)"):
        compile(lambda n: scan(lambda c, x: (c, x), 0.0, length=n), backend="python")(3.0)


# Checkpoints.


def in_parts(p, xs, k):
    """The pendulum above, of which every k-th state is remembered."""

    def step(carry, x):
        angle, speed = carry
        speed = speed - 0.1 * (p[0] * sin(angle) + p[1] * speed) + 0.01 * x
        return (angle + 0.1 * speed, speed), cos(carry[0])

    (angle, _), ys = scan(step, (1.0, p[2]), xs, checkpoint=k)
    return angle * angle + mg.mean(ys) * ys[-1]


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("k", [1, 5, 12, 100])
def test_with_checkpoints_every_derivative_is_the_same(name, k):
    t = TRANSFORMS[name]
    assert_close(t(lambda p, xs: in_parts(p, xs, k))(P, XS), t(written_out)(P, XS), 1e-10)


def test_with_checkpoints_captured_values_get_gradients_of_every_order():
    w, start, xs = Value(0.9), Value(1.0), [Value(0.1 * i) for i in range(10)]
    twice = 2 * w  # computed before, and captured
    found = []
    for k in (None, 3):
        z, ys = scan(lambda c, x: (w * c * c + twice * x, c * x), start, xs, checkpoint=k)
        loss = z + mg.sum(ys)
        first = mg.grad(loss, [w, start, *xs])
        second = mg.grad(mg.dot(first, first), [w, start, xs[3]])
        third = mg.grad(mg.dot(second, second), [w])
        loss.backward()
        found.append([*map(number, [loss, *first, *second, *third]), w.grad, start.grad, *[x.grad for x in xs]])
        for x in (w, start, *xs):
            x.zero_grad()
    assert found[1] == pytest.approx(found[0], rel=1e-10)


def test_with_checkpoints_the_graph_has_a_part_for_many_steps():
    w, calls = Value(0.9), []

    def step(c, _):
        calls.append(1)
        return mg.tanh(w * c + 0.1), None

    z, _ = scan(step, 1.0, length=1000, checkpoint=50)
    assert len(topological_order([z])) == 20 and len(calls) == 1000
    z.backward()
    assert len(calls) == 2000  # one more run
    u, _ = scan(step, 1.0, length=1000)
    g, w.grad = w.grad, 0.0
    u.backward()
    assert z.data == u.data and g == pytest.approx(w.grad, rel=1e-12)


def test_with_checkpoints_random_numbers_are_drawn_once():
    w = Value(0.9)

    def f(k):
        mg.manual_seed(1)
        z, _ = scan(lambda c, _: (w * c + w * w * uniform(), None), 1.0, length=20, checkpoint=k)
        after = uniform()
        w.zero_grad()
        z.backward()
        return z.data, after, w.grad, uniform()

    assert f(7) == pytest.approx(f(None))


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiled_checkpoints_change_no_number(backend):
    for n in (12, 90):
        xs = (XS * 9)[:n]
        g = compile(value_and_grad(lambda p, xs: in_parts(p, xs, 5)), backend=backend)
        assert_close(g(P, xs), value_and_grad(written_out)(P, xs), 1e-9)


def test_a_checkpoint_that_makes_no_sense_is_refused():
    for k in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match="checkpoint: expected a whole number >= 1"):
            scan(lambda c, x: (c, x), 0.0, [1.0], checkpoint=k)
    with pytest.raises(ValueError, match="y: expected all nested as the first one, a number, got None"):
        scan(lambda c, x: (c, x if x < 3 else None), Value(0.0), [1.0, 2.0, 3.0, 4.0], checkpoint=2)
    assert scan(lambda c, x: (c, x), 1.0, [], checkpoint=2) == (1.0, [])

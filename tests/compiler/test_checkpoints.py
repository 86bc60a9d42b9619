"""Compiled scans with checkpoints: they remember few numbers, and every derivative is that of eager code."""

from __future__ import annotations

import re

import pytest

import milligrad as mg
from milligrad import Value, compile, scan, sin, value_and_grad
from milligrad.random import uniform
from milligrad.transforms import grad, hvp, jvp
from tests.compiler.c.test_in_order import loaded, needs_cc
from tests.test_scan import BACKENDS, assert_close, numbers

P = [0.8, 0.3, 0.1]


def pendulum(k):
    """The energy of a driven pendulum, summed over time, of which every k-th state is remembered."""

    def f(p, xs):
        def step(carry, x):
            angle, speed, total = carry
            speed = speed - 0.1 * (p[0] * sin(angle) + p[1] * speed) + x
            return (angle + 0.1 * speed, speed, total + angle * angle), None

        (angle, _, total), _ = scan(step, (1.0, p[2], 0.0), xs, checkpoint=k)
        return total + angle

    return f


def driven(n):
    return [0.01 * (i % 7) for i in range(n)]


DERIVATIVES = {
    "first": value_and_grad,
    "by the xs": lambda f: grad(f, argnums=1),
    "second": lambda f: grad(lambda p, xs: mg.dot(grad(f)(p, xs), [1.0, -0.5, 0.25])),
    "third": lambda f: grad(lambda p, xs: mg.dot(hvp(lambda p: f(p, xs), p, [0.5, 1.0, -1.0]), [0.3, 0.2, 0.1])),
    "forwards": lambda f: lambda p, xs: jvp(lambda p: f(p, xs), (p,), ([1.0, -0.5, 0.25],)),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("order", DERIVATIVES)
@pytest.mark.parametrize(("n", "k"), [(30, 6), (30, 1), (30, 50), (103, 7)])
def test_derivatives_of_every_order_are_the_eager_ones(order, n, k, backend):
    if order == "third" and n > 30:
        pytest.skip("takes long")
    derivative = DERIVATIVES[order]
    got = compile(derivative(pendulum(k)), backend=backend)(P, driven(n))
    assert_close(got, derivative(pendulum(None))(P, driven(n)), 1e-9)


def remembered(f, k, *args):
    """How many numbers a compiled function has in its memory besides arguments and results."""
    g = compile(f(pendulum(k)), backend="python")
    g(*args)
    steps = re.search(r"for ([\d,]+) steps of a scan", g.explain())
    names = {"count": int(steps[1].replace(",", "")) // (k or 1)} if steps else {}
    return eval(re.search(r"values = \[0.0\] \* (.*)", g.source)[1], names)


@pytest.mark.parametrize(("order", "more"), [("first", 9), ("second", 48)])
def test_memory_is_that_of_the_carries_and_of_one_part(order, more):
    f, n = DERIVATIVES[order], 2_000
    every = remembered(f, None, P, driven(n))
    for k in (20, 40):
        assert remembered(f, k, P, driven(n)) < more * (n // k + k) < every
    # In a trace of all steps, too.
    assert remembered(f, 6, P, driven(60)) < remembered(f, None, P, driven(60)) / 2


@needs_cc
def test_c_remembers_as_little(tmp_path):
    for n in (60, 400):
        f, plain = (compile(value_and_grad(pendulum(k)), backend="python").lower(P, driven(n)) for k in (10, None))
        want = numbers(value_and_grad(pendulum(None))(P, driven(n)))
        assert loaded(f, tmp_path, f"f{n}")([*P, *driven(n)]) == pytest.approx(want, rel=1e-10)
        work = [int(re.search(r"_WORK (\d+)", x.header)[1]) for x in (f, plain)]
        assert work[0] < work[1] * (0.8 if n == 60 else 0.4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_captured_values_and_those_computed_before(backend):
    w = Value(0.9)

    def f(k):
        def g(x, xs):
            twice = 2 * w
            c, ys = scan(lambda c, x: (w * mg.tanh(c) + twice * x, c * x), x, xs, checkpoint=k)
            return c + mg.sum(ys)

        return g

    found = []
    for k in (None, 7):
        w.zero_grad()
        z = compile(f(k), backend=backend).value(0.5, driven(30))
        z.backward()
        found.append((z.data, w.grad))
    assert found[0] == pytest.approx(found[1], rel=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_random_numbers_are_the_same_in_both_runs(backend):
    def f(k):
        return value_and_grad(
            lambda w: scan(lambda c, _: (w * c + w * w * uniform(), None), 1.0, length=20, checkpoint=k)[0]
        )

    found = []
    for k in (None, 7):
        mg.manual_seed(1)
        found.append(compile(f(k), backend=backend)(0.9))
    assert found[0] == pytest.approx(found[1], rel=1e-12)
    mg.manual_seed(1)
    assert found[0] == pytest.approx(f(None)(0.9), rel=1e-12)

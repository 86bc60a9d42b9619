"""Rolled programs as LLVM code: any function against the eager engine, in both dtypes."""

import math
import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("llvmlite")

from milligrad import compile, ops, value_and_grad
from milligrad.compiler.compiled import Memory
from milligrad.compiler.ir import Rolled
from milligrad.compiler.llvm.in_order import build
from milligrad.compiler.passes.registers import (
    COUNT,
    Assign,
    Cell,
    Extents,
    For,
    Give,
    Linear,
    Name,
    Terms,
    variable,
)
from milligrad.compiler.program import Array, Program
from milligrad.engine import Op
from tests.compiler.graphs import eager, functions
from tests.compiler.random_programs import numbers
from tests.compiler.rolled import assert_close, forced, in_order  # noqa: F401


@settings(deadline=None, max_examples=12)
@given(functions(most_steps=4), st.sampled_from(["float64", "float32"]))
def test_any_function(f, dtype):
    with pytest.MonkeyPatch.context() as patch:
        forced(patch)
        found = compile(f.values, backend="llvm", dtype=dtype)(*f.point)
    assert_close(found, eager(f.values, f.point), 1e-12 if dtype == "float64" else 1e-3)


@settings(deadline=None, max_examples=8)
@given(functions(most_steps=3))
def test_any_gradient(f):
    with pytest.MonkeyPatch.context() as patch:
        forced(patch)
        found = compile(value_and_grad(f.total, argnums=tuple(range(len(f.point)))), backend="llvm")(*f.point)
    assert_close(numbers(found), eager(f.derivatives, f.point)[: 1 + sum(map(len, f.point))], 1e-11)


def test_runs_of_every_kind(in_order):  # noqa: F811
    """Up, down, the same number again; short ones without a loop, long ones with; of tables, constants and names."""
    places = [7, 3, 11, 0, 5, 9, 1, 10, 2, 8, 4, 6]
    weights = [0.1 * k - 0.3 for k in range(12)]

    def f(x):
        z = [ops.sin(a) for a in x]
        return [
            ops.dot(z[::-1], x), ops.dot(z[1::2], x[6:]), ops.dot(z, [x[3]] * 12), ops.dot(x[::-2], z[::2]),
            ops.max(z[:5][::-1]), ops.dot(z, [0.5] * 12), ops.logsumexp(x[4:]), ops.dot(z, weights),
            ops.dot([z[k] for k in places], weights), *[ops.dot([z[k]] * 12, x) for k in range(12)],
            *[ops.dot(z[: k + 1], weights[: k + 1]) for k in range(12)], ops.prod(z[2:9]), ops.min(z),
        ]  # fmt: skip

    x = [math.sin(3 * k) for k in range(12)]
    assert_close(compile(f, backend="llvm")(x), eager(f, [x]))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_count_that_is_known_in_a_call_is_kept_to(dtype):
    """A loop and a sum of n numbers, n from 1 on: what stands behind the n results stays as it is."""
    n, i = variable(COUNT), variable("i")
    loop = For("i", n, [Assign("z", ops.exp, (Cell(0, i),), (), None), Give(i, Name("z"))])
    total = Assign("s", ops.sum, (), (Terms(n, (Cell(0, Linear()),), (1,)),), None)
    steps, memory = [total, Give(n.plus(Linear(1)), Name("s")), loop], Memory("llvm", dtype)
    for length in range(1, 35):
        x, out = Array("x", length + 3, "input"), Array("out", length + 3, "output")
        program, sizes = Program([x, out], []), dict.fromkeys((x, out), n.plus(Linear(3)))
        code = build(program, Rolled([], [], [], 1, length + 3), steps, 1, dtype, Extents(length, Linear(1), sizes))
        assert "and i64 %v" in code.source  # how many fill vectors
        numbers = [math.sin(k) for k in range(length + 3)]
        buffers = {x: memory.zeros(length + 3), out: memory.zeros(length + 3)}
        memory.fill(buffers[x], numbers)
        memory.fill(buffers[out], [-7.0] * (length + 3))
        memory.bind(code, program, buffers)
        code()
        expected = [*map(math.exp, numbers[:length]), -7.0, sum(numbers[:length]), -7.0]
        assert_close(list(buffers[out]), expected, 1e-12 if dtype == "float64" else 1e-4)


SIDE_BY_SIDE = {  # functions of 40 numbers, whose loops run several iterations at a time, if they may
    "up": lambda x: [ops.sin(a) for a in x],
    "down": lambda x: [ops.exp(a) for a in x[::-1]],
    "every other one": lambda x: [ops.exp(a * b) for a, b in zip(x[::2], x[::-2])],
    "all of the same number": lambda x: [ops.tanh(a + x[7]) for a in x[:11]],
    "by a table": lambda x: [ops.exp(x[7 * k % 40] + x[k]) for k in range(40)],
    "several steps": lambda x: [ops.sin(ops.where(a > 0, a, -b) / (1 + ops.exp(a))) for a, b in pairwise(x)],
    "short sums": lambda x: [ops.logsumexp([a, b, 0.5 * c]) - a * b for a, b, c in zip(x, x[1:], x[2:])],
    "constants": lambda x: [ops.sin(a * 0.1 * k) for k, a in enumerate(x)],
    "nested": lambda x: [ops.exp(a * b) for a in x[:6] for b in x[:9]],
    "one after the other": lambda x: run_on(x, 1),
    "each two later": lambda x: run_on(x, 2),
    "each nine later": lambda x: run_on(x, 9),
    "by a table of those before": lambda x: looked_up(x),
    "none, and one": lambda x: [*[ops.sin(a) for a in x[:5]], *[ops.cos(a) for a in x[:4]]],
}


def run_on(x, lag):
    z = list(x[:lag])
    for a in x:
        z.append(ops.sin(z[-lag]) + a)
    return z


def looked_up(x):
    z = [ops.exp(-a * a) for a in x[:8]]
    for k, a in enumerate(x[8:]):
        z.append(ops.sin(z[(5 * k * k + 1) % len(z)] * a))
    return z


@pytest.mark.parametrize("name", SIDE_BY_SIDE)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_iterations_side_by_side(in_order, name, dtype):  # noqa: F811
    f, x = SIDE_BY_SIDE[name], [math.sin(3 * k) for k in range(40)]
    tolerance = 1e-13 if dtype == "float64" else 1e-4
    assert_close(compile(f, backend="llvm", dtype=dtype)(x), eager(lambda x: f(x), [x]), tolerance)
    derived = compile(value_and_grad(lambda x: ops.dot(f(x), f(x))), backend="llvm", dtype=dtype)(x)
    assert_close(numbers(derived), numbers(value_and_grad(lambda x: ops.dot(f(x), f(x)))(x)), 10 * tolerance)


def test_functions_are_called_for_vectors(in_order):  # noqa: F811
    compiled = compile(SIDE_BY_SIDE["down"], backend="llvm")
    compiled([math.sin(3 * k) for k in range(40)])
    assert " x double>" in compiled.source


def test_counters_of_nested_triangles(in_order):  # noqa: F811
    """The counter of an inner loop starts where that of the outer one stands, and hands it back."""

    def f(x):
        z = ops.exp(x[0])
        for i in range(3, 8):
            y = [ops.sin(z * x[j]) for j in range(i)]
            for j in range(i):
                for k in range(j):
                    z = z + ops.cos(y[j] * x[k]) / 50
        return z

    x = [math.sin(3 * k) for k in range(12)]
    assert_close([compile(f, backend="llvm")(x), compile(f, backend="python")(x)], eager(lambda x: [f(x)], [x]) * 2)


def test_an_op_of_ones_own_is_refused(in_order):  # noqa: F811
    third = Op("third", lambda x: x / 3, lambda z, x: (1 / 3,), "third({})", "A third of x.")

    def f(x):
        return third(ops.sin(x))

    with pytest.raises(NotImplementedError, match="third"):
        compile(f, backend="llvm")(1.0)
    assert compile(f, backend="python")(1.0) == pytest.approx(math.sin(1.0) / 3, rel=1e-14)


def test_no_index_is_followed_by_the_code_generator(in_order):  # noqa: F811
    """It would keep a pointer for each array and distance: slow to find, and more than there are registers."""

    def f(x):
        for _ in range(100):
            x = [ops.sin(b) for b in x]
        return x

    g = compile(value_and_grad(lambda x: sum(f(x))), backend="llvm")
    g([0.1, 0.2])
    text = g.explain(full=True)
    loops = re.findall(r"(%il\d+) = phi", text.split("@run")[0])
    uses = [len(re.findall(rf"{name}\b", text)) for name in loops]
    assert loops
    assert set(uses) == {3}  # where it is made, where it goes up, and where it is hidden

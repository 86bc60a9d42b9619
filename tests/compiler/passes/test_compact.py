"""What is left of the arrays: no more than is read, as far as places follow the loops. Numbers: c/test_in_order.py."""

from __future__ import annotations

import re

import pytest

from milligrad import compile, sin, value_and_grad
from milligrad.compiler.passes.compact import compact
from milligrad.compiler.passes.registers import in_registers
from milligrad.compiler.passes.roll import roll
from milligrad.compiler.passes.simplify import simplify
from milligrad.compiler.trace import Trace


def swing(p, n=100):
    x, v = 1.0, 0.0
    for _ in range(n):
        v = v - 0.01 * (p[0] * sin(x) + p[1] * v)
        x = x + 0.01 * v
    return x


def compacted(f, n):
    """(the program before, sizes after) of f of n inputs."""
    trace = Trace()
    xs = trace.input("x", n)
    with trace.running():
        result = f(xs)
    program = roll(simplify(trace.tape, [result]), {x: (0, i) for i, x in enumerate(xs)})
    before = program.values, len(program.constants), len(program.table)
    compact(in_registers(program), program)
    return before, (program.values, len(program.constants), len(program.table))


def test_a_loop_in_time_stores_what_is_read_after_it_and_no_constants():
    before, after = compacted(swing, 2)
    assert before[0] >= 400 and before[1] > 100 and after[0] < 100 and after[1:] == (0, 0)


def test_constants_that_differ_stay_and_equal_ones_go():
    data = [0.1 * k * k for k in range(50)]

    def f(xs):
        z = xs[0]
        for d in data:
            z = sin(z * d) * 0.5
        return z

    before, after = compacted(f, 1)
    assert before[1] == 100 and 48 <= after[1] <= 50 and after[2] == 0


@pytest.mark.parametrize("n", [50, 100, 200])
def test_a_loop_and_its_derivative_store_what_the_derivative_reads(n):
    header = compile(value_and_grad(lambda p: swing(p, n)), backend="python").lower([9.81, 0.1]).header
    assert int(re.search(r"_WORK (\d+)", header)[1]) <= 7 * n

"""Rolled programs as Python: the text of hand-made ones, and any function against the eager engine."""

import math
import re
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milligrad import compile, ops, value_and_grad
from milligrad.compiler.passes.registers import Linear
from milligrad.compiler.python.in_order import place
from milligrad.engine import Op
from tests.compiler.graphs import eager, functions
from tests.compiler.random_programs import numbers
from tests.compiler.rolled import assert_close, forced


def source(f, *args):
    """The compiled function as text, without its head; and its result."""
    with pytest.MonkeyPatch.context() as patch:
        forced(patch)
        compiled = compile(f, backend="python")
        result = compiled(*args)
    body = compiled.explain(full=True).partition("results = results_list\n")[2]
    return textwrap.dedent(body).strip().split("\n"), result


def test_places():
    assert [place(x) for x in (Linear(), Linear(3), Linear(-2, (("i", 1),)), Linear(0, (("i", 4), ("n", 1))))] == [
        "0", "3", "i + -2", "4 * i + n",
    ]  # fmt: skip


def test_a_number_that_is_used_once_is_written_where_it_is_used():
    def f(x):
        z = x
        for _ in range(20):
            z = ops.sin(z) * 0.5
        return z

    lines, result = source(f, 1.0)
    assert [re.sub(r"\b([zci])\d+", r"\1", line) for line in lines] == [
        "z = sin_(arguments[0]) * 0.5",
        "c = z",
        "for i in range(19):",
        "    z = 0.5 * sin_(c)",
        "    c = z",
        "results[0] = c",
    ]
    z = 1.0
    for _ in range(20):
        z = math.sin(z) * 0.5
    assert result == z


def test_what_an_inner_loop_uses_is_computed_before_it():
    """Though it is used once in the text."""

    def f(x):
        s = ops.exp(x[0])
        return [ops.sin(s / a) for a in x]

    lines, _ = source(f, [0.5 + k for k in range(9)])
    assert re.sub(r"\d+", "", lines[0]) == "z = exp_(arguments[])" and "exp" not in "".join(lines[1:])


@settings(deadline=None, max_examples=80)
@given(functions())
def test_any_function(f):
    with pytest.MonkeyPatch.context() as patch:
        forced(patch)
        found = compile(f.values, backend="python")(*f.point)
    assert_close(found, eager(f.values, f.point))


@settings(deadline=None, max_examples=40)
@given(functions(), st.booleans())
def test_any_gradient(f, exact):
    """In exact code, too, which computes what eager code refuses."""
    with pytest.MonkeyPatch.context() as patch:
        forced(patch)
        if exact:
            patch.setattr("milligrad.compiler.backends.Memory.finite", lambda self, numbers: False)
        found = compile(value_and_grad(f.total, argnums=tuple(range(len(f.point)))), backend="python")(*f.point)
    n = 1 + sum(map(len, f.point))
    assert_close(numbers(found), eager(f.derivatives, f.point)[:n], 1e-11)


def test_operations_of_one_name_are_two():
    twice = Op("mine", lambda x: 2 * x, lambda z, x: (2.0,), "mine({})", "2x.")
    thrice = Op("mine", lambda x: 3 * x, lambda z, x: (3.0,), "mine({})", "3x.")

    def f(x):
        for _ in range(10):
            x = twice(x) - thrice(x)
        return x + 1.0

    assert source(f, 5.0)[1] == 6.0


def test_slices():
    """Runs up, down, and of one number again and again, to the very ends of their lists."""

    def f(x):
        z = [ops.sin(a) for a in x]
        return [
            ops.dot(z[::-1], x), ops.dot(z[1::2], x[6:]), ops.dot(z, [x[3]] * 12), ops.dot(x[::-2], z[::2]),
            ops.max(z[:5][::-1]), ops.dot(z, [0.5] * 12), ops.logsumexp(x[4:]),
        ]  # fmt: skip

    x = [math.sin(3 * k) for k in range(12)]
    _, result = source(f, x)
    assert_close(result, eager(f, [x]))

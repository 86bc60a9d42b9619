"""Which numbers stay in registers: hand-made programs with the steps written out, and any function, interpreted.

Steps are written here as Python would write them, `m[…]` for what was stored; `i1`, `c2`, … are numbered in the order
in which they are met in the text, as the names themselves carry no meaning.
"""

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milligrad import ops
from milligrad.compiler.ir import Affine, At, Back, Loop, Next, Rolled, Run, Statement
from milligrad.compiler.passes import registers
from milligrad.compiler.passes.registers import (
    Assign,
    Cell,
    Entry,
    For,
    Give,
    Let,
    Linear,
    Load,
    Name,
    in_registers,
    variable,
)
from milligrad.engine import grad
from tests.compiler.graphs import eager, functions
from tests.compiler.rolled import assert_close, outputs_of, outputs_of_steps, traced


def linear(x):
    parts = [str(x.constant)] if x.constant or not x.terms else []
    return "+".join(parts + [name if k == 1 else f"{k}{name}" for name, k in x.terms]).replace("+-", "-")


def source(x):
    if isinstance(x, Name):
        return x.name
    if isinstance(x, Cell | Entry):
        array = {"values": "m", "constants": "k"}.get(x.array, f"a{x.array}")
        return f"{array}[{linear(x.place)}]" if isinstance(x, Cell) else f"{array}[table[{linear(x.place)}]]"
    return repr(x)


def lines(steps, depth=0):
    for x in steps:
        if isinstance(x, Load):
            text = f"{x.name} = {source(x.source)}"
        elif isinstance(x, Give):
            text = f"out[{linear(x.place)}] = {source(x.source)}"
        elif isinstance(x, Assign):
            runs = [
                f"{linear(y.length)} × {' * '.join(f'{source(z)}{s:+}' for z, s in zip(y.factors, y.steps))}"
                for y in x.terms
            ]
            kept = "" if x.store is None else f" = m[{linear(x.store)}]"
            text = f"{x.name}{kept} = {x.op.name}({', '.join([*map(source, x.inputs), *runs])})"
        elif isinstance(x, For):
            for name, (first, _) in x.carried.items():
                yield "  " * depth + f"{name} = {source(first)}"
            yield "  " * depth + f"for {x.index} in {linear(x.count)}:"
            yield from lines(x.body, depth + 1)
            for name, (_, after) in x.carried.items():
                yield "  " * depth + f"  {name} = {after}"
            continue
        else:
            text = f"{x.name} = {linear(x.start if isinstance(x, Let) else x.to)}"
        yield "  " * depth + text


def written(f, *sizes):
    """The steps of f(lists of these sizes), one text for each; both interpreters find what eager code does."""
    t = traced(f, *[[math.sin(1 + 3 * i + k) for i in range(n)] for k, n in enumerate(sizes)])
    for found in t.interpreted():
        assert_close(found, eager(f, t.arrays))
    return numbered(t.steps)


def numbered(steps):
    known = {}

    def renamed(match):
        letter = match[0][0]
        return known.setdefault(match[0], f"{letter}{1 + sum(name[0] == letter for name in known)}")

    return re.sub(r"\b[zcxin]\d+|(?<=\d)[in]\d+", renamed, "\n".join(lines(steps))).split("\n")


def steps(x, y):
    z = y[0]
    for a in x:
        z = ops.sin(z) * a
    return [z]


def test_a_loop_in_time_carries_its_number():
    """The last sine is read after the loop, by the name that it was handed on by. Nothing is stored."""
    assert written(steps, 20, 1) == [
        "z1 = sin(a1[0])",
        "c1 = z1",
        "for i1 in 19:",
        "  z2 = mul(a0[i1], c1)",
        "  z3 = sin(z2)",
        "  c1 = z3",
        "z4 = mul(a0[19], c1)",
        "out[0] = z4",
    ]


def test_the_backward_loop_reads_what_the_forward_loop_stored():
    """Forward: product k at address 1 + 2k. Backward: from product 17 at address 35 on, downwards."""

    def f(x, y):
        return grad(steps(x, y)[0], y)

    assert written(f, 20, 1) == [
        "z1 = sin(a1[0])",
        "c1 = z1",
        "for i1 in 18:",
        "  z2 = m[1+2i1] = mul(a0[i1], c1)",
        "  z3 = sin(z2)",
        "  c1 = z3",
        "z4 = mul(a0[18], c1)",
        "z5 = cos(z4)",
        "z6 = mul(a0[19], z5)",
        "c2 = z6",
        "for i2 in 18:",
        "  z7 = mul(a0[18-1i2], c2)",
        "  z8 = cos(m[35-2i2])",
        "  z9 = mul(z7, z8)",
        "  c2 = z9",
        "z10 = mul(a0[0], c2)",
        "z11 = cos(a1[0])",
        "z12 = mul(z10, z11)",
        "out[0] = z12",
    ]


def test_what_no_iteration_changes_is_loaded_before_the_loop():
    """a[i] is loaded once for all j; a number computed before the loops has a name already."""

    def f(a, b, c):
        s = ops.sin(c[0])
        return [ops.sin(x * y / s) for x in a for y in b]

    assert written(f, 6, 5, 1) == [
        "z1 = sin(a2[0])",
        "for i1 in 6:",
        "  x1 = a0[i1]",
        "  for i2 in 5:",
        "    z2 = mul(x1, a1[i2])",
        "    z3 = div(z2, z1)",
        "    z4 = m[3+15i1+3i2] = sin(z3)",
        "for i3 in 30:",
        "  out[i3] = m[3+3i3]",
    ]


def test_what_the_loop_itself_computes_first_is_not_loaded_before_it():
    """Its address, 0, is the same in all iterations, but it is only there once the first one has begun."""

    def f(x):
        y, z = [], []
        for a in x:
            y.append(ops.sin(a))
            z.append(ops.exp(y[-1] * y[0]))
        return z

    assert written(f, 12)[:4] == [
        "for i1 in 12:",
        "  z1 = m[3i1] = sin(a0[i1])",
        "  z2 = mul(m[0], z1)",
        "  z3 = m[2+3i1] = exp(z2)",
    ]


def test_a_number_of_two_iterations_before_is_read_from_memory():
    """What is three iterations old is not handed on: only the last iteration's numbers are."""

    def f(x):
        a, b, c = x
        for _ in range(10):
            a, b, c = b, c, ops.sin(a)
        return [a, b, c]

    assert written(f, 3) == [
        "for i1 in 3:",
        "  z1 = m[i1] = sin(a0[i1])",
        "for i2 in 7:",
        "  z2 = m[3+i2] = sin(m[i2])",
        "for i3 in 3:",
        "  out[i3] = m[7+i3]",
    ]


def test_a_counter_where_iterations_have_no_fixed_size():
    """In iteration i 4 + i numbers are computed: the sine, and 3 + i products after it."""

    def f(x):
        return [ops.sin(x[i]) * x[j] for i in range(3, 12) for j in range(i)][-1:]

    # only the last product is needed, so that there is no loop at all
    assert written(f, 12) == ["z1 = sin(a0[11])", "z2 = mul(a0[10], z1)", "out[0] = z2"]

    def g(x):
        return [ops.max([ops.sin(x[i]) * x[j] for i in range(3, 12) for j in range(i)])]

    found = written(g, 12)
    assert found[:7] == [
        "n1 = 0",
        "for i1 in 9:",
        "  z1 = sin(a0[3+i1])",
        "  for i2 in 3+i1:",
        "    z2 = m[1+i2+n1] = mul(a0[i2], z1)",
        "  n1 = 4+i1+n1",
        found[6],
    ]
    # runs shorter than four are one by one: there, a step says nothing
    assert "max(1 × m[-71+n1]+0, 1 × m[-70+n1]+0, 1 × m[-69+n1]+0, 4 × m[-67+n1]+1, 5 × m[-62+n1]+1" in found[6]


def test_equal_constants_are_written_others_are_read():
    weights = [0.5 * k + 0.25 for k in range(12)]

    found = written(lambda x: [ops.sin(2.5 / ops.exp(a)) / w for a, w in zip(x, weights)], 12)
    assert found[:5] == [
        "for i1 in 12:",
        "  z1 = exp(a0[i1])",
        "  z2 = div(2.5, z1)",
        "  z3 = sin(z2)",
        "  z4 = m[3+4i1] = div(z3, k[1+2i1])",
    ]


@pytest.mark.parametrize("odd", [0, 5, 11])
@pytest.mark.parametrize("other", [3.0, -0.0])
def test_a_constant_that_differs_once_is_not_equal(odd, other):
    """Wherever it is; 0 and -0 differ, too."""
    one = Statement(ops.div, (Next(), At(0, Affine(0, (1,)))))
    numbers = [0.0] * 12
    numbers[odd] = other
    p = Rolled([Loop(Affine(12), [one]), Loop(Affine(12), [Statement(None, (Back(Affine(12, (-1,))),))])], numbers)
    p.values = p.outputs = 12
    found = outputs_of_steps(in_registers(p), p, [[2.0] * 12])
    assert list(map(repr, found)) == [repr(x / 2) for x in numbers]
    numbers[odd] = 0.0
    assert "div(0.0, a0[i1])" in numbered(in_registers(p))[1]


def test_runs_that_grow_in_innermost_loops_keep_all_that_they_read():
    """The sum of the first 4 + i of twelve sines: all but the first loop's stores are read by the last sum alone."""
    p = Rolled([
        Loop(Affine(12), [Statement(ops.sin, (At(0, Affine(0, (1,))),))]),
        Loop(Affine(9), [
            Statement(ops.sum, (), (Run(Affine(4, (1,)), (Back(Affine(12, (1,))),), (-1,)),)),
            Statement(None, (Back(Affine(1, (0,))),)),
        ]),
    ], values=21, outputs=9)  # fmt: skip
    xs = [0.1 * k for k in range(12)]
    expected = [math.fsum(map(math.sin, xs[: 4 + i])) for i in range(9)]
    assert_close(outputs_of(p, [xs]), expected)
    assert_close(outputs_of_steps(in_registers(p), p, [xs]), expected)


def test_runs_that_grow_with_an_outer_loop_keep_all_that_they_read():
    """The inner loop's iterations are of one size, but not those of the outer one."""

    def f(x):
        z = [ops.sin(a) for a in x]
        return [ops.dot(z[:i], x[j : i + j]) for i in range(4, 12) for j in range(5)]

    t = traced(f, [math.sin(3 * k) for k in range(16)])
    assert [text.strip() for text in lines(t.steps) if "for" in text][1:3] == ["for i3 in 8:", "for i4 in 5:"]
    for found in t.interpreted():
        assert_close(found, eager(f, t.arrays))


def test_linear_forms():
    x = variable("i", 2).plus(variable("j")).plus(Linear(3))
    assert x == Linear(3, (("i", 2), ("j", 1))) and (x.step("i"), x.step("k")) == (2, 0)
    assert x.plus(variable("j"), -1) == Linear(3, (("i", 2),))
    assert x.plus(x, -1) == Linear() == variable("i", 0)
    assert x.number({"i": 5, "j": 7}) == 20


def test_sources_are_all_that_a_step_reads():
    run = registers.Terms(Linear(4), (Name("a"), 2.0), (0, 0))
    assert registers.sources_of(Assign("z", ops.sum, (), (run,), None)) == [Name("a"), 2.0]
    assert registers.sources_of(Load("x", 1.0)) == [1.0]
    assert registers.sources_of(For("i", Linear(3), [], {"c": (Name("a"), "b")})) == []


@settings(deadline=None, max_examples=80)
@given(functions(), st.sampled_from([(), (0,)]))
def test_any_function_in_registers_is_the_function(f, values):
    """The interpreter knows what is stored, and refuses what is stored and never read."""
    t = traced(f.values, *f.point, values=values)
    assert_close(outputs_of_steps(t.steps, t.rolled, t.arrays), eager(f.values, f.point))


@settings(deadline=None, max_examples=40)
@given(functions())
def test_any_gradient_in_registers_is_the_gradient(f):
    t = traced(f.derivatives, *f.point)
    assert_close(outputs_of_steps(t.steps, t.rolled, t.arrays), eager(f.derivatives, f.point))

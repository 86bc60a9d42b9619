"""Loops in the order in which they were written: hand-made graphs, with the loops that must come back written out.

A program is written here as text: `3: …` is a loop of 3 iterations, `3+i` one whose count goes up with the first index
around it, and `v-2` is the number computed two numbers before.
"""

import math
import random
from itertools import islice, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milligrad import ops
from milligrad.compiler import ir
from milligrad.compiler.ir import Affine, Loop, Rolled, Run, Statement
from milligrad.compiler.passes import roll
from milligrad.engine import grad
from tests.compiler.graphs import eager, functions
from tests.compiler.rolled import assert_close, outputs_of, traced


def text(x):
    """A place, an operand, a statement or a loop as text."""
    if isinstance(x, Affine):
        parts = [f"{'' if s == 1 else '-' if s == -1 else s}{name}" for s, name in zip(x.steps, "ijkl") if s]
        return "+".join(([str(x.base)] if x.base or not parts else []) + parts).replace("+-", "-")
    if isinstance(x, ir.Back):
        return f"v-({text(x.distance)})" if any(x.distance.steps) else f"v-{x.distance.base}"
    if isinstance(x, ir.At):
        return f"a{x.array}[{text(x.place)}]"
    if isinstance(x, ir.LookedUp):
        return "v[table]" if x.array is None else f"a{x.array}[table]"
    if isinstance(x, Run):
        factors = [f"{text(y)}{s:+}" if s else text(y) for y, s in zip(x.factors, x.steps)]
        return f"{text(x.length)} × {' * '.join(factors)}"
    if isinstance(x, Statement):
        return " ".join([x.op.name if x.op else "output", *map(text, x.inputs), *map(text, x.runs)])
    if isinstance(x, Loop):
        return f"{text(x.count)}: [{', '.join(map(text, x.body))}]"
    return "constant"


def written(f, *sizes):
    """The body of the program of f(lists of these sizes), a text for each statement and loop in it."""
    return list(map(text, program(f, *sizes).body))


def program(f, *sizes):
    t = traced(f, *[[math.sin(1 + 3 * i + k) for i in range(n)] for k, n in enumerate(sizes)])
    for found in t.interpreted():
        assert_close(found, eager(f, t.arrays))
    return t.rolled


# One after the other.


def steps(x, y):
    z = y[0]
    for a in x:
        z = ops.sin(z) * a
    return [z]


def test_a_loop_in_time():
    """The first sine reads a leaf, and so stands before the loop: an iteration is the product and the next sine."""
    assert written(steps, 20, 1) == [
        "sin a1[0]",
        "19: [mul a0[i] v-1, sin v-1]",
        "mul a0[19] v-1",
        "output v-1",
    ]


def test_the_length_of_a_loop_changes_its_count_alone():
    for n in (5, 6, 50):
        assert written(steps, n, 1)[1:3] == [f"{n - 1}: [mul a0[i] v-1, sin v-1]", f"mul a0[{n - 1}] v-1"]


def test_the_backward_loop_goes_the_other_way():
    """∂z/∂y is the product of all xₖ·cos, from the last one back; 5 = 3 of the backward and 2 of the forward loop."""

    def f(x, y):
        return grad(steps(x, y)[0], y)

    assert written(f, 20, 1) == [
        "sin a1[0]",
        "18: [mul a0[i] v-1, sin v-1]",
        "mul a0[18] v-1",
        "cos v-1",
        "mul a0[19] v-1",
        "18: [mul a0[18-i] v-1, cos v-(6+5i), mul v-2 v-1]",
        "mul a0[0] v-1",
        "cos a1[0]",
        "mul v-2 v-1",
        "output v-1",
    ]


def test_two_numbers_that_are_carried():
    """Iterations that read leaves are peeled; of the others, three that start with the sine are on the stack first."""

    def f(x):
        a, b = x
        for _ in range(10):
            a, b = b, ops.sin(a * b)
        return [b]

    assert written(f, 2) == [
        "mul a0[0] a0[1]",
        "sin v-1",
        "mul a0[1] v-1",
        "8: [sin v-1, mul v-3 v-1]",
        "sin v-1",
        "output v-1",
    ]


def test_two_iterations_are_no_loop():
    """An output is no number computed, so the next output is one nearer to what it reads."""
    assert written(lambda x: [ops.sin(a) for a in x], 2) == ["sin a0[0]", "sin a0[1]", "output v-2", "output v-1"]
    assert written(lambda x: [ops.sin(a) for a in x], 3) == ["3: [sin a0[i]]", "3: [output v-(3-i)]"]


def test_what_breaks_the_rule_is_between_two_loops():
    def f(x):
        return [(ops.cos if k == 5 else ops.sin)(a) for k, a in enumerate(x)]

    assert written(f, 12) == ["5: [sin a0[i]]", "cos a0[5]", "6: [sin a0[6+i]]", "12: [output v-(12-i)]"]


def test_an_iteration_that_differs_in_its_middle_is_none_of_the_loop():
    """Whichever it is: the body is five ops in a row, the middle one of which is another in one iteration."""
    for odd in range(5):

        def f(x, odd=odd):
            z = []
            for k, a in enumerate(x):
                middle = ops.tanh if k == odd else ops.atan
                z.append(ops.sin(ops.cos(middle(ops.cos(ops.sin(a))))))
            return z

        loops_ = [text(x) for x in program(f, 5).body if isinstance(x, Loop)][:-1]
        same = [n for n in (odd, 4 - odd) if n >= 3]
        assert [line.split(":")[0] for line in loops_] == list(map(str, same))
        assert all("atan" in line and "tanh" not in line for line in loops_)


def test_a_jump_in_the_places_is_between_two_loops():
    def f(x):
        return [ops.sin(x[k]) for k in (0, 1, 2, 3, 10, 8, 6, 4)]

    assert written(f, 11) == ["4: [sin a0[i]]", "4: [sin a0[10-2i]]", "8: [output v-(8-i)]"]


# Nested.


def test_nested_loops():
    def f(a, b):
        return [ops.sin(x * y) for x in a for y in b]

    assert written(f, 6, 5) == ["6: [5: [mul a0[i] a1[j], sin v-1]]", "30: [output v-(59-2i)]"]


def test_three_loops():
    def f(a, b, c):
        return [ops.sin(x * y / z) for x in a for y in b for z in c]

    # the product once, then six pairs: 13 numbers for each of the 20, of which the third, fifth, … are handed out
    assert written(f, 4, 5, 6) == [
        "4: [5: [mul a0[i] a1[j], 6: [div v-(1+2k) a2[k], sin v-1]]]",
        "20: [6: [output v-(258-13i-2j)]]",
    ]


def test_a_loop_in_parallel_within_a_loop_in_time():
    """Each of four goes on with its own number, 4 pairs of product and sine before: loops of one rule are one loop."""

    def f(x):
        for _ in range(10):
            x = [ops.sin(2.5 * a) for a in x]
        return x

    assert written(f, 4) == [
        "4: [mul a0[i] constant, sin v-1]",
        "36: [mul constant v-7, sin v-1]",
        "4: [output v-(7-2i)]",
    ]


def test_loops_of_three_are_found_at_once():
    """The last instruction of all ends three loops."""
    stack, given = roll._Stack(), [("a", (n // 9, n // 3 % 3 + n % 3)) for n in range(27)]
    for key, places in given:
        stack.put(key, places)
    [(k, places)] = stack.stack
    assert places[0] == 3 and unrolled(stack, k, places) == given


# Triangular.


def test_a_triangular_loop():
    """In iteration i the sine is computed, then it is 1 + j numbers back; so the count 3 + i goes up."""

    def f(x):
        return [ops.sin(x[i]) * x[j] for i in range(3, 12) for j in range(i)]

    found = written(f, 12)
    assert found[0] == "9: [sin a0[3+i], 3+i: [mul a0[j] v-(1+j)]]"
    # the outputs: 9 sines and 3 + … + 11 = 63 products; each run of outputs is 1 nearer, for it skips one sine more
    assert found[1:3] == ["3: [output v-(71-i)]", "4: [output v-(67-i)]"]


def test_a_triangular_loop_that_shrinks():
    def f(x):
        return [ops.sin(x[i] * x[j]) for i in range(9) for j in range(i, 12)]

    # the twelve of the first iteration read one number squared, x[0] * x[0], and so on: it is no other rule
    assert written(f, 12)[0] == "9: [12-i: [mul a0[i] a0[i+j], sin v-1]]"


# Tables.

ORDER = random.Random(1).sample(range(30), 30)


def test_places_of_leaves_without_a_rule_are_a_table():
    def f(x):
        return [ops.sin(x[k]) for k in ORDER]

    p = program(f, 30)
    assert list(map(text, p.body)) == ["30: [sin a0[table]]", "30: [output v-(30-i)]"]
    assert p.table == ORDER


def test_places_of_computed_numbers_without_a_rule_are_a_table_of_addresses():
    """The first loop computes 30 numbers, so their addresses are 0 to 29."""

    def f(x):
        z = [ops.sin(a) for a in x]
        return [ops.cos(z[k]) for k in ORDER]

    p = program(f, 30)
    assert list(map(text, p.body))[:2] == ["30: [sin a0[i]]", "30: [cos v[table]]"]
    assert p.table == ORDER


def test_only_the_operand_without_a_rule_is_in_a_table():
    def f(x, y):
        return [x[k] / y[i] for i, k in enumerate(ORDER)]

    p = program(f, 30, 30)
    assert text(p.body[0]) == "30: [div a0[table] a1[i]]"
    assert p.table == ORDER


def test_runs_whose_first_place_has_no_rule_have_an_entry_for_each_number():
    """Rows of a table of vectors, looked up."""

    def f(w, x):
        return [ops.dot(w[6 * k : 6 * k + 6], x) for k in ORDER]

    p = program(f, 180, 6)
    assert text(p.body[0]) == "30: [dot 6 × a0[table]+1 * a1[0]+1]"
    assert p.table == [6 * k + j for k in ORDER for j in range(6)]


def test_two_tables_in_one_run():
    """All entries of the first factor, then all of the second."""
    pairs = list(zip(ORDER, ORDER[10:] + ORDER[:10]))

    def f(w):
        return [ops.dot(w[6 * k : 6 * k + 6], w[6 * j : 6 * j + 6]) for k, j in pairs]

    p = program(f, 180)
    assert text(p.body[0]) == "30: [dot 6 × a0[table]+1 * a0[table]+1]"
    found = [p.table[i : i + 6] for i in range(0, 360, 6)]
    assert [{xs[0], ys[0]} for xs, ys in zip(found[::2], found[1::2])] == [{6 * k, 6 * j} for k, j in pairs]


# Constants.


def test_constants_break_no_loop():
    numbers = [0.5 * k + 0.25 for k in range(12)]

    def f(x):
        return [ops.sin(a) * c for a, c in zip(x, numbers)]

    p = program(f, 12)
    assert text(p.body[0]) == "12: [sin a0[i], mul v-1 constant]"
    assert p.constants == numbers


# Reductions.


def test_runs_of_a_sum():
    def f(w, x):
        return [ops.dot(w[8 * i : 8 * i + 8], x) for i in range(5)]

    assert written(f, 40, 8)[0] == "5: [dot 8 × a0[8i]+1 * a1[0]+1]"


def test_a_sum_with_a_bias_is_a_run_and_one_more():
    def f(w, x, b):
        return [b[i] + ops.dot(w[8 * i : 8 * i + 8], x) for i in range(5)]

    assert written(f, 40, 8, 5)[0] == "5: [dot 8 × a0[8i]+1 * a1[0]+1 1 × a2[i]]"


def test_a_run_that_goes_down_and_one_that_stays():
    def f(x, y):
        return [ops.dot(x[::-1], [y[0]] * 6)]

    assert written(f, 6, 1)[0] == "dot 6 × a0[5]-1 * a1[0]"


def test_a_run_of_computed_numbers_counts_back():
    """Six sines: the last is 1 back, the first 6, so the run goes on by -1."""

    def f(x):
        return [ops.max([ops.sin(a) for a in x])]

    assert written(f, 6) == ["6: [sin a0[i]]", "max 6 × v-6-1", "output v-1"]


def test_runs_that_grow():
    """The running sums: their lengths go up by 1, as soon as they are runs (of 4)."""

    def f(x):
        return [ops.max(x[: i + 1]) for i in range(12)]

    assert "9: [max 4+i × a0[0]+1]" in written(f, 12)


def test_the_fewest_inputs_that_are_a_run():
    assert written(lambda x: [ops.max(x)], roll.RUN)[0] == f"max {roll.RUN} × a0[0]+1"
    assert written(lambda x: [ops.max(x)], 3)[0] == "max 1 × a0[0] 1 × a0[1] 1 × a0[2]"


# Whatever comes.


def nest(r, depth=3):
    """Nested loops by chance: instructions (key, two places) and loops (count, body), affine in indices."""
    body = []
    for _ in range(r.randrange(1, 5 - depth // 2)):
        one, two = ([r.randrange(6), *[r.choice([0, 0, 1, 2, -1]) for _ in range(3)]] for _ in range(2))
        body.append((one, nest(r, depth - 1)) if depth and r.random() < 0.6 else (r.choice("abc"), one, two))
    return body


def instructions(body, r, faults, indices=()):
    """What the loops run, one by one; now and then one is left out, or is at another place."""
    number_of = lambda x: x[0] + sum(k * i for k, i in zip(x[1:], indices))  # noqa: E731
    for x in body:
        if len(x) == 2:
            for i in range(number_of(x[0])):
                yield from instructions(x[1], r, faults, (*indices, i))
        elif r.random() >= faults:
            yield x[0], (number_of(x[1]), number_of(x[2]))
        elif r.random() < 0.5:
            yield x[0], (number_of(x[1]), r.randrange(9))


def unrolled(stack, k, places):
    """What an instruction on the stack stands for."""
    if k not in stack.loops:
        return [(stack.key_of[k], places)]
    (body, steps), (count, *first) = stack.loops[k], places
    assert count >= 1 and len(first) == len(steps)
    found = []
    for i in range(count):
        now = [p + i * s for p, s in zip(first, steps)]
        for x in body:
            n = 1 + len(stack.loops[x][1]) if x in stack.loops else 2
            found += unrolled(stack, x, tuple(now[:n]))
            now = now[n:]
    return found


@pytest.mark.parametrize("faults", [0.0, 0.01, 0.1])
def test_what_is_put_onto_the_stack_comes_back(faults):
    """All of it, in order, wherever loops go on, end within an iteration, or shrink to nothing."""
    for seed in range(200):
        r = random.Random(seed)
        given = list(islice(instructions([*nest(r), *nest(r)], r, faults), 800))
        stack = roll._Stack()
        for key, places in given:
            stack.put(key, places)
        stack.settle()
        assert [x for k, places in stack.stack for x in unrolled(stack, k, places)] == given, seed


# Outputs.


def test_outputs_are_leaves_constants_and_repeated():
    def f(x):
        z = ops.sin(x[0])
        return [z, x[1], 2.5, z, x[1]]

    p = program(f, 2)
    assert list(map(text, p.body)) == [
        "sin a0[0]", "output v-1", "output a0[1]", "output constant", "output v-1", "output a0[1]",
    ]  # fmt: skip
    assert (p.constants, p.values, p.outputs) == ([2.5], 1, 5)


# A program.


def test_statements_and_loops_are_counted_as_written():
    one = Statement(ops.sin, (ir.At(0, Affine(0)),))
    inner = Loop(Affine(4, (0,)), [one])
    p = Rolled([one, Loop(Affine(3), [one, inner]), one])
    assert len(list(p.statements())) == 4 and p.loops() == 2
    assert ir.describe(p.body) == ["sin", "3 times:", "  sin", "  4 times: sin", "sin"]


@settings(deadline=None, max_examples=60)
@given(functions(), st.sampled_from([(), (0,)]))
def test_any_function_rolled_is_the_function(f, values):
    """Interpreted, with the first list captured or not."""
    t = traced(f.values, *f.point, values=values)
    assert_close(outputs_of(t.rolled, t.arrays), eager(f.values, f.point))


@settings(deadline=None, max_examples=25)
@given(functions())
def test_any_gradient_rolled_is_the_gradient(f):
    def derivatives(*lists):
        return f.derivatives(*lists)

    t = traced(derivatives, *f.point)
    assert_close(outputs_of(t.rolled, t.arrays), eager(derivatives, f.point))


def test_a_long_loop_is_as_short_a_program():
    """The same few statements, whatever the length."""
    for n in (50, 500):
        assert len(list(program(steps, n, 1).statements())) == 5


@pytest.mark.parametrize("tries", [1, 3])
def test_tables_are_only_taken_where_they_make_the_program_shorter(monkeypatch, tries):
    monkeypatch.setattr(roll, "TRIES", tries)
    p = program(lambda x: [ops.sin(x[k]) for k in ORDER], 30)
    assert len(p.table) == (30 if tries > 1 else 0)


def test_a_loop_goes_on_after_inner_loops_that_stand_in_the_middle_of_it():
    """Steps of rings, which one iteration more would not show if only the nearest loop below could go on."""

    def f(x):
        for _ in range(20):
            x = [ops.sin(x[0] * x[5]), *[a * b for a, b in pairwise(x[:5])], ops.exp(x[1])]
        return x

    p = program(f, 6)
    [count] = {x.count.base for x in p.body if isinstance(x, Loop) and x.count.base > 10}
    assert count >= 18 and len([*p.statements()]) < 25

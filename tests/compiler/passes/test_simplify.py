"""Pass 2 on hand-made graphs: the nodes that remain are written out, as text."""

import math
import random

import pytest

from milligrad import ops
from milligrad.compiler.passes.simplify import MINUS_ONE, ONE, TWO, ZERO, Builder, flattened, shared, simplify
from milligrad.compiler.trace import Trace, total
from milligrad.engine import Value


def simplified(f, *names):
    """The graph of f of an input of each name, as (outputs, number of nodes that are no leaves)."""
    trace = Trace()
    xs = trace.input("x", len(names))
    with trace.running():
        outputs = f(*xs)
    outputs = list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
    graph = simplify(trace.tape, outputs)
    return text(graph, dict(zip(xs, names))), sum(op is not None for op in graph.op)


def text(graph, names):
    """The outputs as text, `op(input, …)`; a sum of products is a·b + c, and the factor 1 is left out.

    Of two inputs that commute, the older node comes first.
    """
    written = []
    for i, (op, inputs) in enumerate(zip(graph.op, graph.inputs)):
        assert all(x < i for x in inputs)
        xs = [written[x] for x in inputs]
        if op is None:
            x = graph.source[i]
            written.append(repr(x) if isinstance(x, float) else names[x])
        elif op in (ops.dot, total):
            n = len(xs) // 2
            terms = [a if y == ONE else f"{a}·{b}" for a, b, y in zip(xs[:n], xs[n:], inputs[n:])]
            written.append(f"{'Σ' * (op is total)}({' + '.join(terms)})")
        else:
            written.append(f"{op.name}({', '.join(xs)})")
    return [written[i] for i in graph.outputs]


def nodes(f, *names):
    """The outputs as text: one string if there is one."""
    outputs, _ = simplified(f, *names)
    return outputs[0] if len(outputs) == 1 else outputs


# Sums of products.


def test_a_neuron_written_with_loops_is_one_sum_of_products():
    def neuron(w1, w2, w3, x1, x2, x3, b):
        return ops.tanh(sum(w * x for w, x in zip((w1, w2, w3), (x1, x2, x3))) + b)

    names = ["w1", "w2", "w3", "x1", "x2", "x3", "b"]
    assert simplified(neuron, *names) == (["tanh((w1·x1 + w2·x2 + w3·x3 + b))"], 2)


def test_dot_plus_bias_is_the_same_node_as_the_loop():
    assert nodes(lambda w, v, x, y, b: ops.dot((w, v), (x, y)) + b, *"wvxyb") == "(w·x + v·y + b)"
    assert nodes(lambda w, v, x, y, b: b + ops.dot((w, v), (x, y)), *"wvxyb") == "(w·x + v·y + b)"


def test_sums_of_sums_are_one_sum_with_the_terms_in_order():
    assert nodes(lambda a, b, c, d: (a + b) + (c + d), *"abcd") == "(a + b + c + d)"
    assert nodes(lambda a, b, c, d: ops.sum([a, ops.sum([b, c]), d * d]), *"abcd") == "(a + b + c + d·d)"
    assert nodes(lambda a, b, c: ops.dot([ops.dot([a, b], [b, c]), c], [1.0, 2.0]), *"abc") == "(a·b + b·c + c·2.0)"


def test_a_sum_with_a_factor_stays_a_node_of_its_own():
    assert nodes(lambda a, b, c, d: ops.dot([a + b, c], [d, d]), *"abcd") == "(add(a, b)·d + c·d)"


def test_a_product_used_twice_is_not_absorbed():
    def f(a, b, c):
        p = a * b
        return [p + c, ops.exp(p)]

    assert simplified(f, *"abc") == (["add(c, mul(a, b))", "exp(mul(a, b))"], 3)


def test_a_sum_used_twice_is_not_absorbed():
    def f(a, b, c, d):
        s = a * b + c
        return [s + d, s * d]

    assert nodes(f, *"abcd") == ["add(d, (c + a·b))", "mul(d, (c + a·b))"]


def test_a_product_used_twice_in_one_sum_is_not_absorbed():
    def f(a, b, c):
        p = a * b
        return p + p + c

    assert simplified(f, *"abc") == (["(mul(a, b) + mul(a, b) + c)"], 2)


def terms_beside_others(used_again, n=40):
    """exp(a + b·x) for n x, where some of the b·x are used again: how many are products of their own."""

    def f(a, b, *xs):
        products = [b * x for x in xs]
        return [*[ops.exp(a + p) for p in products], *[p for k, p in enumerate(products) if used_again(k)]]

    outputs, _ = simplified(f, "a", "b", *[f"x{k}" for k in range(n)])
    return sum(["mul(" in z for z in outputs[:n]])


@pytest.mark.parametrize("labels", [3, 5, 8])
def test_what_stays_in_some_iterations_without_an_order_stays_in_all(labels):
    rng = random.Random(labels)
    chosen = {t * labels + rng.randrange(labels) for t in range(40)}
    assert terms_beside_others(lambda k: k in chosen, 40 * labels) == 40 * labels


def test_what_stays_in_equal_steps_or_seldom_stays_alone():
    assert terms_beside_others(lambda k: k % 3 == 0) == 14
    assert terms_beside_others(lambda k: k in (3, 4, 9, 11, 20, 24)) == 6
    assert terms_beside_others(lambda k: k == 39) == 1


def test_an_output_is_a_use():
    def f(a, b, c):
        p = a * b
        return [p + c, p]

    assert nodes(f, *"abc") == ["add(c, mul(a, b))", "mul(a, b)"]


def test_what_only_dead_code_uses_besides_is_absorbed():
    def f(a, b, c):
        p = a * b
        ops.exp(p)
        return p + c

    assert nodes(f, *"abc") == "(c + a·b)"


def test_a_sum_of_two_alone_is_an_addition_and_of_one_product_a_product():
    assert nodes(lambda a, b: ops.dot([a, b], [1.0, 1.0]), *"ab") == "add(a, b)"
    assert nodes(lambda a, b: ops.dot([a], [b]), *"ab") == "mul(a, b)"
    assert nodes(lambda a: ops.sum([a]), "a") == "a"
    assert nodes(lambda a: ops.dot([], []) + a, "a") == "a"


def test_a_repeated_input():
    assert nodes(lambda x: x * x, "x") == "mul(x, x)"
    assert nodes(lambda x: x + x, "x") == "add(x, x)"
    assert nodes(lambda x, y: ops.dot([x, x], [x, y]), *"xy") == "(x·x + x·y)"


def test_the_sum_over_samples_takes_in_sums_but_no_sum_takes_it_in():
    trace = Trace()
    a, b, c = trace.input("x", 3)
    z = a.record(total, (a * b + c, 1.0)) + b
    graph = simplify(trace.tape, [z])
    assert text(graph, {a: "a", b: "b", c: "c"}) == ["add(b, Σ(c + a·b))"]


def test_the_sum_over_samples_of_one_product_or_of_a_constant_stays():
    trace = Trace()
    a, b = trace.input("x", 2)
    outputs = [a.record(total, (a * b, 1.0)), a.record(total, (1.0, 1.0)), a.record(total, (2.0, 3.0))]
    assert text(simplify(trace.tape, outputs), {a: "a", b: "b"}) == ["Σ(a·b)", "Σ(1.0)", "Σ(2.0·3.0)"]


# Signs.


def test_minus_a_sum_keeps_the_sum():
    assert nodes(lambda a, b, c: -(a * b + c), *"abc") == "neg((c + a·b))"
    assert nodes(lambda a, b, c: ops.sum([a, b, c]) * -1.0, *"abc") == "neg((a + b + c))"


def test_a_sum_with_all_signs_turned_is_minus_the_sum():
    assert nodes(lambda a, b, c: ops.dot([a, b, c], [-1.0] * 3), *"abc") == "neg((a + b + c))"
    assert nodes(lambda a, b: ops.dot([a, b], [-1.0, 1.0]), *"ab") == "(a·-1.0 + b)"


def test_minus_minus_and_minus_one_times():
    assert nodes(lambda a: ops.neg(ops.neg(a)), "a") == "a"
    assert nodes(lambda a: -1 * a, "a") == "neg(a)"
    assert nodes(lambda a: 0 - a, "a") == "neg(a)"
    assert nodes(lambda a: -1 * (-1 * a), "a") == "a"


def test_a_difference_is_no_part_of_a_sum():
    assert nodes(lambda a, b, c: (a - b) + c, *"abc") == "add(c, sub(a, b))"


# What is known.


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x + 0,
        lambda x: 0 + x,
        lambda x: x - 0,
        lambda x: x * 1,
        lambda x: 1 * x,
        lambda x: x / 1,
        lambda x: x**1,
        lambda x: +x,
        lambda x: x.detach(),
        lambda x: ops.where(x < 2, x, x),
        lambda x: ops.max([x]),
        lambda x: ops.min([x]),
        lambda x: ops.prod([x]),
        lambda x: ops.logsumexp([x]),
        lambda x: ops.sum([x, 0.0]),
        lambda x: sum([x]),
    ],
)
def test_what_changes_nothing_is_left_out(f):
    assert simplified(f, "x") == (["x"], 0)


def test_zero_times_x_stays_since_x_may_be_no_number():
    assert nodes(lambda x: 0 * x, "x") == "mul(0.0, x)"


@pytest.mark.parametrize(
    "f, expected",
    [
        (lambda x: x**0, "1.0"),
        (lambda x: x**1, "x"),
        (lambda x: x**2, "mul(x, x)"),
        (lambda x: x**3, "power(x, 3.0)"),
        (lambda x: x**-1, "power(x, -1.0)"),
        (lambda x: x**0.5, "power(x, 0.5)"),
        (lambda x: 2**x, "exponential(2.0, x)"),
        (lambda x: x**x, "pow(x, x)"),
    ],
)
def test_powers(f, expected):
    assert nodes(f, "x") == expected


def test_constants_are_computed():
    def f(x):
        zero = x.record(ops.sub, (2.0, 2.0))
        e = x.record(ops.exp, (zero,))
        return [x * e + x.record(ops.dot, (2.0, 3.0, 4.0, 5.0)), zero]

    assert nodes(f, "x") == ["add(x, 23.0)", "0.0"]


def test_a_constant_that_is_no_number_is_left_to_the_call():
    assert nodes(lambda x: [x.record(ops.log, (-1.0,)), x.record(ops.div, (1.0, 0.0))], "x") == [
        "log(-1.0)",
        "div(1.0, 0.0)",
    ]


def doubts(f, forward=False):
    """How many numbers are looked at for NaN before something is compared with them, in f of f of sqrt(x)."""
    trace = Trace()
    with trace.running():
        x = ops.sqrt(trace.input("x", 1)[0])
        y = f(x)
        if forward:
            trace.tape.forward = len(trace.tape)
        z = f(y)
    graph = simplify(trace.tape, [z, y])
    return sum(op is ops.equal and len({*xs}) == 1 for op, xs in zip(graph.op, graph.inputs))


def test_what_is_compared_is_looked_at_for_nan_once():
    assert doubts(lambda x: x + 1) == 0
    assert doubts(lambda x: ops.where(x < 1, x, 2 * x)) == 4  # the numbers, and what compares them, twice
    assert doubts(lambda x: ops.where(x < 1, x, 2 * x), forward=True) == 2  # in the forward pass alone
    assert doubts(lambda x: x >= ops.max([x, x + 1, x + 2])) == 2  # each time the largest tells of all


def test_zero_and_minus_zero_and_nan_are_constants_of_their_own():
    builder = Builder()
    assert [builder.leaf(x) for x in (1.0, 0.0, -1.0, 2.0)] == [ONE, ZERO, MINUS_ONE, TWO]
    assert builder.leaf(-0.0) not in (ONE, ZERO, MINUS_ONE, TWO, builder.leaf(math.nan))
    n = len(builder)
    assert builder.leaf(-0.0) == builder.leaf(-0.0) and builder.leaf(math.nan) == builder.leaf(float("nan"))
    assert len(builder) == n


def test_a_choice_that_is_known_is_made():
    def f(x, y):
        return [x.record(ops.select, (c, x, y)) for c in (1.0, 0.0, math.nan, x)]

    assert nodes(f, *"xy") == ["x", "y", "x", "where(x, x, y)"]


def test_a_known_comparison_makes_the_choice():
    assert nodes(lambda x, y: ops.where(x.record(ops.less, (1.0, 2.0)), x, y), *"xy") == "x"


# Equal and unneeded.


def test_equal_subexpressions_are_one_node():
    outputs, count = simplified(lambda x, y: [ops.exp(x * y), ops.exp(y * x), ops.exp(x * y) / 2], *"xy")
    assert outputs == ["exp(mul(x, y))", "exp(mul(x, y))", "div(exp(mul(x, y)), 2.0)"] and count == 3


def test_additions_and_products_commute_and_nothing_else_does():
    _, count = simplified(lambda x, y: [x + y, y + x, x * y, y * x, x - y, y - x, x / y, y / x, x < y, y < x], *"xy")
    assert count == 2 + 6


def test_nodes_of_other_ops_with_the_same_inputs_are_not_the_same():
    assert nodes(lambda x, y: [ops.maximum(x, y), ops.minimum(x, y)], *"xy") == ["max(x, y)", "min(x, y)"]


def test_what_no_output_needs_is_left_out():
    def f(x, y):
        ops.exp(y)
        z = ops.sin(x)
        ops.cos(z * y)
        return z

    assert simplified(f, *"xy") == (["sin(x)"], 1)


def test_outputs_are_kept_in_order_and_may_be_leaves_constants_or_the_same():
    w = Value(3.0)
    trace = Trace()
    x, y = trace.input("x", 2)
    z = x * y
    graph = simplify(trace.tape, [z, 2.5, y, w, z, 1.0])
    assert text(graph, {x: "x", y: "y", w: "w"}) == ["mul(x, y)", "2.5", "y", "w", "mul(x, y)", "1.0"]


def test_a_captured_value_is_one_leaf_by_identity():
    v, w = Value(3.0), Value(3.0)
    trace = Trace()
    (x,) = trace.input("x", 1)
    with trace.running():
        outputs = [x * v, x * w, v * x, v * w]
    graph = simplify(trace.tape, outputs)
    assert text(graph, {x: "x", v: "v", w: "w"}) == ["mul(x, v)", "mul(x, w)", "mul(x, v)", "mul(v, w)"]


def test_sharing_alone_changes_no_sum():
    trace = Trace()
    a, b, c = trace.input("x", 3)
    outputs = [a * b + c]
    graph = shared(trace.tape, outputs)
    names = {a: "a", b: "b", c: "c"}
    assert text(graph, names) == ["add(c, mul(a, b))"]
    assert text(flattened(graph), names) == ["(c + a·b)"]


def test_sharing_leaves_out_what_no_output_needs():
    trace = Trace()
    x, y = trace.input("x", 2)
    ops.exp(y)
    graph = shared(trace.tape, [ops.sin(x)])
    assert [op.name for op in graph.op if op] == ["sin"] and not any(leaf is y for leaf in graph.source.values())


def test_a_chain_of_ten_thousand_additions_is_one_sum():
    def f(*xs):
        return sum(x * x for x in xs)

    names = [f"x{i}" for i in range(10_000)]
    outputs, count = simplified(f, *names)
    assert count == 1 and outputs == [f"({' + '.join(f'{x}·{x}' for x in names)})"]

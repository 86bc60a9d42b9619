"""The program for batches of any length, followed through the graphs of lengths it was not concluded from."""

from itertools import count

import pytest

from milligrad import ops
from milligrad.compiler.ir import Rolled
from milligrad.compiler.passes.counts import Rewritten
from milligrad.compiler.passes.lengths import OfLength, Product, for_any_length, products
from milligrad.compiler.passes.registers import CONSTANTS, PAIRS, Extents, Linear
from milligrad.compiler.passes.separate import gradients
from milligrad.compiler.passes.short import Unprovable
from milligrad.compiler.passes.simplify import simplify
from milligrad.compiler.program import Array, Program
from milligrad.compiler.python import in_order
from milligrad.compiler.trace import Trace
from milligrad.engine import Value, enable_grad


def centred(w, xs):
    """Each less the mean of all, in a variance that is not biased."""
    zs = [w[0] * x + w[1] for x in xs]
    mean = sum(zs) / len(zs)
    return sum([(z - mean) ** 2 for z in zs]) / (len(zs) - 1)


def pairs(w, xs):
    zs = [ops.tanh(w[0] * x) for x in xs]
    return sum([ops.exp(w[1] * (a - b)) for i, a in enumerate(zs) for b in zs[:i]])


def softmax(w, xs):
    weights = [ops.exp(w[0] * x) for x in xs]
    total = sum(weights)
    return sum([weight / total * x for weight, x in zip(weights, xs)]) * w[1]


def largest(w, xs):
    worst = w[0] * xs[0]
    for x in xs[1:]:
        worst = ops.maximum(worst, w[1] * x)
    return worst


def neighbours(w, xs):
    return sum([ops.sin(w[0] * a) * (w[1] * b) for a, b in zip(xs, xs[1:])]) / (len(xs) - 1)  # noqa: RUF007


def filtered(w, xs):
    state = total = 0.0
    for x in xs:
        state = w[0] * state + ops.tanh(w[1] * x)
        total = total + state * state
    return total


LOSSES = [centred, pairs, softmax, largest, neighbours, filtered]
W = [Value(0.3), Value(-0.4)]


def batch(loss_fn, n):
    """The loss of n samples and its gradient."""
    trace = Trace()
    xs = trace.input("x", n)
    with enable_grad(), trace.running():
        loss = loss_fn(W, xs)
        outputs = [loss, *gradients(loss, W, lambda _: False)]
    return OfLength(n, simplify(trace.tape, outputs), {"x": xs, "w": W})


def program(loss_fn):
    return for_any_length([batch(loss_fn, n) for n in (10, 11, 12)])


def computed(steps, n, rolled: Rolled, xs):
    """What the program gives for these samples, as Python's code."""
    arrays = [Array("x", n, "input"), Array("w", 2, "leaf"), Array("out", 3, "output")]
    made = Program(arrays, [])
    code = in_order.build(made, rolled, steps, 1, False, Extents(n, Linear(rolled.values), {}))
    out = [0.0] * 3
    code.bind({arrays[0]: xs, arrays[1]: [w.data for w in W], arrays[2]: out})
    code()
    return out


@pytest.mark.parametrize("loss_fn", LOSSES)
def test_the_program_of_other_lengths(loss_fn):
    made = program(loss_fn)
    for n in (9, 10, 13, 29):
        xs = [0.1 * (7 * i % n) - 0.3 for i in range(n)]
        rolled = made.of(batch(loss_fn, n))
        for w in W:
            w.grad = 0.0
        expected = loss_fn(W, xs)
        for w in W:
            w.requires_grad = True
        assert computed(made.steps, n, rolled, xs)[0] == pytest.approx(expected.data, rel=1e-12)


@pytest.mark.parametrize("loss_fn", LOSSES)
def test_the_program_of_another_function_is_refused(loss_fn):
    made = program(loss_fn)
    for other in LOSSES:
        if other is not loss_fn:
            with pytest.raises(Unprovable):
                made.of(batch(other, 14))


@pytest.mark.parametrize("loss_fn", LOSSES)
def test_each_address_and_each_count_is_looked_at(loss_fn):
    """With any one of its integers wrong, it is refused, unless it names a constant or an entry of the table anew."""
    made, graph = program(loss_fn), batch(loss_fn, 14)
    integers = []
    Rewritten(lambda x: integers.append(x) or x, lambda x: x, lambda x: None).steps(made.steps)
    right = made.of(graph)
    xs = [0.1 * (5 * i % 14) - 0.3 for i in range(14)]
    expected = computed(made.steps, 14, right, xs)
    steps, survived = made.steps, 0
    for k in range(len(integers)):
        for by in (1, -1):
            at = count()
            made.steps = Rewritten(
                lambda x, at=at, k=k, by=by: x.plus(Linear(by)) if next(at) == k else x, lambda x: x, lambda x: None
            ).steps(steps)
            try:
                rolled = made.of(graph)
            except Unprovable:
                continue
            survived += 1
            assert computed(made.steps, 14, rolled, xs) == expected
    made.steps = steps
    assert survived < len(integers)


def test_constants_are_those_of_the_graph():
    def loss_fn(w, xs):
        return sum([w[0] * x for x in xs]) * (0.1 * len(xs) ** 3) + sum([w[1] / x for x in xs]) / (len(xs) - 1)

    made = program(loss_fn)
    rolled = made.of(batch(loss_fn, 20))
    assert 0.1 * 20**3 in rolled.constants
    assert any([x == pytest.approx(1 / 19) or x == 19.0 for x in rolled.constants])


def test_a_table_and_a_count_of_pairs():
    made = program(pairs)
    assert made.table.of(12) > made.table.of(11) > 0 and not made.has_fixed_constants()
    counts = [name for x in [made.values.linear(), made.table.linear()] for name, _ in x.terms]
    assert PAIRS in counts


def test_a_branch_on_the_length():
    def few(w, xs):
        return sum([w[0] * x * x for x in xs[: min(len(xs), 15)]]) + w[1] * xs[-1]

    made = program(few)
    assert made.of(batch(few, 15))
    with pytest.raises(Unprovable):
        made.of(batch(few, 16))

    def third(w, xs):
        return sum([w[0] * x * x for x in xs[::3]]) * w[1]

    made = program(third)  # four samples of 10, 11 and 12
    assert made.of(batch(third, 10))
    with pytest.raises(Unprovable):
        made.of(batch(third, 13))


def test_another_leaf_is_refused():
    def loss_fn(w, xs):
        return sum([w[0] * x * x for x in xs]) * (w[1] if len(xs) < 13 else Value(2.0, requires_grad=True))

    with pytest.raises(Unprovable, match="leaf"):
        program(loss_fn).of(batch(loss_fn, 13))


CHANGED = {  # what it is for more than twelve samples
    "op": lambda w, xs, f: sum([(ops.sin if f else ops.cos)(w[0] * x) * w[1] for x in xs]),
    "constant": lambda w, xs, f: sum([ops.sin(w[0] * x) * w[1] for x in xs]) * (2.5 if f else 3.5),
    "input": lambda w, xs, f: sum([ops.sin(w[0] * x) * w[1] for x in xs]) * w[f],
}


@pytest.mark.parametrize("change", CHANGED.values(), ids=CHANGED)
def test_what_changes_with_the_length_is_noticed(change):
    made = program(lambda w, xs: change(w, xs, len(xs) <= 12))
    same = made.of(batch(lambda w, xs: change(w, xs, True), 14))
    assert same.values
    with pytest.raises(Unprovable):
        made.of(batch(lambda w, xs: change(w, xs, len(xs) <= 12), 14))


def test_what_is_another_function_of_twelve_samples_is_no_program():
    with pytest.raises(Unprovable):
        program(lambda w, xs: CHANGED["op"](w, xs, len(xs) <= 11))


def test_another_op_of_the_same_numbers_is_noticed():
    def alone(op, n):
        trace = Trace()
        xs = trace.input("x", n)
        with trace.running():
            loss = sum([op(W[0] * x) for x in xs])
        return OfLength(n, simplify(trace.tape, [loss]), {"x": xs, "w": W[:1]})

    made = for_any_length([alone(ops.sin, n) for n in (10, 11, 12)])
    assert made.of(alone(ops.sin, 14))
    with pytest.raises(Unprovable):
        made.of(alone(ops.cos, 14))


def test_nothing_of_the_graph_is_left_out():
    made = program(centred)
    n, graph, leaves = batch(centred, 14)
    more = graph.node(ops.sin, (graph.outputs[0],))
    with pytest.raises(Unprovable):
        made.of(OfLength(n, graph, leaves))
    assert more == len(graph) - 1


def test_it_runs_where_all_loops_run_and_all_addresses_fit():
    made = program(centred)
    assert made.runs_for(10) and made.runs_for(1000) and not made.runs_for(0)
    made.sizes["x"] = made.sizes["x"]._replace(at=-1)
    assert not made.runs_for(10)


def test_constants_as_products_of_others():
    others = [[1 / n, n - 1.0, 3.0] for n in (10, 11, 12, 20)]
    own = [[2.0, 2 / n, 0.5 / (n - 1), (n - 1) / n, 1 / n**2] for n in (10, 11, 12, 20)]
    found = products(own, others)
    assert [x.of([1 / 50, 49.0, 3.0]) for x in found] == pytest.approx([2.0, 0.04, 0.5 / 49, 0.98, 1 / 2500])
    assert found[0] == Product(2.0, ())
    for wrong in ([[float(n)] for n in (10, 11, 12, 21)], [[n + 0.5] for n in (10, 11, 12, 20)]):
        with pytest.raises(Unprovable):
            products(wrong, others)


def test_constants_are_cells():
    assert CONSTANTS in str(program(centred).steps)

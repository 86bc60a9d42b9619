"""A function of a batch as a loop over samples: what is found, what is refused, and both against the eager engine.

`separate(f, width)` is f of a batch, found from batches of two and three samples; `run` it with a batch of any length
for [f, ∂f/∂parameters], which `check` compares with the eager engine on that batch. `holds(f, n)` says whether what was
found is proved for a batch of n.
"""

import random

import pytest

from milligrad import functional as F
from milligrad import ops
from milligrad import random as source
from milligrad.compiler.passes.fuse import fuse
from milligrad.compiler.passes.reroll import Layout, reroll
from milligrad.compiler.passes.separate import NONE, SEVERAL, Batch, NotSeparable, gradients, same, separated
from milligrad.compiler.passes.simplify import simplify
from milligrad.compiler.program import Array, interpret
from milligrad.compiler.trace import Symbol, Trace, captured, inputs_of, needed, total
from milligrad.engine import Value, no_grad
from tests.compiler.graphs import assert_close


def traced(f, n, width, forms):
    """(the batch of n samples of `width` numbers, f of it)."""
    trace = Trace()
    xs = [trace.input(f"x{s}", width) for s in range(n)]
    with trace.running():
        z = f(xs)
    return Batch(trace, xs, forms), z


def separate(f, width):
    """(the batch of two, f of a batch of any length, the Symbol of that length)."""
    forms = {}
    (two, z2), (three, z3) = traced(f, 2, width, forms), traced(f, 3, width, forms)
    (n,) = two.trace.input("count", 1)
    with two.trace.running():
        return two, separated(two, three, z2, z3, n), n


def holds(f, n, width=1):
    """Whether the f found from batches of two and three is the one found from batches of two and n."""
    forms = {}
    (two, z2), (three, z3), (many, z) = (traced(f, k, width, forms) for k in (2, 3, n))
    (count,) = two.trace.input("count", 1)
    with two.trace.running():
        expected = separated(two, three, z2, z3, count)
        try:
            return two.form_of(separated(two, many, z2, z, count)) == two.form_of(expected)
        except NotSeparable:
            return False


def refuse(f, width=1):
    """f of a batch is no sum over its samples."""
    with pytest.raises(NotSeparable):
        separate(f, width)


def text(z, names):
    """What was recorded, as text; `Σ(x·y)` is a sum over samples, and factors of 1 are left out."""
    if not isinstance(z, Symbol) or z in names:
        return repr(z) if isinstance(z, float) else names[z]
    xs = inputs_of(z)
    if z.op is total:
        terms = [[text(x, names) for x in xy] for xy in zip(xs[: len(xs) // 2], xs[len(xs) // 2 :])]
        return f"Σ({' + '.join(x if y == '1.0' else f'{x}·{y}' for x, y in terms)})"
    return f"{z.op.name}({', '.join(text(x, names) for x in xs)})"


def found(f, width, **values):
    """f of a batch of any length as text; the inputs of a sample are x and y."""
    two, z, n = separate(f, width)
    names = dict(zip(two.trace.inputs["x0"], "xy")) | {n: "n"} | {v: k for k, v in values.items()}
    return text(z, names)


def run(f, width, parameters, samples, draws=None):
    """[f, *∂f/∂parameters] of the samples by the loop over samples, through all passes."""
    two, z, n = separate(f, width)
    with two.trace.running():
        outputs = [z, *gradients(z, parameters, lambda x: two.owner_of(x) != NONE)]
    tape = two.trace.tape
    others = captured(tape, needed(tape, outputs), outputs)
    first = [x for x, (s, _) in zip(two.trace.random, two.draws) if s == 0]
    x, count, leaf = Array("x", width, "input", True), Array("count", 1, "input"), Array("leaf", len(others), "leaf")
    drawn, results = Array("random", len(first), "input", True), Array("results", len(outputs), "output")
    layouts = [Layout(x, two.trace.inputs["x0"]), Layout(count, [n]), Layout(leaf, others), Layout(drawn, first)]
    program = reroll(simplify(tape, outputs), layouts, [Layout(results, range(len(outputs)))])
    answers = []
    for p in (program, fuse(program)):
        memory = {
            x: [v for sample in samples for v in sample],
            count: [float(len(samples))],
            leaf: [v.data for v in others],
            drawn: [v for row in draws or [] for v in row],
        }
        interpret(p, memory, len(samples))
        answers.append(memory[results])
    return answers


def check(f, width, parameters, lengths=(1, 2, 3, 4, 7)):
    """The loop over samples gives what the eager engine gives, for batches of these lengths."""
    r = random.Random(0)
    for n in lengths:
        samples = [[r.uniform(-1, 1) for _ in range(width)] for _ in range(n)]
        expected = eagerly(f, parameters, samples)
        for answer in run(f, width, parameters, samples):
            assert_close(answer, expected, 1e-13)


def eagerly(f, parameters, samples):
    for p in parameters:
        p.zero_grad()
    z = f(samples)
    z.backward()
    return [z.data, *[p.grad for p in parameters]]


@pytest.fixture
def w():
    return [Value(v) for v in (0.3, -0.7, 1.1, 0.4)]


def model(x, w):
    return w[0] * ops.tanh(w[1] * x[0] + w[2] * x[1]) + w[3]


# Sums and means.


def test_a_mean_is_a_sum_over_samples_divided_by_their_number():
    assert found(lambda xs: ops.mean([ops.sin(x[0]) for x in xs]), 1) == "div(Σ(sin(x)), mul(n, 1.0))"


def test_a_sum_is_a_sum_over_samples():
    assert found(lambda xs: ops.sum([ops.sin(x[0]) for x in xs]), 1) == "Σ(sin(x))"
    assert found(lambda xs: ops.dot([x[0] for x in xs], [x[1] for x in xs]), 2) == "Σ(x·y)"


def test_pythons_own_sum_starts_with_zero():
    assert found(lambda xs: sum(ops.sin(x[0]) for x in xs), 1) == "Σ(sin(x))"
    assert found(lambda xs: sum([ops.sin(x[0]) for x in xs], 0.0) / len(xs), 1) == "div(Σ(sin(x)), mul(n, 1.0))"


def test_one_over_n_and_n_are_told_apart_from_constants():
    assert found(lambda xs: ops.sum([x[0] for x in xs]) * (1 / len(xs)), 1) == "mul(Σ(x), div(1.0, n))"
    assert found(lambda xs: ops.sum([x[0] for x in xs]) * (0.3 * len(xs)), 1) == "mul(Σ(x), mul(n, 0.3))"
    assert found(lambda xs: ops.sum([x[0] for x in xs]) * 0.3, 1) == "mul(Σ(x), 0.3)"
    assert found(lambda xs: ops.sum([x[0] for x in xs]) * (0.7 / len(xs)), 1) == "mul(Σ(x), div(0.7, n))"


def test_terms_that_are_alike_for_each_sample_may_be_several():
    f = lambda xs: ops.sum([term for x in xs for term in (ops.sin(x[0]), ops.cos(x[1]))])  # noqa: E731
    assert found(f, 2) == "Σ(sin(x) + cos(y))"


@pytest.mark.parametrize(
    "f",
    [
        lambda xs, w: ops.mean([model(x, w) ** 2 for x in xs]),
        lambda xs, w: ops.sum([model(x, w) ** 2 for x in xs]),
        lambda xs, w: sum(model(x, w) ** 2 for x in xs) / len(xs),
        lambda xs, w: F.mse_loss([[model(x, w)] for x in xs], [[x[0]] for x in xs]),
        lambda xs, w: F.cross_entropy([[model(x, w), w[1] * x[1], w[2]] for x in xs], [1] * len(xs)),
        lambda xs, w: F.huber_loss([model(x, w) for x in xs], [x[1] for x in xs], reduction="sum"),
        lambda xs, w: ops.exp(ops.mean([model(x, w) for x in xs])) * w[0],
        lambda xs, w: ops.mean([model(x, w) for x in xs]) ** 2 + ops.mean([x[0] * w[3] for x in xs]) * w[1],
    ],
)  # fmt: skip
def test_losses_of_a_batch_and_their_gradients(f, w):
    check(lambda xs: f(xs, w), 2, w)


def test_a_weighted_mean_is_a_sum_over_a_sum(w):
    def f(xs):
        return ops.sum([x[0] ** 2 * model(x, w) for x in xs]) / ops.sum([x[0] ** 2 for x in xs])

    assert (
        found(lambda xs: ops.sum([x[0] * x[1] for x in xs]) / ops.sum([x[0] for x in xs]), 2)
        == "div(Σ(mul(x, y)), Σ(x))"
    )
    check(f, 2, w)


def test_what_adds_up_to_the_same_for_every_sample_counts_once_for_each(w):
    """∂/∂b of the mean of w·x + b is 1, though nothing in it depends on a sample."""
    check(lambda xs: ops.mean([w[0] * x[0] + w[1] for x in xs]), 1, w)
    check(lambda xs: ops.sum([w[0] * (x[0] + 2 * w[1]) for x in xs]), 1, w)
    check(lambda xs: ops.mean([w[2] * (w[3] * x[0] + w[1]) + w[1] for x in xs]) * w[0], 1, w)


def test_a_term_of_every_sample_that_depends_on_none_is_part_of_its_terms(w):
    check(lambda xs: ops.sum([model(x, w) + w[0] * w[0] for x in xs]), 2, w)


# What belongs to no sample.


def test_a_regularisation_term_is_added_once(w):
    def f(xs):
        return ops.mean([model(x, w) ** 2 for x in xs]) + 0.1 * ops.sum([v * v for v in w])

    check(f, 2, w)


def test_a_regularisation_term_within_the_sum_is_added_once(w):
    check(lambda xs: ops.sum([*[model(x, w) for x in xs], w[0] * w[1], ops.exp(w[2])]), 2, w)


def test_a_node_that_samples_and_the_regulariser_share(w):
    """∂/∂w through w₂ = 2·w: what comes from the samples is added up there, then both go on to w together."""

    def f(xs):
        doubled = [2 * v for v in w]
        return ops.mean([model(x, doubled) ** 2 for x in xs]) + ops.sum([ops.sin(v) * v for v in doubled])

    check(f, 2, w)


def test_the_sums_over_samples_for_a_shared_node_are_made_at_that_node(w):
    two, z, _ = separate(lambda xs: ops.sum([ops.sin(2 * w[0] * x[0]) for x in xs]), 1)
    with two.trace.running():
        (g,) = gradients(z, w[:1], lambda x: two.owner_of(x) != NONE)
    over, factor = inputs_of(g)
    assert g.op is ops.mul and over.op is total and factor == 2.0


def test_what_a_loss_does_not_depend_on_has_the_derivative_zero(w):
    two, z, _ = separate(lambda xs: ops.mean([w[0] * x[0] for x in xs]), 1)
    assert gradients(z, w, lambda x: two.owner_of(x) != NONE)[1:] == [0.0] * 3
    assert gradients(3.0, w, bool) == [0.0] * 4


def test_a_node_used_twice_is_taken_apart_once(w):
    def f(xs):
        z = ops.mean([w[0] * x[0] for x in xs])
        for _ in range(14):
            z = ops.sin(z * z)  # 2¹⁴ ways down
        return z

    two, _, _ = separate(f, 1)
    assert len(two.trace.tape) < 100


def test_parameters_beside_a_mean_are_live_and_get_their_gradient(w):
    def mean(xs):
        return ops.mean([model(x, w) ** 2 for x in xs])

    for f in (
        lambda xs: (w[0] + mean(xs)) ** 2,
        lambda xs: mean(xs) * ops.exp(-w[1]) + w[1],
        lambda xs: ops.exp(mean(xs) + w[2]),
        lambda xs: w[0] * w[1] / (1 + mean(xs)) + ops.sum([w[3], mean(xs), w[3] * w[3]]),
        lambda xs: ops.dot([w[0], mean(xs)], [mean(xs), w[1]]) + w[0],
        lambda xs: +w[0] if xs else None,
    ):
        check(f, 2, w)


def test_a_sum_that_starts_with_a_parameter(w):
    check(lambda xs: sum([model(x, w) for x in xs], w[0]), 2, w)
    check(lambda xs: sum([model(x, w) for x in xs], ops.exp(w[0]) * w[1]) / len(xs), 2, w)
    assert found(lambda xs: sum([ops.sin(x[0]) for x in xs], w[0]), 1, w=w[0]) == "add(Σ(sin(x)), mul(w, 1.0))"


def test_where_a_gradient_ends_it_ends_in_the_loop_too(w):
    def unseen(f):
        with no_grad():
            return f()

    for f in (
        lambda xs, mean: mean / mean.detach(),
        lambda xs, mean: mean * (mean * w[0]).detach() + w[0],
        lambda xs, mean: mean + unseen(lambda: ops.sum([model(x, w) for x in xs])),
        lambda xs, mean: ops.sum([mean, unseen(lambda: ops.sum([mean, *[model(x, w) for x in xs]]))]),
        lambda xs, mean: ops.sum([mean, *[model(x, w).detach() for x in xs]]),
    ):
        check(lambda xs, f=f: f(xs, ops.mean([model(x, w) ** 2 for x in xs])), 2, w)
    refuse(lambda xs: ops.sum([+(w[0] * x[0]) if i else (w[0] * x[0]).detach() for i, x in enumerate(xs)]))


def test_a_gradient_that_ends_for_some_lengths_only_is_noticed(w):
    def f(xs):
        mean = ops.mean([w[0] * x[0] for x in xs])
        return w[1] * (mean.detach() if len(xs) == 4 else +mean)

    assert [holds(f, n) for n in (1, 4, 5)] == [True, False, True]


def test_a_power_that_depends_on_the_length(w):
    check(lambda xs: ops.mean([model(x, w) ** 2 + 1 for x in xs]) ** len(xs), 2, w)
    check(lambda xs: len(xs) ** ops.mean([model(x, w) ** 2 + 1 for x in xs]), 2, w)


# Other lengths.

LENGTHS = (1, 4, 5, 7, 12)


@pytest.mark.parametrize(
    "f",
    [
        lambda xs: ops.mean([x[0] for x in xs]),
        lambda xs: sum(x[0] for x in xs) * (0.3 / len(xs)),
        lambda xs: ops.sum([ops.sum([x[0], ops.sin(x[0])]) for x in xs]) ** 2 * len(xs),
        lambda xs: ops.dot([x[0] for x in xs], [x[0] for x in xs]) / (0.7 * len(xs)),
        lambda xs: ops.sum([term for x in xs for term in (x[0], ops.sin(x[0]))]) + ops.exp(sum(x[0] for x in xs)),
        lambda xs: ops.mean([x[0] for x in xs[::-1]]),
    ],
)
def test_what_is_proved_for_other_lengths(f):
    assert [n for n in LENGTHS if holds(f, n)] == [*LENGTHS]


@pytest.mark.parametrize(
    ("f", "where"),
    [
        (lambda xs: ops.sum([x[0] for x in xs]) * (len(xs) // 2), []),
        (lambda xs: ops.sum([x[0] for x in xs]) * min(len(xs), 3), [1]),
        (lambda xs: ops.sum([x[0] for x in xs]) * min(len(xs), 5), [1, 4, 5]),
        (lambda xs: ops.sum([x[0] for x in xs]) * (2 if len(xs) == 7 else 1), [1, 4, 5, 12]),
        (lambda xs: ops.sum([x[0] for x in xs[:4]]), [1, 4]),
        (lambda xs: ops.sum([x[0] * (1 if i < 5 else 2) for i, x in enumerate(xs)]), [1, 4, 5]),
        (lambda xs: ops.sum([x[0] for x in xs]) / (1 if len(xs) == 1 else 3 * len(xs)), [4, 5, 7, 12]),
        (lambda xs: ops.sum([x[0] for x in xs]) if len(xs) < 12 else ops.prod([x[0] for x in xs]), [1, 4, 5, 7]),
        (lambda xs: ops.sum([xs[min(i, 3)][0] for i in range(len(xs))]), [1, 4]),
    ],
)
def test_what_is_proved_for_some_lengths_only(f, where):
    assert [n for n in LENGTHS if holds(f, n)] == where


# Random numbers.


def test_numbers_drawn_belong_to_the_sample_they_are_combined_with():
    def f(xs):
        h = F.dropout([[ops.sin(x[0]), x[1]] for x in xs], 0.5)
        h = F.dropout([[a + b, a * b, a] for a, b in h], 0.5)
        return ops.mean([ops.sum(row) for row in h])

    batch, _ = traced(f, 3, 2, {})
    first = [(s, k) for s in range(3) for k in (0, 1)]
    second = [(s, k) for s in range(3) for k in (2, 3, 4)]
    assert batch.draws == first + second


def test_dropout_in_two_layers_by_sample(w, monkeypatch):
    """The eager engine draws layer by layer, the loop gets the same numbers sample by sample."""

    def f(xs):
        h = F.dropout([[w[0] * x[0], w[1] * x[1], w[2]] for x in xs], 0.4)
        h = F.dropout([[ops.tanh(a + b), ops.sin(b * c)] for a, b, c in h], 0.3)
        return ops.mean([w[3] * a * b + a - b for a, b in h])

    r = random.Random(3)
    for n in (1, 2, 5):
        samples = [[r.uniform(-1, 1), r.uniform(-1, 1)] for _ in range(n)]
        draws = [[r.random() for _ in range(5)] for _ in range(n)]
        order = iter([u for row in draws for u in row[:3]] + [u for row in draws for u in row[3:]])
        with monkeypatch.context() as patch:
            patch.setattr(F, "source", lambda order=order: order.__next__)
            expected = eagerly(f, w, samples)
        assert next(order, None) is None
        for answer in run(f, 2, w, samples, draws):
            assert_close(answer, expected, 1e-13)


def test_numbers_drawn_for_several_samples_or_none_are_refused():
    def same_for_all(xs):
        u = source.uniform()
        return ops.sum([x[0] * u for x in xs])

    def for_none(xs):
        return ops.sum([x[0] for x in xs]) + source.uniform()

    for f in (same_for_all, for_none):
        with pytest.raises(NotSeparable):
            traced(f, 2, 1, {})


# What is refused.


def test_a_batch_normalization_is_refused():
    def f(xs):
        mean = ops.mean([x[0] for x in xs])
        variance = ops.mean([(x[0] - mean) ** 2 for x in xs])
        return ops.sum([ops.sin((x[0] - mean) / ops.sqrt(variance + 1e-5)) for x in xs])

    refuse(f)


def test_a_variance_written_as_a_dot_product_is_refused():
    def f(xs):
        mean = ops.mean([x[0] for x in xs])
        centred = [x[0] - mean for x in xs]
        return ops.dot(centred, centred)

    refuse(f)


def test_a_batch_normalization_would_be_refused_even_within_a_linear_sum():
    refuse(lambda xs: ops.sum([x[0] * ops.mean([y[0] for y in xs]) for x in xs]))


def test_the_largest_of_a_batch_is_refused():
    refuse(lambda xs: ops.max([x[0] for x in xs]))
    refuse(lambda xs: ops.logsumexp([x[0] for x in xs]))


def test_the_product_of_a_batch_is_refused():
    refuse(lambda xs: ops.prod([x[0] for x in xs]))
    refuse(lambda xs: xs[0][0] * xs[1][0])


def test_samples_that_are_treated_differently_are_refused():
    refuse(lambda xs: xs[0][0])
    refuse(lambda xs: ops.sin(xs[0][0]) + ops.sin(xs[1][0]))
    refuse(lambda xs: ops.sum([i * x[0] for i, x in enumerate(xs)]))
    refuse(lambda xs: ops.sum([x[0] for x in xs[1:]]))
    refuse(lambda xs: ops.sum([x[0] for x in xs]) + xs[0][0])
    refuse(lambda xs: ops.sum([x[i] for i, x in enumerate(xs)]), 3)
    refuse(lambda xs: ops.dot([x[0] for x in xs], [x[0] for x in xs[1:] + xs[:1]]))
    refuse(lambda xs: ops.sum([ops.sin(x[0]) if i else ops.cos(x[0]) for i, x in enumerate(xs)]))
    refuse(lambda xs: ops.sum([x[0] ** (2 + (i > 1)) for i, x in enumerate(xs)]))


def test_what_is_added_as_often_as_there_are_samples_is_refused(w):
    """Terms that belong to no sample, two of them in a batch of two, three in one of three."""
    with pytest.raises(NotSeparable):
        separate(lambda xs: ops.sum([term for x in xs for term in (x[0], w[0] * w[0])]), 1)


def test_other_functions_of_the_length_are_refused():
    refuse(lambda xs: ops.sum([x[0] for x in xs]) * len(xs) ** 2)
    refuse(lambda xs: ops.sum([x[0] for x in xs]) / (len(xs) - 1))
    refuse(lambda xs: ops.sum([x[0] for x in xs]) ** len(xs) if len(xs) > 2 else ops.sum([x[0] for x in xs]))


def test_a_result_of_each_sample_is_that_of_the_first_if_all_are_alike():
    batch, (a, b) = traced(lambda xs: [ops.sin(x[0]) + 2 for x in xs], 2, 1, {})
    assert same(batch, [a, b]) is a
    assert same(batch, [2.0, 2.0]) == 2.0


@pytest.mark.parametrize(
    "f",
    [
        lambda xs: [ops.sin(xs[0][0]), ops.cos(xs[1][0])],
        lambda xs: [xs[1][0], xs[0][0]],
        lambda xs: [xs[0][0] + xs[1][0], xs[0][0] + xs[1][0]],
        lambda xs: [xs[0][0] * 2, xs[1][0] * 3],
        lambda xs: [ops.sin(xs[0][0]), ops.sin(xs[0][0])],
        lambda xs: [1.0, 2.0],
    ],
)
def test_results_of_samples_that_are_not_alike_are_refused(f):
    batch, values = traced(f, 2, 1, {})
    with pytest.raises(NotSeparable):
        same(batch, values)


def test_the_form_of_a_node_is_that_of_its_formula_but_for_the_sample():
    batch, ((a, b), (c, d), (e, g)) = traced(
        lambda xs: [[ops.sin(x[0] * v) for x in xs] for v in (2.0, 3.0, xs[0][1])], 2, 2, {}
    )
    assert batch.form_of(a) == batch.form_of(b) != batch.form_of(c) == batch.form_of(d)
    assert [batch.owner_of(x) for x in (a, b, e, g)] == [0, 1, 0, SEVERAL]
    assert batch.owner_of(2.0) == batch.owner_of(Value(1.0)) == NONE


def test_inputs_may_be_given_as_what_another_batch_computes():
    """The formula of a whole is found from a batch of two, and from what follows its layer, of five."""
    forms, w = {}, Value(0.5)
    layer = lambda x: w * x[0] - x[1]  # noqa: E731
    loss = lambda xs: sum(x.exp() for x in xs) / len(xs)  # noqa: E731
    two, z2 = traced(lambda xs: loss([layer(x) for x in xs]), 2, 2, forms)
    three, z3 = traced(lambda xs: loss([layer(x) for x in xs]), 3, 2, forms)
    (n,) = two.trace.input("count", 1)
    made = two.form_of(next(z for z in two.trace.tape if z.op is ops.sub))

    def found(batch, z):
        with two.trace.running():
            return two.form_of(separated(two, batch, z2, z, n))

    def of_five(f):
        trace = Trace()
        xs = [trace.input(f"x{s}", 1) for s in range(5)]
        for [x] in xs:
            x.requires_grad = True
        with trace.running():
            z = f([x for [x] in xs])
        return Batch(trace, xs, forms, [made]), z

    assert found(*of_five(loss)) == found(three, z3)
    for other in (sum, lambda xs: sum((-x).exp() for x in xs) / len(xs)):
        with pytest.raises(NotSeparable):
            found(*of_five(other))

"""Pass 1 against the eager engine: every row, function, layer and loss is traced once and evaluated at several points.

`evaluate` is all that these tests need of a compiler: it walks the tape in order, one row at a time. What was traced
at one point has to be right at others too, with other parameters: then nothing was baked in.
"""

import copy
import inspect
import math
import pickle
import random
import threading
from itertools import pairwise, product

import pytest

import milligrad as mg
from milligrad import Value, nn, no_grad, ops
from milligrad import functional as F
from milligrad import random as mg_random
from milligrad.compiler.trace import Symbol, Trace, captured, inputs_of, needed
from milligrad.engine import Answer, Reduction, TraceError, adjoints, number, partials_as_values
from milligrad.nested import elementwise, flatten, full, is_list
from milligrad.nn import Module
from milligrad.transforms import grad, hessian, hvp, jacobian, jvp, value_and_grad

SEEDS = (1, 2, 3)


def evaluate(trace, outputs, given=(), draws=()):
    """The numbers of `outputs`, nested alike: `given` are those of the trace's inputs, `draws` its random numbers."""
    numbers = dict(zip([x for array in trace.inputs.values() for x in array], given, strict=True))
    numbers.update(zip(trace.random, draws, strict=True))

    def number(x):
        if isinstance(x, Symbol):
            return numbers[x]
        if isinstance(x, Value):
            assert x.is_leaf, "a number that was computed in the trace, and would be old in the next call"
        return x.data if isinstance(x, Value) else float(x)

    outputs = [outputs] if not is_list(outputs) else outputs
    need = needed(trace.tape, flatten(outputs))
    for z in trace.tape:
        if need[z.number] and z.op:
            numbers[z] = z.op.value(*map(number, inputs_of(z)))
    return [number(z) for z in flatten(outputs)]


def about(xs):
    return pytest.approx(xs, rel=1e-12, abs=1e-13, nan_ok=True)


def mapped(f, x):
    """f of each number of the arguments x; bools, None and the like stay."""
    if isinstance(x, (list, tuple)):
        return [mapped(f, row) for row in x]
    return f(x) if type(x) in (float, int) else x


def numbers_of(x):
    found = []
    mapped(found.append, x)
    return found


def combined(outputs):
    """One number that depends on each of the outputs in another way."""
    zs = [z for z in flatten(outputs) if z is not None]
    return ops.dot(zs, [1 + 0.37 * i % 0.9 for i in range(len(zs))])


def check(f, make, parameters=(), as_values=()):
    """f(*args), traced, against f(*args), eager: results and derivatives by arguments and parameters.

    `make(r)` gives arguments, drawn from r. Their numbers are Symbols in the trace, but those of the arguments in the
    places `as_values` are Values. Whole numbers are Symbols, too, but have no derivative.
    """
    args = make(random.Random(SEEDS[0]))
    trace = Trace()
    symbols = trace.input("x", sum(len(numbers_of(x)) for i, x in enumerate(args) if i not in as_values))
    values = {i: mapped(lambda x: Value(x) if type(x) is float else x, args[i]) for i in as_values}
    rest = iter(symbols)

    def symbol(x):
        s = next(rest)
        s.requires_grad = type(x) is float
        return s

    with trace.running():
        traced = f(*[values[i] if i in values else mapped(symbol, x) for i, x in enumerate(args)])
        loss = combined(traced)
        by = [x for x in symbols if x.requires_grad]
        by += [x for x in flatten(list(values.values())) if isinstance(x, Value)]
        by += parameters
        adjoint = adjoints([(loss, 1.0)], partials_as_values)
    outputs = [z for z in flatten(traced) if z is not None]
    gradient = [adjoint.get(x, 0.0) for x in by]
    met = captured(trace.tape, needed(trace.tape, [loss]), [loss])
    assert {x for x in met if x.requires_grad} <= {*by}
    assert any(g != 0.0 for g in gradient if type(g) is float) or any(isinstance(g, Symbol) for g in gradient)

    for seed in SEEDS:
        r = random.Random(seed)
        args = make(r)
        for p in parameters:
            p.data, p.grad = r.uniform(-1, 1), 0.0
        for i, xs in values.items():
            for v, x in zip(flatten(xs), flatten(args[i])):
                if isinstance(v, Value):
                    v.data = x
        mg.manual_seed(seed)
        draws = [mg_random.generator().random() for _ in trace.random]
        given = numbers_of([x for i, x in enumerate(args) if i not in values])
        found = evaluate(trace, [*outputs, *gradient], given, draws)

        mg.manual_seed(seed)
        lifted = mapped(lambda x: Value(x) if type(x) is float else x, args)
        eager = f(*lifted)
        total = combined(eager)
        total.backward()
        leaves = [x for i, xs in enumerate(lifted) if i not in values for x in flatten(xs) if isinstance(x, Value)]
        leaves += [x for i in values for x in flatten(lifted[i]) if isinstance(x, Value)]
        numbers = [z.data if isinstance(z, Value) else float(z) for z in flatten(eager) if z is not None]
        assert found == about([*numbers, *[x.grad for x in leaves], *[p.grad for p in parameters]])


def uniform(r, *size, low=-1.5, high=1.5):
    return elementwise(lambda _: r.uniform(low, high), full(size, 0.0))


def indices(r, n, *size):
    return elementwise(lambda _: r.randrange(n), full(size, 0))


# ── Rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def points(row):
    """Points of the row's domain."""
    if isinstance(row, Reduction):
        return [[0.3, 0.7, -0.2, 0.9], [0.5, 0.5, 0.5, 0.5], [-1.0, 2.0, 0.25, 2.0]]
    n = row.form.count("{}")
    return [[a, b, c][:n] for a, b, c in product((0.2, 0.5, 1.0), (0.3, 0.5, 0.8), (0.1, 0.9))][:: 3 - n or 1]


def call(row, constant):
    """The row as a function of its inputs that are not constants; `constant` is the point."""
    if row.name in ("dot", "chain"):
        return lambda *xs: row(xs[: len(xs) // 2], xs[len(xs) // 2 :])
    if isinstance(row, Reduction):
        return lambda *xs: row(xs)
    if row.name == "power":
        return lambda x, _: row(x, constant[1])
    if row.name == "exponential":
        return lambda _, y: row(constant[0], y)
    if row.name == "where":
        return lambda c, x, y: row(c > 0.3, x, y) if isinstance(c, Value) else row(float(c > 0.3), x, y)
    return row


@pytest.mark.parametrize("name", ops.TABLE)
def test_each_row_has_its_value_and_its_derivatives_of_both_orders(name):
    row = ops.TABLE[name]
    for point in points(row):
        if name in ("asin", "acos") and 1.0 in point:
            continue  # no derivative there
        f = call(row, point)
        trace = Trace()
        xs = trace.input("x", len(point))
        with trace.running():
            z = f(*xs)
            first = jacobian(lambda xs, f=f: f(*xs))(xs)
            second = hessian(lambda xs, f=f: f(*xs))(xs)
        assert isinstance(z, Symbol)
        assert evaluate(trace, [z], point) == [f(*point)]
        assert evaluate(trace, [first], point) == about(jacobian(lambda xs, f=f: f(*xs))(point))
        assert evaluate(trace, [second], point) == about(flatten(hessian(lambda xs, f=f: f(*xs))(point)))


@pytest.mark.parametrize("name", [name for name in ops.TABLE if name not in ("power", "exponential", "where")])
def test_each_row_takes_numbers_values_and_symbols_together(name):
    row = ops.TABLE[name]
    for i in range(len(points(row)[0])):
        for point in points(row)[:3]:
            trace = Trace()
            mixed = [1 if x == 1 else x if j % 2 else Value(x) for j, x in enumerate(point)]
            mixed[i] = trace.input("x", 1)[0]
            assert evaluate(trace, [call(row, point)(*mixed)], [point[i]]) == [call(row, point)(*point)]


ARITHMETIC = {
    "+": lambda x, y: x + y,
    "-": lambda x, y: x - y,
    "*": lambda x, y: x * y,
    "/": lambda x, y: x / y,
    "**": lambda x, y: x**y,
    "<": lambda x, y: (x < y) + 0.0,
    "<=": lambda x, y: (x <= y) + 0.0,
    ">": lambda x, y: (x > y) + 0.0,
    ">=": lambda x, y: (x >= y) + 0.0,
    "-x": lambda x, y: -x,
    "+x": lambda x, y: +x,
    "abs(x)": lambda x, y: abs(-x) + y,
    "sum": lambda x, y: sum([x, y, x]),
    "in place": lambda x, y: added(x, y),
    "maximum": ops.maximum,
    "minimum": ops.minimum,
    "mean": lambda x, y: ops.mean([x, y, 3, x]),
    "log_sigmoid": lambda x, y: ops.log_sigmoid(x - y),
    "logaddexp": ops.logaddexp,
    "normal_cdf": lambda x, y: ops.normal_cdf(x - y),
    "clamp": lambda x, y: ops.clamp(x, y, 2),
    "clamp below": lambda x, y: ops.clamp(y, max=x),
    "where": lambda x, y: ops.where(x < y, x * y, 7),
    "where a number": lambda x, y: ops.where(x - y, x, y),
    "methods": lambda x, y: Value.clamp(x, 0.5).maximum(y).exp().log1p() if isinstance(x, Value) else math.nan,
    "matvec": lambda x, y: combined(ops.matvec([[x, y], [y, 2.0]], [y, x])),
}


def added(x, y):
    x += y
    x *= 2
    return x


@pytest.mark.parametrize("name", ARITHMETIC)
@pytest.mark.parametrize("left, right", [(0.7, 1.3), (1.3, 0.7), (0.5, 0.5), (2.0, 2.0)])
def test_arithmetic_comparisons_and_choices_are_recorded(name, left, right):
    f = ARITHMETIC[name]
    expected = number(f(Value(left), Value(right)))
    for kinds in product(("symbol", "value", "float"), repeat=2):
        if "symbol" in kinds and not (name == "methods" and kinds[0] == "float"):
            trace = Trace()
            both = zip(trace.input("x", 2), (left, right), kinds)
            with trace.running():
                z = f(*[{"symbol": s, "value": Value(x), "float": x}[kind] for s, x, kind in both])
            assert evaluate(trace, [z], [left, right]) == [expected]


def test_every_public_function_of_the_table_was_tried():
    assert set(ops.__all__) - set(ops.TABLE) - {"LOG_EPSILON"} <= set(ARITHMETIC)


# ── Functions ────────────────────────────────────────────────────────────────────────────────────────────────────

CAUSAL = [[j <= i for j in range(3)] for i in range(3)]


def elements(f):
    return f, lambda r: [uniform(r, 2, 3, low=-3, high=3)]


def logits_and_classes(r):
    return [uniform(r, 3, 4), indices(r, 4, 3)]


def some_ignored(ignored):
    """At another place for each seed, and never everywhere."""

    def make(r):
        logits, classes = logits_and_classes(r)
        classes[r.randrange(2)] = ignored
        classes[2] = (ignored + 1) % 4
        return [logits, classes]

    return make


def probabilities(r, *size):
    return uniform(r, *size, low=0.1, high=0.9)


def with_equals(r, *size):
    return elementwise(float, indices(r, 3, *size))


def attention(r):
    return [uniform(r, 3, 4), uniform(r, 3, 4), uniform(r, 3, 2)]


FUNCTIONS = {
    **{name: [elements(getattr(F, name))] for name in ("relu", "sigmoid", "tanh", "silu")},
    "leaky_relu": [elements(F.leaky_relu), elements(lambda x: F.leaky_relu(x, 0.3))],
    "elu": [elements(F.elu), elements(lambda x: F.elu(x, 0.5))],
    "gelu": [elements(F.gelu), elements(lambda x: F.gelu(x, "tanh"))],
    "softplus": [elements(F.softplus), elements(lambda x: F.softplus(x, 2.0, 1.0))],
    "softmax": [elements(F.softmax), elements(lambda x: F.softmax(x, 0))],
    "log_softmax": [elements(F.log_softmax), elements(lambda x: F.log_softmax(x, 0))],
    "linear": [
        (F.linear, lambda r: [uniform(r, 3), uniform(r, 2, 3), uniform(r, 2)]),
        (F.linear, lambda r: [uniform(r, 2, 2, 3), uniform(r, 2, 3)]),
    ],
    "embedding": [
        (F.embedding, lambda r: [indices(r, 5, 2, 3), uniform(r, 5, 2)]),
        (lambda i, w: F.embedding(i, w, 1), lambda r: [[1, *indices(r, 3, 4)], uniform(r, 3, 2)]),
        (lambda i, w: F.embedding(i, w, -1), lambda r: [r.randrange(2), uniform(r, 3, 2)]),
    ],
    "one_hot": [(lambda i, x: [F.one_hot(i, 4), x], lambda r: [indices(r, 4, 2, 3), 0.5])],
    "dropout": [
        (lambda x: F.dropout(x, 0.4), lambda r: [uniform(r, 4, 5)]),
        (lambda x: F.dropout(x, 1.0) + x, lambda r: [uniform(r, 4)]),
        (lambda x: F.dropout(x, 0.4, training=False), lambda r: [uniform(r, 4, 5)]),
    ],
    "layer_norm": [
        (lambda x: F.layer_norm(x, (4,)), lambda r: [uniform(r, 2, 4)]),
        (lambda x, w, b: F.layer_norm(x, (2, 2), w, b), lambda r: [uniform(r, 2, 2) for _ in range(3)]),
    ],
    "rms_norm": [
        (lambda x: F.rms_norm(x, (4,)), lambda r: [uniform(r, 2, 4)]),
        (lambda x, w: F.rms_norm(x, (4,), w, 0.1), lambda r: [uniform(r, 2, 4), uniform(r, 4)]),
    ],
    "scaled_dot_product_attention": [
        (F.scaled_dot_product_attention, attention),
        (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, CAUSAL), attention),
        (F.scaled_dot_product_attention, lambda r: [*attention(r), uniform(r, 3, 3)]),
        (F.scaled_dot_product_attention, lambda r: [[x, x[::-1]] for x in attention(r)]),
        (
            lambda q, k, v, n: F.scaled_dot_product_attention(q, k, v, [[j <= n for j in range(3)]]),
            lambda r: [*attention(r), r.randrange(3)],
        ),
        (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, None, 0.3), attention),
    ],
    "conv2d": [
        (F.conv2d, lambda r: [uniform(r, 2, 4, 3), uniform(r, 2, 2, 2, 2), uniform(r, 2)]),
        (lambda x, w: F.conv2d(x, w, None, 2, 1, 1, 2), lambda r: [uniform(r, 2, 2, 3, 3), uniform(r, 2, 1, 2, 2)]),
        (lambda x, w: F.conv2d(x, w, None, 1, "same"), lambda r: [uniform(r, 1, 3, 3), uniform(r, 1, 1, 2, 3)]),
    ],
    "max_pool2d": [
        (lambda x: F.max_pool2d(x, 2), lambda r: [uniform(r, 2, 4, 4)]),
        (lambda x: F.max_pool2d(x, 2, 1, 1, ceil_mode=True), lambda r: [with_equals(r, 1, 3, 3)]),
    ],
    "avg_pool2d": [
        (lambda x: F.avg_pool2d(x, 2), lambda r: [uniform(r, 2, 4, 4)]),
        (lambda x: F.avg_pool2d(x, 2, 1, 1, count_include_pad=False), lambda r: [uniform(r, 1, 3, 3)]),
    ],
    **{
        name: [
            (f, lambda r: [uniform(r, 2, 3), uniform(r, 2, 3)]),
            (lambda x, y, f=f: f(x, y, reduction="none"), lambda r: [uniform(r, 2), uniform(r, 2)]),
            (lambda x, y, f=f: f(x, y, "sum"), lambda r: [r.uniform(-1, 1), r.uniform(-1, 1)]),
        ]
        for name, f in (("mse_loss", F.mse_loss), ("l1_loss", F.l1_loss))
    },
    "huber_loss": [(F.huber_loss, lambda r: [uniform(r, 6), uniform(r, 6)])],
    "smooth_l1_loss": [
        (F.smooth_l1_loss, lambda r: [uniform(r, 6), uniform(r, 6)]),
        (lambda x, y: F.smooth_l1_loss(x, y, beta=0.0), lambda r: [uniform(r, 6), uniform(r, 6)]),
    ],
    "binary_cross_entropy": [
        (F.binary_cross_entropy, lambda r: [probabilities(r, 4), probabilities(r, 4)]),
        (F.binary_cross_entropy, lambda r: [probabilities(r, 2, 3), probabilities(r, 2, 3), probabilities(r, 3)]),
        (lambda x, y: F.binary_cross_entropy(x, y), lambda r: [probabilities(r, 4), indices(r, 2, 4)]),
    ],
    "binary_cross_entropy_with_logits": [
        (F.binary_cross_entropy_with_logits, lambda r: [uniform(r, 4), probabilities(r, 4)]),
        (
            lambda x, y, w, p: F.binary_cross_entropy_with_logits(x, y, w, "sum", p),
            lambda r: [uniform(r, 2, 3), indices(r, 2, 2, 3), probabilities(r, 3), probabilities(r, 3)],
        ),
    ],
    "kl_div": [
        (F.kl_div, lambda r: [uniform(r, 2, 3), probabilities(r, 2, 3)]),
        (lambda x, y: F.kl_div(x, y, "batchmean", log_target=True), lambda r: [uniform(r, 2, 3), uniform(r, 2, 3)]),
    ],
    **{
        name: [
            (f, lambda r: [uniform(r, 4), r.randrange(4)]),
            (f, logits_and_classes),
            (f, lambda r: [uniform(r, 2, 3, 2), indices(r, 3, 2, 2)]),
            (lambda x, t, f=f: f(x, t, reduction="none"), some_ignored(-100)),
            (lambda x, t, f=f: f(x, t, reduction="sum"), some_ignored(-100)),
            (f, some_ignored(-100)),
            (lambda x, t, f=f: f(x, t, ignore_index=2), some_ignored(2)),
            (lambda x, t, w, f=f: f(x, t, w), lambda r: [*logits_and_classes(r), probabilities(r, 4)]),
            (lambda x, t, w, f=f: f(x, t, w, ignore_index=2), lambda r: [*some_ignored(2)(r), probabilities(r, 4)]),
            (lambda x, t, f=f: f(x, t, [0.5, 1.0, 2.0, 3.0], reduction="none"), logits_and_classes),
        ]
        for name, f in (("nll_loss", F.nll_loss), ("cross_entropy", F.cross_entropy))
    },
}
FUNCTIONS["cross_entropy"] += [
    (lambda x, t: F.cross_entropy(x, t, label_smoothing=0.2), some_ignored(-100)),
    (
        lambda x, t, w: F.cross_entropy(x, t, w, label_smoothing=0.2),
        lambda r: [*some_ignored(-100)(r), probabilities(r, 4)],
    ),
    (F.cross_entropy, lambda r: [uniform(r, 2, 3), probabilities(r, 2, 3)]),
    (lambda x, t: F.cross_entropy(x, t, label_smoothing=0.2), lambda r: [uniform(r, 2, 3), probabilities(r, 2, 3)]),
]


def test_every_public_function_has_a_case():
    assert set(FUNCTIONS) == set(F.__all__)


FUNCTION_CASES = [(name, i) for name, cases in FUNCTIONS.items() for i in range(len(cases))]


@pytest.mark.parametrize("name, i", FUNCTION_CASES)
def test_each_function_of_symbols_alone(name, i):
    check(*FUNCTIONS[name][i])


@pytest.mark.parametrize("name, i", FUNCTION_CASES)
def test_each_function_of_symbols_and_values(name, i):
    f, make = FUNCTIONS[name][i]
    drawn = make(random.Random(SEEDS[0]))
    with_whole = {j for j, x in enumerate(drawn) if any(type(n) is int for n in numbers_of(x))}
    for j in range(len(drawn) if len(drawn) > 1 else 0):

        def make_beside(r, j=j):
            """Whole numbers beside Symbols are part of the code: the same for each seed."""
            return [x if k != j or j not in with_whole else drawn[j] for k, x in enumerate(make(r))]

        others = {*range(len(drawn))} - {j}
        check(f, make_beside, as_values=[j])
        if others - with_whole and len(others) > 1:
            check(f, make_beside, as_values=[j, *sorted(others - with_whole)[1:]])


# ── Layers and losses ────────────────────────────────────────────────────────────────────────────────────────────


class Reversed(Module):
    """A module of one's own, with parameters of its own."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter([1.0, 2.0, 3.0])

    def forward(self, input):
        return [s * x + t.tanh() for s, x, t in zip(self.scale, reversed(input), self.scale[::-1])]


class Listed(Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2)])

    def forward(self, input):
        for layer in self.layers:
            input = layer(input)
        return input


class Named(Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleDict({"up": nn.Linear(3, 4), "down": nn.Linear(4, 3)})

    def forward(self, input):
        return self.layers["down"](F.relu(self.layers["up"](input)))


def vector(r):
    return [uniform(r, 3)]


def images(r):
    return [uniform(r, 2, 2, 4, 4)]


def two(r):
    return [uniform(r, 2, 3), uniform(r, 2, 3)]


MODULES = {
    "Module": [(Reversed, vector)],
    "Sequential": [(lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), vector)],
    "ModuleList": [(Listed, vector)],
    "ModuleDict": [(Named, vector)],
    **{
        name: [(getattr(nn, name), lambda r: [uniform(r, 2, 3, low=-3, high=3)])]
        for name in ("ReLU", "LeakyReLU", "ELU", "GELU", "SiLU", "Sigmoid", "Tanh", "Softplus", "Softmax", "LogSoftmax")
    },
    "Linear": [(lambda: nn.Linear(3, 2), vector), (lambda: nn.Linear(3, 2, bias=False), lambda r: [uniform(r, 2, 3)])],
    "Embedding": [
        (lambda: nn.Embedding(5, 3), lambda r: [indices(r, 5, 4)]),
        (lambda: nn.Embedding(5, 3, padding_idx=2), lambda r: [[2, *indices(r, 5, 4)]]),
    ],
    "Dropout": [(nn.Dropout, lambda r: [uniform(r, 3, 4)])],
    "LayerNorm": [(lambda: nn.LayerNorm(3), lambda r: [uniform(r, 2, 3)])],
    "RMSNorm": [(lambda: nn.RMSNorm((2, 3)), lambda r: [uniform(r, 2, 3)])],
    "Conv2d": [(lambda: nn.Conv2d(2, 3, 2, padding=1), images), (lambda: nn.Conv2d(2, 2, 3, groups=2), images)],
    "MaxPool2d": [(lambda: nn.MaxPool2d(2), images)],
    "AvgPool2d": [(lambda: nn.AvgPool2d(2, padding=1), images)],
    "Flatten": [(nn.Flatten, images)],
    "RNN": [
        (lambda: nn.RNN(2, 3), lambda r: [uniform(r, 3, 2)]),
        (
            lambda: nn.RNN(2, 3, nonlinearity="relu", batch_first=True),
            lambda r: [uniform(r, 2, 3, 2), uniform(r, 1, 2, 3)],
        ),
    ],
    "GRU": [
        (lambda: nn.GRU(2, 3), lambda r: [uniform(r, 3, 2)]),
        (lambda: nn.GRU(2, 3), lambda r: [uniform(r, 3, 2, 2), uniform(r, 1, 2, 3)]),
    ],
    "LSTM": [
        (lambda: nn.LSTM(2, 3), lambda r: [uniform(r, 3, 2)]),
        (lambda: nn.LSTM(2, 2, bias=False), lambda r: [uniform(r, 3, 2), [uniform(r, 1, 2), uniform(r, 1, 2)]]),
    ],
    "MultiheadAttention": [
        (lambda: nn.MultiheadAttention(4, 2), lambda r: [uniform(r, 3, 4)] * 3),
        (
            lambda: nn.MultiheadAttention(4, 2, dropout=0.3, kdim=3, vdim=2, batch_first=True),
            lambda r: [uniform(r, 2, 3, 4), uniform(r, 2, 2, 3), uniform(r, 2, 2, 2)],
        ),
    ],
    **{name: [(getattr(nn, name), two)] for name in ("MSELoss", "L1Loss", "HuberLoss", "SmoothL1Loss", "KLDivLoss")},
    "BCELoss": [(lambda: nn.BCELoss([0.5, 1.0, 2.0]), lambda r: [probabilities(r, 2, 3), indices(r, 2, 2, 3)])],
    "BCEWithLogitsLoss": [
        (lambda: nn.BCEWithLogitsLoss(pos_weight=[0.5, 1.0, 2.0]), lambda r: [uniform(r, 2, 3), indices(r, 2, 2, 3)])
    ],
    "CrossEntropyLoss": [
        (nn.CrossEntropyLoss, logits_and_classes),
        (lambda: nn.CrossEntropyLoss([0.5, 1.0, 2.0, 3.0], 2, "sum", 0.1), some_ignored(2)),
    ],
    "NLLLoss": [(nn.NLLLoss, logits_and_classes), (lambda: nn.NLLLoss([0.5, 1.0, 2.0, 3.0], 2), some_ignored(2))],
}
MODULES["KLDivLoss"] = [(nn.KLDivLoss, lambda r: [uniform(r, 2, 3), probabilities(r, 2, 3)])]


def test_every_public_module_has_a_case():
    public = [getattr(nn, name) for name in nn.__all__]
    assert set(MODULES) == {x.__name__ for x in public if inspect.isclass(x) and issubclass(x, Module)}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name, i", [(name, i) for name, cases in MODULES.items() for i in range(len(cases))])
def test_each_module_by_its_inputs_and_its_parameters(name, i, training):
    build, make = MODULES[name][i]
    mg.manual_seed(0)
    module = build().train(training)
    check(module, make, [v for p in module.parameters() for v in p.values()])


def test_a_network_with_its_loss_by_its_parameters():
    mg.manual_seed(0)
    head = nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.Dropout(0.2), nn.Linear(5, 3))
    model = nn.Sequential(nn.Embedding(4, 3), nn.Flatten(0), *head)
    loss = nn.CrossEntropyLoss(label_smoothing=0.1)
    parameters = [v for p in model.parameters() for v in p.values()]
    check(lambda i, t: loss(model(i), t), lambda r: [indices(r, 4, 2), r.randrange(3)], parameters)


def test_frozen_parameters_are_captured_too():
    mg.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    frozen = model[0].weight.requires_grad_(False).values()
    trace = Trace()
    x = trace.input("x", 3)
    with trace.running():
        (z,) = model(x)
    found = captured(trace.tape, needed(trace.tape, [z]), [z])
    assert {*frozen} <= {*found} and z.requires_grad
    for v in found:
        v.data += 0.5
    assert evaluate(trace, [z], [1.0, 2.0, 3.0]) == about([z.data for z in model([1.0, 2.0, 3.0])])


# ── Indices ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("index", [-1.0, 3.0, 0.5, math.nan, math.inf])
def test_an_index_that_is_none_gives_no_number_where_the_eager_engine_raises(index):
    trace = Trace()
    i, *xs = trace.input("x", 4)
    rows = F.embedding(i, [[1.0, 2.0]] * 3)
    losses = [F.nll_loss(xs, i), F.cross_entropy(xs, i, [1.0, 2.0, 3.0], label_smoothing=0.1)]
    losses += F.nll_loss([xs, xs], [i, 0], reduction="none")[:1]
    found = evaluate(trace, [*rows, *losses, *F.one_hot(i, 3)], [index, -1.0, -2.0, -3.0])
    assert all(map(math.isnan, found[:5])) and found[5:] == [0.0, 0.0, 0.0]


def test_only_ignored_targets_have_no_mean():
    trace = Trace()
    t, *xs = trace.input("x", 4)
    mean, total = F.cross_entropy([xs], [t]), F.cross_entropy([xs], [t], reduction="sum")
    assert evaluate(trace, [total], [-100.0, 1.0, 2.0, 3.0]) == [0.0]
    with pytest.raises(ZeroDivisionError):
        evaluate(trace, [mean], [-100.0, 1.0, 2.0, 3.0])


def test_a_class_that_is_impossible_costs_the_others_nothing():
    trace = Trace()
    t, x, y = trace.input("x", 3)
    loss = F.cross_entropy([x, -math.inf, y], t)
    for target in (0, 2):
        eager = F.cross_entropy([1.0, -math.inf, 3.0], target)
        assert math.isfinite(eager) and evaluate(trace, [loss], [float(target), 1.0, 3.0]) == about([eager])


def test_a_choice_by_index_is_one_node_for_each_column_and_few_for_each_sample():
    trace = Trace()
    i, j = trace.input("x", 2)
    table = [[Value(a + 10 * b) for b in range(6)] for a in range(50)]
    F.embedding([i, j], table)
    assert [z.op.name for z in trace.tape if z.op].count("dot") == 12 and len(trace.tape) < 2 * (50 + 3 * 6) + 10

    trace = Trace()
    t, *xs = trace.input("x", 101)
    F.nll_loss(xs, t)
    assert len(trace.tape) < 101 + 2 * 100 + 20


def test_the_row_of_the_padding_is_looked_up_in_each_call_and_has_no_gradient():
    table = [[Value(1.0)], [Value(2.0)], [Value(3.0)]]
    trace = Trace()
    i, j = trace.input("x", 2)
    with trace.running():
        z = combined(F.embedding([i, j, 1], table, padding_idx=1))
        adjoint = adjoints([(z, 1.0)], partials_as_values)
    table[1][0].data = 5.0
    by = [adjoint.get(row[0], 0.0) for row in table]
    assert evaluate(trace, [z, *by], [1.0, 2.0]) == about([5 + 1.37 * 3 + 1.74 * 5, 0.0, 0.0, 1.37])


# ── Masks ────────────────────────────────────────────────────────────────────────────────────────────────────────

MASKS = {
    "a comparison": lambda n: [[j > n for j in range(3)]] * 3,
    "comparisons and bools": lambda n: [[j > n for j in range(3)], [False, False, True], [n < j for j in range(3)]],
    "numbers": lambda n: [[j * n * 0.5 for j in range(3)]] * 3,
    "a choice": lambda n: [[ops.where(j > n, -math.inf, 0.0) for j in range(3)]] * 3,
}


@pytest.mark.parametrize("padding", [None, [False, False, True], [0.5, -0.5, 0.0], "traced"], ids=str)
@pytest.mark.parametrize("name", MASKS)
def test_masks_of_traced_numbers_mean_what_they_mean_eagerly(name, padding):
    layer = nn.MultiheadAttention(4, 2)

    def f(x, n, m):
        keys = [k > m for k in range(3)] if padding == "traced" else padding
        return layer(x, x, x, attn_mask=MASKS[name](n), key_padding_mask=keys)

    parameters = [v for p in layer.parameters() for v in p.values()]
    check(f, lambda r: [uniform(r, 3, 4), float(r.randrange(3)), float(r.randrange(3))], parameters)


def test_a_mask_of_comparisons_and_numbers_is_refused_as_bools_and_numbers_are():
    n, x = Trace().input("x", 2)
    for mask in ([[n < 1, 0.5]], [[n < 1, x]], [[True, x]]):
        with pytest.raises(TypeError, match="attn_mask: expected bools only, or floats that are added"):
            F.scaled_dot_product_attention([[1.0]], [[1.0], [2.0]], [[1.0], [2.0]], mask)


# ── Questions that a Symbol does not answer ──────────────────────────────────────────────────────────────────────

REFUSED = [
    (lambda v, w: 1 if v > 0 else 2, "where"),
    (lambda v, w: v and w, "where"),
    (lambda v, w: not v, "where"),
    (lambda v, w: 0 < v < 1, "where"),
    (lambda v, w: max([v, w]), "maximum"),
    (lambda v, w: min(v, w), "minimum"),
    (lambda v, w: max(v, 0), "maximum"),
    (lambda v, w: sorted([v, w]), "minimum"),
    (lambda v, w: any([v, w]), "where"),
    (lambda v, w: float(v), "arithmetic"),
    (lambda v, w: math.exp(v), "exp, log, sqrt"),
    (lambda v, w: math.floor(v), "arithmetic"),
    (lambda v, w: v.data, "arithmetic"),
    (lambda v, w: v.item(), "the value itself"),
    (lambda v, w: v.real, "arithmetic"),
    (lambda v, w: v.grad, "milligrad.grad"),
    (lambda v, w: v.backward(), "compile(value_and_grad(f))"),
    (lambda v, w: range(v), "F.one_hot"),
    (lambda v, w: [1, 2, 3][v], "F.embedding"),
    (lambda v, w: [0.0] * v, "F.embedding"),
    (lambda v, w: 1 if v == 1 else 2, "where"),
    (lambda v, w: 1 if v != w else 2, "where"),
    (lambda v, w: v in [1, 2], "where"),
    (lambda v, w: [v, 1].count(w), "where"),
    (lambda v, w: [v, 1].index(w), "where"),
    (lambda v, w: [v] == [w], "where"),
    (lambda v, w: f"{v:.2f}", "repr"),
    (lambda v, w: int(v), "arithmetic"),
    (lambda v, w: round(v), "arithmetic"),
    (lambda v, w: round(v * w, 2), "arithmetic"),
    (lambda v, w: Value(v), "arithmetic"),
    (lambda v, w: F.dropout([w], v), "where"),
    (lambda v, w: F.huber_loss(v, w, delta=v), "where"),
    (lambda v, w: nn.Parameter([1.0]).copy_([v]), "arithmetic"),
]


@pytest.mark.parametrize("f, instead", REFUSED)
def test_a_question_for_the_number_names_the_line_that_asked_and_what_to_write(f, instead):
    v, w = Trace().input("x", 2)
    with pytest.raises(TraceError) as caught:
        f(v, w)
    place, _, reason = str(caught.value).partition("\n")
    line = f.__code__.co_firstlineno
    with open(__file__, encoding="utf-8") as source:
        text = source.readlines()[line - 1].strip()
    assert place == f"{__file__}, line {line}: `{text}`"
    assert "asks a traced value for its number" in reason and instead in reason.partition("Write ")[2]


def test_where_the_text_of_the_line_is_not_known_its_number_is_given():
    v = Trace().input("x", 1)[0]
    scope = {}
    exec(compile("def f(v):\n    return float(v)\n", "<typed in>", "exec"), scope)
    with pytest.raises(TraceError, match=r"^<typed in>, line 2\nfloat"):
        scope["f"](v)


def test_what_a_symbol_does_answer():
    trace = Trace()
    v, w = trace.input("x", 2)
    assert v != "1" and v is not None and {v: 1}[v] == 1  # a key is asked for outside the trace
    assert repr(v) == f"{v}" == "Symbol(input)" and repr(v * w) == "Symbol(mul)"
    assert v.symbolic and v.is_leaf and not (v + w).is_leaf and (v + 1).inputs == (v, 1.0)
    assert not v.requires_grad and not (v * w).requires_grad and (v * Value(1.0)).requires_grad
    assert not (v * Value(1.0)).detach().requires_grad
    v.name = "speed"  # as eager code may do; nobody reads it here
    assert v.name is None
    with no_grad():
        assert not (v * Value(1.0)).requires_grad and not ops.maximum(v, Value(1.0)).requires_grad


@pytest.mark.parametrize("f", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_symbol_is_not_copied(f):
    with pytest.raises(TypeError, match="a Symbol can't be copied or pickled"):
        f(Trace().input("x", 1)[0])


@pytest.mark.parametrize(
    "f",
    [lambda v: v + "a", lambda v: "a" - v, lambda v: v * None, lambda v: v**1j, lambda v: "a" * v, lambda v: v * b"a"],
)
def test_what_is_no_number_is_no_operand(f):
    with pytest.raises(TypeError, match="unsupported operand"):
        f(Trace().input("x", 1)[0])


# ── What was captured, and what is left behind ───────────────────────────────────────────────────────────────────


def test_captured_values_are_found_once_in_the_order_of_their_use():
    a, c, d, e = map(Value, range(4))
    trace = Trace()
    x, y = trace.input("x", 2)
    z = ops.dot([x, y], [c, a]) + c * x
    unused = d * x
    outputs = [z, e, ops.maximum(y, 1.0) - a]
    assert captured(trace.tape, needed(trace.tape, outputs), outputs) == [c, a, e]
    assert unused.number < len(trace.tape) and isinstance(unused, Symbol)


def test_each_symbol_comes_after_its_inputs():
    trace = Trace()
    x = trace.input("x", 3)
    value_and_grad(lambda x: F.softmax(x)[0] * 2)(x)
    assert [z.number for z in trace.tape] == list(range(len(trace.tape)))
    for z in trace.tape:
        assert all(y.number < z.number for y in inputs_of(z) if isinstance(y, Symbol))


def test_what_is_not_needed_is_seen_not_to_be():
    trace = Trace()
    x, y = trace.input("x", 2)
    dead, z = x.exp() + 1, y * 2
    need = needed(trace.tape, [z])
    assert [bool(need[s.number]) for s in (x, y, dead, z)] == [False, True, False, True]


def test_values_are_looked_up_when_the_trace_runs_also_where_no_symbol_was_near():
    a, b = Value(2.0, "a"), Value(3.0, requires_grad=False)
    trace = Trace()
    (x,) = trace.input("x", 1)
    with trace.running():
        with no_grad():
            scale = (a * b).exp() + b.detach()
        z = x * (a + b) ** 2 + ops.dot([a, b], [b, b]) + ops.where(a > b, 1.0, 2.0) + scale + a.detach() + abs(-a) / b
        adjoint = adjoints([(z, 1.0)], partials_as_values)
    gradient = adjoint[a]
    assert isinstance(z, Symbol) and not scale.requires_grad
    assert captured(trace.tape, needed(trace.tape, [z]), [z]) == [a, b]

    for a.data, b.data in ((2.0, 3.0), (1.5, 0.5)):
        expected = 5 * (a.data + b.data) ** 2 + a.data * b.data + b.data**2 + (1 if a.data > b.data else 2)
        expected += math.exp(a.data * b.data) + b.data + a.data + a.data / b.data
        assert evaluate(trace, [z], [5.0]) == about([expected])
        assert evaluate(trace, [gradient], [5.0]) == about([10 * (a.data + b.data) + b.data + 1 / b.data])


def test_a_comparison_of_parameters_is_no_reason_to_branch():
    a, b = Value(1.0), Value(2.0)
    trace = Trace()
    with trace.running(), pytest.raises(TraceError, match="where"):
        max(a, b)
    assert max(a, b) is b


def test_random_numbers_are_symbols_within_and_numbers_outside():
    trace = Trace()
    with trace.running():
        drawn = [mg_random.uniform(), *flatten(F.dropout([1.0, Value(2.0)], 0.5))]
    assert len(trace.random) == 3 and drawn[0] is trace.random[0]
    assert evaluate(trace, drawn, draws=[0.3, 0.7, 0.2]) == [0.3, 2.0, 0.0]
    assert type(mg_random.uniform()) is float


def test_nothing_is_left_behind_by_an_exception():
    x, y = Value(2.0), Value(3.0)
    with pytest.raises(RuntimeError, match="stop"), Trace().running():
        assert isinstance(mg_random.uniform(), Symbol) and isinstance(x * y, Symbol)
        raise RuntimeError("stop")
    assert mg_random._instead.get() is None and type(mg_random.uniform()) is float
    assert type(x * y) is Value and (x * y).data == 6.0 and mg.engine._modes == set()


def test_traces_nest_and_each_gets_its_own_numbers():
    x, y = Value(2.0), Value(3.0)
    outer, inner = Trace(), Trace()
    with outer.running():
        first = mg_random.uniform(), x * y
        with pytest.raises(KeyError), inner.running():
            second = mg_random.uniform(), x * y
            raise KeyError
        third = mg_random.uniform(), x * y
    assert outer.random == [first[0], third[0]] and inner.random == [second[0]]
    assert [z.tape is outer.tape for z in (first[1], second[1], third[1])] == [True, False, True]


def test_another_thread_computes_with_numbers_meanwhile():
    found = []
    x = Value(2.0)

    def work():
        found.extend([mg_random.uniform(), x * x, x > 1])

    with Trace().running():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert [type(z) for z in found] == [float, Value, Answer]


# ── Transforms ───────────────────────────────────────────────────────────────────────────────────────────────────

SCALE = Value(0.8)


def bowl(x):
    """A function with all second and third derivatives, and a parameter of its own."""
    pairs = [SCALE * a * a * mg.tanh(b) + mg.exp(a - b) for a, b in pairwise(x)]
    return ops.sum(pairs) + ops.logsumexp(x) * x[0] ** 3


TRANSFORMS = {
    "value_and_grad": lambda x, v: value_and_grad(bowl)(x),
    "grad": lambda x, v: grad(bowl)(x),
    "jacobian": lambda x, v: jacobian(lambda x: [bowl(x), bowl(x[::-1])])(x),
    "hessian": lambda x, v: hessian(bowl)(x),
    "jvp": lambda x, v: jvp(bowl, (x,), (v,)),
    "hvp": lambda x, v: hvp(bowl, x, v),
    "grad of grad": lambda x, v: grad(lambda a: grad(lambda b: bowl([a, b, x[2]]))(x[1]))(x[0]),
    "third derivative": lambda x, v: grad(lambda y: grad(grad(lambda a: bowl([a, y, a])))(x[0]))(x[1]),
    "of a grad": lambda x, v: grad(lambda x: ops.dot(grad(bowl)(x), v))(x),
    "argnums": lambda x, v: hessian(lambda a, b: bowl([*a, b]), (0, 1))(x[:2], x[2]),
}


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("symbolic", ["x", "v", "both"])
def test_transforms_of_symbols_are_those_of_numbers(name, symbolic):
    point, direction = [0.3, -0.7, 1.1], [0.5, 1.5, -2.0]
    trace = Trace()
    x = trace.input("x", 3) if symbolic != "v" else point
    v = trace.input("v", 3) if symbolic != "x" else direction
    SCALE.data = 0.8
    with trace.running():
        result = TRANSFORMS[name](x, v)
    given = {"x": point, "v": direction, "both": [*point, *direction]}[symbolic]
    for SCALE.data in (0.8, -1.3):
        expected = TRANSFORMS[name](point, direction)
        assert evaluate(trace, result, given) == about(
            [z.data if isinstance(z, Value) else z for z in flatten(expected)]
        )


# ── Conditions ───────────────────────────────────────────────────────────────────────────────────────────────────

CONDITIONS = {
    "a comparison": (lambda c: c > 0, lambda c: c > 0),
    "of two": (lambda c: c <= c * c, lambda c: c <= c * c),
    "equal": (lambda c: ops.equal(c, 0.0), lambda c: c == 0),
    "a number": (lambda c: c, lambda c: c != 0),
    "a sum of comparisons": (lambda c: (c > 1) + (c < 0), lambda c: c > 1 or c < 0),
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_choice_passes_the_derivative_to_what_was_chosen_and_none_to_the_condition(name):
    traced, plain = CONDITIONS[name]
    trace = Trace()
    c, x, y = trace.input("x", 3)
    for s in (c, x, y):
        s.requires_grad = True
    z = ops.where(traced(c), x * x, 3 * y)
    adjoint = adjoints([(z, 1.0)], partials_as_values)
    for c_is in (-2.0, 0.0, 0.5, 1.0, 3.0):
        chosen = plain(c_is)
        found = evaluate(trace, [z, adjoint.get(c, 0.0), adjoint[x], adjoint[y]], [c_is, 0.7, 0.4])
        assert found == about([0.49, 0.0, 1.4, 0.0] if chosen else [3 * 0.4, 0.0, 0.0, 3.0])


def test_the_partials_of_a_choice_are_the_condition_and_its_opposite():
    trace = Trace()
    c, x, y = trace.input("x", 3)
    z = ops.where(c < 1, x, y)
    partials = partials_as_values(z)
    assert partials[0] == 0.0 and partials[1] is z.inputs[0]
    assert evaluate(trace, partials[1:], [0.5, 1.0, 2.0]) == [1.0, 0.0]
    assert evaluate(trace, partials[1:], [1.5, 1.0, 2.0]) == [0.0, 1.0]

"""Compiled training against the eager session, method by method: what is kept in buffers, and what is compiled."""

import math
import random
from functools import partial
from itertools import pairwise

import pytest

from milligrad import Value, manual_seed, nn, ops, optim
from milligrad import functional as F
from milligrad.compiler import batch
from milligrad.compiler.backends import has_llvmlite
from milligrad.compiler.fit import CompiledSession, Loops, Predict, Whole
from milligrad.nested import flatten
from milligrad.random import generator
from milligrad.trainer import Trainer, _EagerSession, _is_largest

BACKENDS = ["python", pytest.param("llvm", marks=pytest.mark.skipif(not has_llvmlite(), reason="needs llvmlite"))]
needs_llvm = pytest.mark.skipif(not has_llvmlite(), reason="needs llvmlite")

rng = random.Random(0)
X = [[rng.gauss(0, 1) for _ in range(3)] for _ in range(11)]
Y = [rng.randrange(3) for _ in X]


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


def network(*layers):
    manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), *layers, nn.Linear(4, 3))


class Standardized(nn.Module):
    """Each column of a batch less its mean: no sum over samples."""

    def __init__(self):
        super().__init__()
        manual_seed(1)
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        columns = [[x - ops.mean(column) for x in column] for column in zip(*self.layer(x))]
        return [list(row) for row in zip(*columns)]


def sgd(model, **options):
    return optim.SGD(model.parameters(), **{"lr": 0.1, "momentum": 0.9, **options})


def session(backend, model, optimizer=None, loss_fn=None, correct=_is_largest, clips=(None, None), **options):
    optimizer = optimizer or sgd(model)
    loss_fn = loss_fn or nn.CrossEntropyLoss()
    if backend == "eager":
        return _EagerSession(model, loss_fn, optimizer, correct, *clips)
    return CompiledSession(model, loss_fn, optimizer, correct, backend, **options)


def everything(s):
    """Parameters and what the optimizer remembers, as one list."""
    state = s.optimizer.state_dict()["state"]
    numbers = [v.data for p in s.model.parameters() for v in p.values()]
    return numbers + [x for slot in state.values() for column in slot.values() for x in flatten(column)]


def about(xs):
    return pytest.approx(xs, rel=1e-11, abs=1e-12)


def kinds(s):
    return [type(code) for code in s._seen if isinstance(code, (Loops, Predict, Whole))]


# ── What is compiled ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_mean_over_samples_is_one_program_for_batches_of_any_length(backend):
    s, e = session(backend, network()), session("eager", network())
    s.load()
    assert s.epoch(X, Y, range(11), 4) == about(e.epoch(X, Y, range(11), 4))
    assert s.epoch(X, Y, [5, 3, 9], 4) == about(e.epoch(X, Y, [5, 3, 9], 4))
    s.store()
    assert everything(s) == about(everything(e))
    assert kinds(s) == [Loops]


def test_what_is_no_sum_over_samples_is_a_program_for_each_length_of_a_batch(backend):
    s, e = session(backend, Standardized()), session("eager", Standardized())
    s.load()
    for _ in range(2):
        assert s.epoch(X, Y, range(11), 4) == about(e.epoch(X, Y, range(11), 4))
    s.store()
    assert everything(s) == about(everything(e))
    assert s.evaluate(X, Y, 4) == about(e.evaluate(X, Y, 4))
    found, expected = s.predict(X, 4), e.predict(X, 4)
    assert flatten(found) == about(flatten(expected)) and len(found) == 11
    assert kinds(s) == [Whole] * 6


def test_training_and_evaluation_are_programs_of_their_own(backend):
    s, e = (session(b, network(nn.Dropout(0.5))) for b in (backend, "eager"))
    s.load()
    for mode in (True, False, True, False):
        s.model.train(mode)
        e.model.train(mode)
        manual_seed(4)
        found = s.evaluate(X, Y, 4)
        manual_seed(4)
        assert found == about(e.evaluate(X, Y, 4))
    assert kinds(s) == [Loops] * 2


def test_the_mode_of_the_loss_counts_too(backend):
    class Noisy(nn.CrossEntropyLoss):
        def forward(self, input, target):
            return super().forward(input, target) * (2 if self.training else 1)

    s = session(backend, network(), loss_fn=Noisy())
    s.load()
    twice = s.evaluate(X, Y, 4)[0]
    s.loss_fn.eval()
    assert twice == about(2 * s.evaluate(X, Y, 4)[0])


def test_another_rate_is_no_other_program_but_another_option_is(backend):
    s, e = session(backend, network()), session("eager", network())
    for lr, momentum, programs in [(0.1, 0.9, 1), (0.02, 0.9, 1), (0.02, 0.5, 2), (0.3, 0.5, 2)]:
        for x in (s, e):
            x.optimizer.param_groups[0].update(lr=lr, momentum=momentum)
            x.load()
            x.epoch(X, Y, range(11), 4)
            x.store()
        assert everything(s) == about(everything(e))
        assert len(s._seen) >= programs and kinds(s).count(Loops) == programs


def test_data_is_taken_apart_once_as_long_as_it_is_the_same_object(backend):
    s = session(backend, network())
    s.load()
    first = s.data(X)
    assert s.data(X) is first and s.data(list(X)) is not first
    for _ in range(10):
        s.data([list(x) for x in X])
    assert len(s._data) <= 4
    again = s.data(X)
    assert list(flatten(list(again))) == list(flatten(list(first)))


def test_explain_shows_each_program(backend):
    s = session(backend, network())
    assert s.explain() == ""
    s.load()
    s.epoch(X, Y, range(11), 4)
    s.predict(X, 4)
    text, source = s.explain(), "def run" if backend == "python" else "define"
    assert text.startswith("a training step, sample by sample: ") and "nodes traced" in text and "trace: " in text
    assert "a prediction, sample by sample: " in text and source not in text
    assert s.explain(full=True).count(source) >= 2


# ── Buffers ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_values_change_in_store_alone(backend):
    s = session(backend, network())
    before = everything(s)
    s.load()
    s.epoch(X, Y, range(11), 4)
    assert everything(s) == before
    s.store()
    after = everything(s)
    assert after != before
    s.epoch(X, Y, range(11), 4)
    s.discard()
    s.store()
    assert everything(s) == after


def test_load_takes_what_was_changed_from_outside(backend):
    s, e = session(backend, network(), optim.Adam(network().parameters())), None
    s, e = (session(b, m, optim.Adam(m.parameters(), lr=0.1)) for b in (backend, "eager") for m in [network()])
    for k in range(3):
        for x in (s, e):
            x.load()
            x.epoch(X, Y, range(11), 4)
            x.store()
            x.model[0].weight[1][2].data = float(k)
            slot = x.optimizer.slots[0][1]
            slot.state["exp_avg"] = [float(k)] * len(slot.values)
            slot.step = 10 * k
        assert everything(s) == about(everything(e))


def test_what_is_frozen_stays_and_keeps_its_state(backend):
    s, e = (session(b, m, optim.Adam(m.parameters(), lr=0.1)) for b in (backend, "eager") for m in [network()])
    for freeze in [(), ((0, 0), (2, 1)), ((0, 0),), ()]:
        for x in (s, e):
            x.model.requires_grad_(True)
            for i, j in freeze:
                x.model[0].weight[i][j].requires_grad = False
            x.model[2].bias.requires_grad_(not freeze)
            before = everything(x)
            x.load()
            x.epoch(X, Y, range(11), 4)
            x.store()
            assert everything(x) != before
        assert everything(s) == about(everything(e))


def test_parameters_that_the_optimizer_does_not_have_are_live_and_stay(backend):
    outer = Value(0.5)

    def loss_fn(outer, prediction, target):
        return F.cross_entropy([[outer * x for x in row] for row in prediction], target)

    s, e = (session(b, network(), loss_fn=partial(loss_fn, outer)) for b in (backend, "eager"))
    for k in range(2):
        outer.data = 0.5 + k
        for x in (s, e):
            x.load()
            x.epoch(X, Y, range(11), 4)
            x.store()
        assert everything(s) == about(everything(e))
    assert outer.data == 1.5


def test_parameters_that_the_model_does_not_have_decay_as_they_would(backend):
    extra = [nn.Parameter([1.0, 2.0]) for _ in range(2)]
    s, e = (
        session(b, m, optim.SGD([*m.parameters(), p], lr=0.1, weight_decay=0.1))
        for b, p in zip((backend, "eager"), extra)
        for m in [network()]
    )
    for x in (s, e):
        x.load()
        x.epoch(X, Y, range(11), 4)
        x.store()
    assert extra[0].data == about(extra[1].data) and extra[0].data != [1.0, 2.0]


def test_a_regulariser_is_live_and_belongs_to_no_sample(backend):
    def loss_fn(model, prediction, target):
        return F.cross_entropy(prediction, target) + 0.1 * sum(abs(v) * v * v for v in model[0].weight.values())

    s, e = (session(b, m, loss_fn=partial(loss_fn, m)) for b in (backend, "eager") for m in [network()])
    s.load()
    for _ in range(3):
        assert s.epoch(X, Y, range(11), 4) == about(e.epoch(X, Y, range(11), 4))
    s.store()
    assert everything(s) == about(everything(e)) and kinds(s) == [Loops]


def test_a_regulariser_of_a_whole_batch_is_live_too(backend):
    def loss_fn(model, prediction, target):
        return F.cross_entropy(prediction, target) + 0.1 * sum(abs(v) for v in model.layer.weight.values())

    s, e = (session(b, m, loss_fn=partial(loss_fn, m)) for b in (backend, "eager") for m in [Standardized()])
    s.load()
    for k in range(4):
        for x in (s, e):
            x.model.layer.weight[0][0].data = (-1.0) ** k
            x.load()
            x.epoch(X, Y, range(4), 4)
            x.store()
        assert everything(s) == about(everything(e))
    assert kinds(s) == [Whole]


# ── Random numbers ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("batch", [1, 4, 11])
def test_dropout_draws_the_eager_engines_numbers_and_leaves_the_generator_where_it_does(backend, batch):
    s, e = (session(b, network(nn.Dropout(0.3), nn.Dropout(0.5))) for b in (backend, "eager"))
    s.load()
    order = [7, 2, 10, 0, 5, 4, 1]
    manual_seed(9)
    found = s.epoch(X, Y, order, batch), generator().random()
    manual_seed(9)
    expected = e.epoch(X, Y, order, batch), generator().random()
    assert found[0] == about(expected[0]) and found[1] == expected[1]
    s.store()
    assert everything(s) == about(everything(e))


def test_predictions_that_draw_are_drawn_batch_by_batch(backend):
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = network()

        def forward(self, x):
            return F.dropout(self.layer(x), 0.5)  # in evaluation, too

    s, e = session(backend, Noisy()), session("eager", Noisy())
    s.load()
    manual_seed(2)
    found = s.predict(X, 4)
    manual_seed(2)
    assert flatten(found) == about(flatten(e.predict(X, 4)))


# ── Predictions and ready-made batches ───────────────────────────────────────────────────────────────────────────


def test_predictions_nest_as_the_model_does(backend):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = network()

        def forward(self, x):
            return [(row[0], [row[1], 1]) for row in self.layer(x)]

    model = Two()
    s = session(backend, model, correct=None)
    s.load()
    found = s.predict(X, 4)
    expected = [(row[0].data, [row[1].data, 1.0]) for row in model.layer(X)]
    assert [(type(a), type(b)) for a, b in found] == [(float, list)] * 11
    assert [x for a, b in found for x in (a, *b)] == about([x for a, b in expected for x in (a, *b)])


@pytest.mark.parametrize("n", [1, 256, 300])
def test_any_number_of_samples_is_predicted(backend, n):
    s, e = session(backend, network()), session("eager", network())
    s.load()
    many = [X[i % 11] for i in range(n)]
    assert flatten(s.predict(many, 32)) == about(flatten(e.predict(many, 32)))


def test_ready_made_batches_of_any_length_and_without_a_batch_dimension(backend):
    s, e = session(backend, network()), session("eager", network())
    s.load()
    for n in (3, 1, 5, 3):
        assert s.batch(X[:n], Y[:n]) == about(e.batch(X[:n], Y[:n]))
        assert s.evaluate(X[:n], Y[:n], None) == about(e.evaluate(X[:n], Y[:n], None))
        assert flatten(s.predict(X[:n], None)) == about(flatten(e.predict(X[:n], None)))
    s.store()
    assert everything(s) == about(everything(e))
    one, eager_one = (session(b, network(), correct=None) for b in (backend, "eager"))
    one.load()
    assert one.batch(X[0], Y[0]) == about(eager_one.batch(X[0], Y[0]))
    assert one.evaluate(X[0], Y[0], None) == about(eager_one.evaluate(X[0], Y[0], None))


# ── Losses that are more than a mean over samples ────────────────────────────────────────────────────────────────


class Weighted(nn.Module):
    """A loss with parameters w of its own, and all else that a formula may need."""

    def __init__(self, formula, model):
        super().__init__()
        self.w = nn.Parameter([0.5, -0.3, 0.7])
        self.formula, self._shared = formula, [v for p in model.parameters() for v in p.values()]

    def forward(self, p, t):
        mse = ops.mean([(a[0] - b) ** 2 for a, b in zip(p, t)])
        mae = ops.mean([abs(a[1] - b) for a, b in zip(p, t)])
        return self.formula(mse, mae, self.w, self._shared, p, t)


BESIDE_A_MEAN = {
    "a sum squared": lambda mse, mae, w, shared, p, t: (w[0] + mse) ** 2,
    "a learned uncertainty": lambda mse, mae, w, shared, p, t: mse * ops.exp(-w[0]) + w[0],
    "two uncertainties": lambda mse, mae, w, shared, p, t: mse * ops.exp(-w[0]) + w[0] + mae * ops.exp(-w[1]) + w[1],
    "an exponential": lambda mse, mae, w, shared, p, t: ops.exp(mse * 0.1 + w[0]),
    "a product": lambda mse, mae, w, shared, p, t: mse * w[0] * (mae + w[1]),
    "a quotient": lambda mse, mae, w, shared, p, t: mse / (w[0] + mae) + w[2] / (1 + mse),
    "a power": lambda mse, mae, w, shared, p, t: (mse + 1) ** w[0],
    "functions of functions": lambda mse, mae, w, shared, p, t: ops.log(1 + ops.softplus(mse - w[0]) * ops.tanh(w[2])),
    "a weight decay": lambda mse, mae, w, shared, p, t: mse + 0.1 * ops.sum([v * v for v in shared]) + w[0] * w[0],
    "a weight decay inside": lambda mse, mae, w, shared, p, t: ops.sqrt(1 + mse + ops.sum([v * v for v in shared])),
    "a weight decay as a factor": lambda mse, mae, w, shared, p, t: mse * (1 + ops.sum([abs(v) for v in shared])),
    "what is inside and outside": lambda mse, mae, w, shared, p, t: (
        ops.mean([ops.exp(w[0]) * (a[0] - b) for a, b in zip(p, t)]) ** 2 + ops.exp(w[0]) * mse
    ),
    "a shared node with a shared factor": lambda mse, mae, w, shared, p, t: (
        lambda s: s * ops.mean([s * a[0] * a[0] + s for a in p]) + s
    )(ops.tanh(w[0]) * w[1]),
    "a parameter alone": lambda mse, mae, w, shared, p, t: w[0],
    "no sample": lambda mse, mae, w, shared, p, t: w[0] * w[1],
    "detached": lambda mse, mae, w, shared, p, t: mse / (1 + mse.detach()) + mae * (w[0] * mae).detach(),
    "a start that learns": lambda mse, mae, w, shared, p, t: sum([a[0] * a[0] for a in p], w[0]) / len(p),
    "a dot product and more": lambda mse, mae, w, shared, p, t: (
        ops.tanh(ops.dot([*[a[0] for a in p], w[0]], [*[a[1] for a in p], mse])) + w[1]
    ),
}


def two_numbers(*layers):
    manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), *layers, nn.Linear(4, 2))


class ByHand(nn.Module):
    """The same network, row by row, as a user writes it."""

    def __init__(self):
        super().__init__()
        self.layers = two_numbers()

    def forward(self, xb):
        return [self.layers([x])[0] for x in xb]


class Scaled(ByHand):
    """With parameters of no layer, on the way to every sample."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter([0.5, 0.2])

    def forward(self, xb):
        s = ops.exp(self.scale[0])
        return [[s * z + self.scale[1] for z in row] for row in self.layers(xb)]


def alike(backend, made, batches=(), steps=(), lengths=(), predict=()):
    """A compiled and an eager session, of `made()`, a (model, loss), do the same; returns the compiled one."""
    sessions = []
    for b in (backend, "eager"):
        model, loss_fn = made()
        parameters = [p for m in (model, loss_fn) if isinstance(m, nn.Module) for p in m.parameters()]
        sessions.append(session(b, model, optim.SGD(parameters, lr=0.02, momentum=0.5), loss_fn, correct=None))
    s, e = sessions
    s.load()
    for n in batches:
        assert s.epoch(X, T, range(11), n) == about(e.epoch(X, T, range(11), n)), n
    for xb, yb in steps:
        assert s.batch(xb, yb) == about(e.batch(xb, yb)), len(xb)
    s.store()
    assert everything(s) == about(everything(e))
    for n in lengths:
        assert s.evaluate(X, T, n) == about(e.evaluate(X, T, n)), n
    for n in predict:
        assert flatten(s.predict(X, n)) == about(flatten(e.predict(X, n))), n
    return s


T = [rng.choice((-1.0, 0.0, 1.0)) for _ in X]
LENGTHS = {"python": (1, 2, 3, 4, 5, 7), "llvm": (1, 4)}  # each leaves a smaller last batch of 11 samples, or one of 1


@pytest.mark.parametrize("name", BESIDE_A_MEAN)
def test_parameters_beside_a_mean_learn_as_they_do_eagerly(backend, name):
    make = [two_numbers, ByHand, Scaled][list(BESIDE_A_MEAN).index(name) % 3]

    def made():
        model = make()
        return model, Weighted(BESIDE_A_MEAN[name], model)

    lengths = LENGTHS[backend]
    s = alike(backend, made, lengths, [(X[:n], T[:n]) for n in lengths], lengths)
    assert Whole not in kinds(s)


# ── The length of a batch ────────────────────────────────────────────────────────────────────────────────────────


AS_OFTEN = ["n", "2.5 * n", "1 / n", "0.1 / n", "3.0"]  # what is one loop for every length
OTHERWISE = [
    "n // 2 + 1", "min(n, 3)", "min(n, 4)", "min(n, 5)", "n % 4 + 1", "n * n", "n * (n - 1) + 1", "max(n - 1, 1)",
    "2.0 if n > 4 else 1.0", "2.0 if n > 10 else 1.0", "2.0 if n == 1 else 1.0", "n ** 0.5", "1 / (n + 1)",
    "n if n < 7 else 7", "2 if n == 2 else 3 if n == 3 else 0.5",
]  # fmt: skip


@pytest.mark.parametrize("text", [*AS_OFTEN, *OTHERWISE])
def test_a_function_of_the_length_of_a_batch_is_what_it_is_for_each_length(backend, text):
    f = eval(f"lambda n: {text}")

    def made():
        return two_numbers(), lambda p, t: ops.mean([(a[0] - b) ** 2 for a, b in zip(p, t)]) * f(len(p))

    s = alike(backend, made, [2, 3, 5] if text in AS_OFTEN else LENGTHS[backend], lengths=(11,))
    assert (Whole in kinds(s)) is (text not in AS_OFTEN)


SOME_SAMPLES = {
    "the first three": lambda p: ops.mean([a[0] ** 2 for a in p[:3]]),
    "the first five": lambda p: ops.mean([a[0] ** 2 for a in p[:5]]),
    "all but the first": lambda p: ops.sum([a[0] ** 2 for a in p[1:]]) + p[0][1],
    "the last one": lambda p: p[-1][0] ** 2,
    "every other one": lambda p: ops.mean([a[0] ** 2 for a in p[::2]]),
    "neighbours": lambda p: ops.sum([(a[0] - b[0]) ** 2 for a, b in pairwise(p)]) + p[0][0],
    "couples": lambda p: ops.sum([(a[0] - b[0]) ** 2 for a, b in zip(p[::2], p[1::2])]) + p[0][0],
    "all pairs": lambda p: ops.sum([a[0] * b[0] for i, a in enumerate(p) for b in p[:i]]) + p[0][1],
    "two halves": lambda p: ops.sum([a[0] for a in p[: len(p) // 2]]) - ops.sum([a[1] for a in p[len(p) // 2 :]]),
    "the first four count twice": lambda p: ops.sum([a[0] * (2 if i < 4 else 1) for i, a in enumerate(p)]),
    "by position": lambda p: ops.mean([i * a[0] for i, a in enumerate(p)]),
    "the largest": lambda p: ops.max([a[0] for a in p]),
    "a softmax over samples": lambda p: ops.logsumexp([a[0] for a in p]),
    "a variance": lambda p: (lambda m: ops.mean([(a[0] - m) ** 2 for a in p]))(ops.mean([a[0] for a in p])) + p[0][1],
}


@pytest.mark.parametrize("name", SOME_SAMPLES)
def test_samples_that_are_not_treated_alike_are_told_apart_in_batches_of_any_length(backend, name):
    lengths = LENGTHS[backend]
    s = alike(backend, lambda: (two_numbers(), lambda p, t: SOME_SAMPLES[name](p)), lengths, lengths=(11,))
    assert Whole in kinds(s)


def test_a_loss_that_takes_batches_of_some_lengths_only_takes_them_compiled(backend):
    def loss_fn(p, t):
        if len(p) not in (4, 1):
            raise ValueError("four, please")
        return ops.mean([(a[0] - b) ** 2 for a, b in zip(p, t)])

    s = alike(backend, lambda: (two_numbers(), loss_fn), steps=[(X[:4], T[:4]), (X[4:8], T[4:8]), (X[:1], T[:1])])
    for make in (lambda: s.batch(X[:3], T[:3]), lambda: s.epoch(X, T, range(6), 3), lambda: s.evaluate(X, T, 5)):
        with pytest.raises(ValueError, match="four, please"):
            make()


def test_an_exponent_that_is_the_length_of_the_batch(backend):
    def made(f):
        return lambda: (two_numbers(), lambda p, t: f(1 + ops.tanh(F_mse(p, t)), len(p)))

    for f in (
        lambda mse, n: mse**n,
        lambda mse, n: n**mse,
        lambda mse, n: mse ** (1 / n),
        lambda mse, n: n ** ops.tanh(mse**n),
    ):
        s = alike(backend, made(f), (3, 4), lengths=(11,))
        assert Whole not in kinds(s)


class Counting(ByHand):
    """A network of which a `rule` (of the length and a row's position) makes more in a batch than of each sample."""

    def __init__(self, rule):
        super().__init__()
        self.rule = rule

    def forward(self, xb):
        return [[self.rule(len(xb), i) * z for z in row] for i, row in enumerate(self.layers(xb))]


@pytest.mark.parametrize(
    "rule",
    [
        lambda n, i: n // 2 + 1,
        lambda n, i: min(n, 3),
        lambda n, i: 2 if n > 6 else 1,
        lambda n, i: 2 if i >= 2 else 1,
        lambda n, i: 2 if i == n - 1 else 1,
        lambda n, i: 1 / n,
        lambda n, i: 2 if n == 1 else 1,
        lambda n, i: i % 4 + 1,
    ],
)
def test_a_model_that_counts_samples_predicts_and_learns_as_it_does_eagerly(backend, rule):
    loss = Weighted(BESIDE_A_MEAN["a learned uncertainty"], two_numbers()).forward
    alike(backend, lambda: (Counting(rule), loss), (4, 7), lengths=(5,), predict=(1, 2, 3, 5, 11))


def test_each_group_has_a_rate_of_its_own(backend):
    found = []
    for b in (backend, "eager"):
        model = network()
        first, *others = model.parameters()
        groups = [{"params": [first], "lr": 0.5}, {"params": others}]
        s = session(b, model, optim.SGD(groups, lr=0.01))
        s.load()
        s.epoch(X, Y, range(11), 4)
        s.optimizer.param_groups[1]["lr"] = 0.2
        s.store()
        s.load()
        s.epoch(X, Y, range(11), 4)
        s.store()
        found.append(everything(s))
    assert found[0] == about(found[1])


class Telling(nn.Module):
    """The loss knows the first number that it predicts; the second one, which a metric knows, goes by the batch."""

    def __init__(self):
        super().__init__()
        manual_seed(1)
        self.layer = nn.Linear(3, 1)

    def forward(self, xb):
        return [[self.layer(x)[0], 1.0 * (len(xb) > 3)] for x in xb]


def test_what_is_right_may_go_by_the_length_of_a_batch_where_the_loss_does_not(backend):
    told = []
    for b in (backend, "eager"):
        model = Telling()
        s = session(b, model, loss_fn=lambda p, t: ops.mean([a[0] ** 2 for a in p]), correct=lambda p, t: p[1] > 0.5)
        s.load()
        told.append([s.epoch(X, Y, range(11), n) for n in (2, 3, 4, 7)])
    assert told[0] == [about(pair) for pair in told[1]]
    assert [right for _, right in told[1]] == [0, 0, 8, 11]


def test_a_model_that_maps_samples_is_one_loop(backend):
    s = alike(backend, lambda: (ByHand(), F_mse), (4,), lengths=(5,), predict=(1, 2, 5, 11))
    assert {*kinds(s)} == {Loops, Predict}


def F_mse(p, t):
    return ops.mean([(a[0] - b) ** 2 for a, b in zip(p, t)])


def test_a_large_model_is_traced_for_few_samples_and_its_loss_for_all(backend, monkeypatch):
    monkeypatch.setattr(batch, "TRACED", 1)
    seen = []

    class Watched(ByHand):
        def forward(self, xb):
            seen.append(len(xb))
            return super().forward(xb)

    s = alike(backend, lambda: (Watched(), F_mse), (7,), predict=(7,))
    assert kinds(s) == [Loops, Predict] and set(seen[:2]) == {2, 3}
    made = lambda: (ByHand(), lambda p, t: F_mse(p[:5], t))  # noqa: E731
    assert kinds(alike(backend, made, (7,))) == [Whole, Loops]  # of 7 and of 4


def test_layers_are_known_to_map_samples(backend, monkeypatch):
    seen, forward = [], nn.Linear.forward
    monkeypatch.setattr(nn.Linear, "forward", lambda self, x: (seen.append(len(x)), forward(self, x))[1])
    s = session(backend, two_numbers(), loss_fn=F_mse, correct=None)
    s.load()
    s.epoch(X, T, range(11), 8)
    assert {*seen} == {2} and kinds(s) == [Loops]


# ── Ready-made batches ───────────────────────────────────────────────────────────────────────────────────────────


class Nested(nn.Module):
    """It takes a sample of any nesting, and minds which."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter([0.3, -0.2, 0.1])

    def forward(self, xb):
        kind = {list: 0, tuple: 1}
        offset = self.w[kind[type(xb)]]
        return [offset + sum([z * self.w[kind.get(type(x), 2)] for z in flatten(x)]) for x in xb]


def first_numbers(p, t):
    return ops.mean([(a - flatten(b)[-1]) ** 2 for a, b in zip(p, t)])


MIXED = [
    [[1.0, 2.0], [3.0]], [[3.0], [1.0, 2.0]], [[1.0], [3.0]], [[1.0, 2.0], [3.0, 1.0], [4.0]],
    [[1.0, 2.0], (3.0, 1.0)], [(1.0, 2.0), [3.0, 1.0]], [1.0, [2.0]], [[2.0], 1.0], [1.0, 2.0],
    ([1.0, 2.0], [3.0, 1.0]), [[[1.0], 2.0], [3.0, [1.0]]], [[True, 2.0], [1.0, False]], [[True, True], [False, True]],
    [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
]  # fmt: skip


def test_ready_made_batches_of_samples_that_are_nested_in_different_ways(backend):
    steps = [(xb, [1.0, 0.5, 2.0][: len(xb)]) for xb in MIXED]
    steps += [([[1.0, 2.0], [3.0, 1.0]], t) for t in ([1.0, [2.0]], [[1.0], [2.0, 0.5]], (1.0, 2.0), [True, False])]
    alike(backend, lambda: (Nested(), first_numbers), steps=[*steps, *steps[::-1]])


def test_samples_of_a_data_set_that_are_nested_in_different_ways(backend):
    for x in (MIXED[4] * 3, MIXED[11] * 3, [[[1.0], [2.0]], [(2.0,), [1.0]], [[3.0], (3.0,)]]):
        s, e = (session(b, Nested(), loss_fn=first_numbers, correct=None) for b in (backend, "eager"))
        s.load()
        y = [True, False, 1.0, 2, 0.5, 1.0][: len(x)]
        assert s.epoch(x, y, range(len(x)), 2) == about(e.epoch(x, y, range(len(x)), 2))
        s.store()
        assert s.evaluate(x, y, 2) == about(e.evaluate(x, y, 2)) and s.predict(x, 2) == about(e.predict(x, 2))


DRAWING = {
    "layer by layer": lambda self, xb: F.dropout(self.layers(F.dropout(xb, 0.3)), 0.5),
    "twice for each sample": lambda self, xb: [F.dropout(self.layers([F.dropout(x, 0.3)])[0], 0.5) for x in xb],
    "the last sample first": lambda self, xb: F.dropout(self.layers(xb)[::-1], 0.5)[::-1],
    "number by number": lambda self, xb: [*zip(*[F.dropout(c, 0.5) for c in zip(*self.layers(xb))])],
    "once for all samples": lambda self, xb: (
        lambda kept: [[z * k for z, k in zip(row, kept)] for row in self.layers(xb)]
    )(F.dropout([1.0, 1.0], 0.5)),
    "for nothing": lambda self, xb: (F.dropout(xb, 0.5), self.layers(xb))[1],
    "for half of the samples": lambda self, xb: (lambda h: F.dropout(h[: len(h) // 2], 0.5) + h[len(h) // 2 :])(
        self.layers(xb)
    ),
    "by the length": lambda self, xb: F.dropout(self.layers(xb), 0.5 if len(xb) > 3 else 0.1),
}


@pytest.mark.parametrize("name", DRAWING)
def test_random_numbers_are_drawn_in_the_order_of_the_eager_engine(name):
    class Drawing(ByHand):
        def forward(self, xb):
            return DRAWING[name](self, xb)

    for n in (1, 3, 4):
        results = []
        for b in ("python", "eager"):
            s = session(b, Drawing(), loss_fn=F_mse, correct=None)
            s.load()
            manual_seed(5)
            results.append([*s.epoch(X, T, range(11), n), *s.evaluate(X, T, n), *flatten(s.predict(X, n))])
            s.store()
            results[-1] += [*everything(s), generator().random()]
        assert results[0] == about(results[1])


# ── What is not finite ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_loss_that_is_not_finite_says_what_to_do_and_changes_nothing(backend):
    def loss_fn(prediction, target):
        return ops.mean([ops.exp(1000 * row[0] * row[0]) for row in prediction])

    s = session(backend, network(), loss_fn=loss_fn, correct=None)
    s.model[2].bias[0].data = 5.0
    before = everything(s)
    s.load()
    for make in (
        lambda: s.epoch(X, Y, range(11), 4),
        lambda: s.batch(X[:2], Y[:2]),
        lambda: s.evaluate(X, Y, 4),
        lambda: s.evaluate(X[:2], Y[:2], None),
    ):
        with pytest.raises(FloatingPointError, match="backend='eager' says where a number stops making sense"):
            make()
    s.discard()
    s.store()
    assert everything(s) == before


def test_a_gradient_that_is_not_finite_is_noticed_where_the_loss_is(backend):
    p = nn.Parameter([0.0])

    def loss_fn(prediction, target):
        return ops.mean([row[0] + ops.sqrt(p[0]) for row in prediction])

    s = session(backend, network(), optim.SGD([p], lr=0.1), loss_fn, correct=None)
    s.load()
    with pytest.raises(FloatingPointError, match="backend='eager'"):
        s.epoch(X, Y, range(4), 4)
        s.store()
    s.discard()
    assert p[0].data == 0.0


# ── Threads, and float32 ─────────────────────────────────────────────────────────────────────────────────────────


@needs_llvm
@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("clips", [(None, None), (0.5, None), (0.5, 0.05)])
def test_threads_split_each_batch_and_change_nothing_else(threads, clips):
    def loss_fn(model, prediction, target):
        weights = [1.0, 2.0, 0.5]
        regulariser = 0.1 * sum(v * v for v in model[0].weight.values())
        return F.cross_entropy(prediction, target, weights, ignore_index=0) + regulariser

    made = []
    for n in (1, threads):
        model = network(nn.Dropout(0.2))
        s = session(
            "llvm", model, optim.Adam(model.parameters(), lr=0.1), partial(loss_fn, model), threads=n,
            **dict(zip(("clip_grad_norm", "clip_grad_value"), clips)),
        )  # fmt: skip
        s.load()
        manual_seed(3)
        losses = [s.epoch(X, Y, range(11), 5) for _ in range(3)]  # one sample in the last batch, for all threads
        s.store()
        made.append([x for loss in losses for x in loss] + everything(s))
    assert made[1] == pytest.approx(made[0], rel=1e-12, abs=1e-13)


@needs_llvm
def test_threads_are_shown_in_explain():
    s = session("llvm", network(), threads=2)
    s.load()
    s.epoch(X, Y, range(11), 4)
    text = s.explain(full=True)
    assert "llvm: " in text and text.count("@run(") > 1  # a program for each stage


@needs_llvm
def test_float32_is_within_its_rounding():
    s, e = session("llvm", network(), dtype="float32"), session("eager", network())
    s.load()
    for _ in range(5):
        assert s.epoch(X, Y, range(11), 4) == pytest.approx(e.epoch(X, Y, range(11), 4), rel=1e-4)
    s.store()
    assert everything(s) == pytest.approx(everything(e), rel=1e-4, abs=1e-5) and everything(s) != everything(e)
    assert flatten(s.predict(X, 4)) == pytest.approx(flatten(e.predict(X, 4)), rel=1e-4, abs=1e-5)


def test_what_there_is_not_is_refused():
    with pytest.raises(ValueError, match="float32"):
        session("python", network(), dtype="float32")
    with pytest.raises(ValueError, match="backend: expected"):
        session("cuda", network())


def test_numbers_are_floats_when_they_come_back(backend):
    s = session(backend, network())
    s.load()
    s.epoch(X, Y, range(11), 4)
    s.store()
    assert {type(x) for x in everything(s)} <= {float, int} and all(map(math.isfinite, everything(s)))
    assert all(type(v.data) is float for p in s.model.parameters() for v in p.values())


def test_a_recurrence_over_many_steps_is_no_problem_for_pythons_parser():
    """Gradients of 300 steps are 300 sums to be added up."""

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.out = nn.RNN(1, 2, batch_first=True), nn.Linear(2, 1)

        def forward(self, x):
            return [self.out(steps[-1]) for steps in self.rnn(x)[0]]

    losses = {}
    for backend in ("eager", "python"):
        manual_seed(0)
        model = Last()
        trainer = Trainer(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.01), backend=backend, metric=None)
        xs = [[[math.sin(i + k)] for i in range(300)] for k in range(2)]
        history = trainer.fit(xs, [[1.0], [0.0]], epochs=2, batch_size=2, progress=False)
        losses[backend] = [row["loss"] for row in history.epochs]
    assert losses["python"] == pytest.approx(losses["eager"], rel=1e-12)


class Rooted(nn.Module):
    """The root of what a layer says where that is positive: elsewhere the branch that is not taken is no number."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)
        for v, x in zip([*self.layer.weight.values(), *self.layer.bias.values()], (1.0, 0.0)):
            v.data = x

    def forward(self, xs):
        return [[ops.where(z > 0, lambda z=z: ops.sqrt(z), z)] for z in (self.layer(x)[0] for x in xs)]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch_size", [2, 3, 5])
def test_a_number_that_makes_no_sense_and_does_not_matter_is_trained_alike(backend, batch_size, threads):
    xs, ys = [[0.0], [1.0], [-1.0], [2.0], [-0.5]], [[0.5], [1.0], [1.0], [0.0], [2.0]]
    found = []
    for used in ("eager", backend):
        model = Rooted()
        optimizer = optim.Adam(model.parameters(), lr=0.05)
        trainer = Trainer(model, nn.MSELoss(), optimizer, backend=used, threads=threads, metric=None)
        history = trainer.fit(xs, ys, epochs=3, batch_size=batch_size, seed=3, progress=False)
        steps = [trainer.step(xs[:3], ys[:3]) for _ in range(2)]
        numbers = [*steps, *[row["loss"] for row in history.epochs], trainer.evaluate(xs, ys).loss]
        found.append([*numbers, *flatten(trainer.predict(xs)), *flatten(list(model.state_dict().values()))])
    assert found[1] == pytest.approx(found[0], rel=1e-12)
